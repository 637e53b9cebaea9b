"""The columns of all tables of an analysis, with their types and meanings; docs/reference/tables.md is made from them.

``openface.csv`` has the names and units of OpenFace 2.0 (https://github.com/TadasBaltrusaitis/OpenFace/wiki/Output-Format)
for the quantities that OpenFace also has.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Column(NamedTuple):
    """``kind`` is ``bool``, ``int``, ``float`` or ``str``; a value may be missing unless ``meaning`` excludes it."""

    kind: type
    meaning: str


Columns = dict[str, Column]

_BOX: Columns = {
    "x": Column(float, "left edge of the face's bounding box, in pixels; may be outside the picture"),
    "y": Column(float, "upper edge of the box, in pixels; may be outside the picture"),
    "width": Column(float, "width of the box, in pixels"),
    "height": Column(float, "height of the box, in pixels"),
}
_DETECTION = Column(float, "the detector's confidence, 0 to 1")
_POSE: Columns = {
    "approx_roll": Column(
        float, "degrees that the head leans, positive clockwise in the picture; empty without landmarks"
    ),
    "approx_yaw": Column(
        float, "degrees that the head is turned, positive to the picture's left; empty without landmarks"
    ),
    "approx_pitch": Column(float, "degrees that the head is bent, positive down; empty without landmarks"),
}
_FRAME: Columns = {
    "frame": Column(int, "number of the frame, from 1"),
    "time": Column(float, "seconds from the recording's start, on the film's clock"),
}
_TRACK = "number of the track: a face followed by its motion, never an identity"
_IMAGE: Columns = {"image": Column(str, "file name of the picture")}
_SIZE: Columns = {
    "width": Column(int, "width of the picture, in pixels"),
    "height": Column(int, "height of the picture, in pixels"),
}
_PROCESSED = "whether the picture could be analysed; if not, it has no faces"


@dataclass(frozen=True)
class Layout:
    """The columns of the tables of a recording, by name and in order.

    Args:
        labels: the labels of the smoothed probabilities.
        model_labels: the labels of the model.
        measures: the names of its measures.

    Asked for its columns, it raises `ModelError` as `join` does.
    """

    labels: Sequence[str]
    model_labels: Sequence[str]
    measures: Sequence[str] = ()

    @cached_property
    def faces(self) -> Columns:
        """The columns of ``faces``: a row for each face and frame."""
        return join(
            _FRAME,
            {"track": Column(int, f"{_TRACK}; empty if the recording ended before the face became a track")},
            _BOX,
            {
                "detection": _DETECTION._replace(meaning=f"{_DETECTION.meaning}; empty unless `found`"),
                "found": Column(
                    bool,
                    "whether the detector found the face in this frame; if not, box, label and probabilities are those "
                    "of the last frame in which it was found, and it was found again later",
                ),
                "provisional": Column(bool, "whether the face was not a track yet; its label is empty until then"),
            },
            _POSE,
            {"label": Column(str, "the smoothed label; empty while uncertain")},
            _each(self.labels, "{}", "the smoothed probability of {}, 0 to 1"),
            {
                "scored": Column(
                    bool,
                    "whether the classifier scored the face in this frame; if not, label and probabilities are those "
                    "of an earlier frame",
                ),
                "quality": Column(float, "the weight of this score, 0 to 1; empty unless `scored`"),
            },
            _each(self.model_labels, "scored_{}", "the model's own probability of {}; empty unless `scored`"),
            _each(self.measures, "{}", "the smoothed measure {}, on the model's scale"),
            _each(self.measures, "scored_{}", "the model's own measure {}; empty unless `scored`"),
        )

    @cached_property
    def frames(self) -> Columns:
        """The columns of ``frames``: a row for each frame."""
        return join(
            _FRAME,
            _SIZE,
            {
                "faces": Column(int, "number of faces found, as in the table of faces; empty unless `processed`"),
                "processed": Column(bool, _PROCESSED),
                "searched": Column(
                    str,
                    "where new faces were searched for: in the `whole` picture, in a `part` of it, or nowhere, because "
                    "only `known` faces were checked",
                ),
            },
        )

    @cached_property
    def events(self) -> Columns:
        """The columns of ``events``: a row for each event."""
        return join(
            {
                "sequence": Column(int, "number of the event, from 1 without gaps"),
                "type": Column(str, "`camera.online`, `face.entered`, `emotion.started` ...: see the events"),
                **_FRAME,
                "track": Column(int, f"{_TRACK}; empty for events of the camera"),
                "label": Column(str, "the label that started, continued or ended"),
                "previous": Column(str, "the label before it"),
                "start": Column(float, "when the stay, the label or the visit to a zone began, in seconds as `time`"),
                "end": Column(float, "when it ended, that is when it was last seen; empty while it continues"),
                "duration": Column(float, "its duration so far, in seconds"),
                "mean_probability": Column(float, "the label's mean probability over its interval, 0 to 1"),
                "peak_probability": Column(float, "the label's highest probability, 0 to 1"),
                **_BOX,
                "detection": _DETECTION,
                "reason": Column(str, "why the camera went offline or was reset"),
                "zone": Column(str, "the zone that a face entered or left"),
                "line": Column(str, "the line that a face crossed"),
                "direction": Column(str, "the direction of the crossing, as named in the settings"),
            },
            _each(self.labels, "probability_{}", "the smoothed probability of {} at the event, 0 to 1"),
            *(
                _each(self.measures, f"{what}_{{}}", f"the {what} value of {{}} over the interval or stay")
                for what in ("mean", "lowest", "highest")
            ),
        )

    @cached_property
    def openface(self) -> Columns:
        """The columns of ``openface``: a row for each face and frame."""
        return join(
            {
                "frame": _FRAME["frame"],
                "face_id": Column(int, "`track` of the table of faces"),
                "timestamp": Column(float, "`time` of the table of faces, in seconds"),
                "confidence": _DETECTION,
                "success": Column(int, "1 if the face was found in this frame, otherwise 0: `found`"),
                "pose_Rx": Column(float, "`approx_pitch` in radians"),
                "pose_Ry": Column(float, "`approx_yaw` in radians"),
                "pose_Rz": Column(float, "`approx_roll` in radians"),
                "x_30": Column(float, "the tip of the nose, in pixels"),
                "x_48": Column(float, "the corner of the mouth on the left of the picture, in pixels"),
                "x_54": Column(float, "the corner of the mouth on the right, in pixels"),
                "y_30": Column(float, "the tip of the nose, in pixels"),
                "y_48": Column(float, "the corner of the mouth on the left, in pixels"),
                "y_54": Column(float, "the corner of the mouth on the right, in pixels"),
                "left_eye_x": Column(float, "the eye on the left of the picture, in pixels; not in OpenFace"),
                "left_eye_y": Column(float, "the same, in pixels; not in OpenFace"),
                "right_eye_x": Column(float, "the eye on the right, in pixels; not in OpenFace"),
                "right_eye_y": Column(float, "the same, in pixels; not in OpenFace"),
                "emotion": Column(str, "`label` of the table of faces; not in OpenFace"),
            },
            _each(self.labels, "emotion_{}", "the smoothed probability of {}; not in OpenFace"),
            _each(self.measures, "measure_{}", "the smoothed measure {}; not in OpenFace"),
        )


@dataclass(frozen=True)
class PictureLayout:
    """The columns of the tables of unrelated pictures, where nothing is smoothed.

    Args:
        labels: the labels of the model.
        measures: the names of its measures.

    Asked for its columns, it raises `ModelError` as `join` does.
    """

    labels: Sequence[str]
    measures: Sequence[str] = ()

    @cached_property
    def frames(self) -> Columns:
        """The columns of ``frames``: a row for each picture."""
        count = Column(int, "number of faces found; empty unless `processed`")
        return join(_IMAGE, _SIZE, {"faces": count, "processed": Column(bool, _PROCESSED)})

    @cached_property
    def faces(self) -> Columns:
        """The columns of ``faces``: a row for each face."""
        return join(
            _IMAGE,
            _BOX,
            {"detection": _DETECTION},
            _POSE,
            {
                "label": Column(str, "the most probable label"),
                "quality": Column(float, "how well the face can be seen, 0 to 1"),
            },
            _each(self.labels, "{}", "the model's probability of {}, 0 to 1"),
            _each(self.measures, "{}", "the model's measure {}, on its scale"),
        )


def _each(names: Iterable[str], column: str, meaning: str) -> Columns:
    return {column.format(name): Column(float, meaning.format(name)) for name in names}


def join(*parts: Mapping[str, Column]) -> Columns:
    """Return the columns of all parts, in order.

    Raises:
        ModelError: a label or a measure has the name of another column.
    """
    count = Counter(name for part in parts for name in part)
    if twice := [name for name, n in count.items() if n > 1]:
        raise ModelError(
            f"the model's label or measure {twice[0]!r} is also the name of a column: rename it in the model"
        )
    return {name: column for part in parts for name, column in part.items()}
