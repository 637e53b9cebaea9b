"""The values that the processes exchange, in the order in which they are made.

All are frozen and import nothing of ours. Times are integers in nanoseconds since the Unix epoch, in the
*capture clock*: taken once from the wall clock when a capture starts and monotonic from there, or the file's own
timestamps from a fixed start (see :mod:`fer_stream.capture.clock`). Boxes are in pixels of the image, ``x`` to the
right and ``y`` down, ``(x1, y1)`` inclusive and ``(x2, y2)`` exclusive, not clipped to the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, NewType, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Nanoseconds = NewType("Nanoseconds", int)
"""A point in capture time: nanoseconds since the Unix epoch."""

Milliseconds = NewType("Milliseconds", int)
"""A duration."""

Cursor = NewType("Cursor", str)
"""A point in a journal to resume from. Opaque: compare cursors for equality only. ``"0"`` is the beginning."""

BEGINNING = Cursor("0")
"""The cursor before the first event of a journal."""

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's labels, in FER2013's order."""


class Box(NamedTuple):
    """An upright rectangle in pixels, unclipped."""

    x1: float
    y1: float
    x2: float
    y2: float


class Encoded(Protocol):
    """A picture that is decoded when somebody needs its pixels (`fer_stream.Jpeg`)."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(H, W, 3)``, without decoding.

        Raises:
            WireError: its header says nothing of the kind.
        """

    def decode(self) -> NDArray[np.uint8]:
        """Return its pixels, uint8 ``[H, W, 3]`` in BGR order.

        Raises:
            WireError: it does not decode.
        """


class _Visible:
    """What has pixels, or a JPEG of which they are decoded when they are asked for."""

    __slots__ = ()
    content: NDArray[np.uint8] | Encoded

    @property
    def image(self) -> NDArray[np.uint8]:
        """The pixels, uint8 ``[H, W, 3]`` in BGR order, C-contiguous.

        Raises:
            WireError: it is a JPEG that does not decode.
        """
        import numpy as np  # noqa: PLC0415  (slow, and most of these types do without)

        return self.content if isinstance(self.content, np.ndarray) else self.content.decode()

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)``, for which nothing is decoded.

        Raises:
            WireError: it is a JPEG without a header, or cut short.
        """
        height, width = self.content.shape[:2]
        return width, height


@dataclass(frozen=True, slots=True, eq=False)
class Picture(_Visible):
    """What a source gives: a picture, and where in the source's own time it lies.

    ``content`` is pixels, uint8 ``[H, W, 3]`` in BGR order, C-contiguous; or a `fer_stream.Yuv` as a decoder gives it;
    or a `fer_stream.Jpeg` as a camera sent it.
    ``offset`` is nanoseconds from the source's start for a recorded source, ``None`` for a camera (the capture stamps
    it on arrival).
    """

    content: NDArray[np.uint8] | Encoded
    offset: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Frame(_Visible):
    """One captured picture. ``number`` counts from 1 in each capture process, without gaps."""

    camera: str
    number: int
    time: Nanoseconds
    content: NDArray[np.uint8] | Encoded


@dataclass(frozen=True, slots=True)
class Probabilities:
    """A distribution over labels: ``values[i]`` is the probability of ``labels[i]``; they sum to 1."""

    labels: tuple[str, ...]
    values: tuple[float, ...]

    def as_dict(self) -> dict[str, float]:
        """Return ``{label: probability}`` in the order of the labels."""
        return dict(zip(self.labels, self.values, strict=True))

    def top(self) -> tuple[str, float]:
        """Return the most probable label and its probability (the first of equals)."""
        best = max(range(len(self.values)), key=self.values.__getitem__)
        return self.labels[best], self.values[best]


class Measure(NamedTuple):
    """A number on a scale that a model gives for a face beside its labels, such as valence."""

    name: str
    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class Measures:
    """The measures of one face: ``values[i]`` is that of ``names[i]``, on its scale."""

    names: tuple[str, ...]
    values: tuple[float, ...]

    def as_dict(self) -> dict[str, float]:
        """Return ``{name: value}`` in the order of the names."""
        return dict(zip(self.names, self.values, strict=True))


@dataclass(frozen=True, slots=True)
class Face:
    """One face in one frame.

    ``confidence`` is the detector's, in 0..1, that this is a face. ``landmarks`` are five points (left eye, right eye,
    nose, left and right mouth corner, as seen if the head is upright), or empty where a detector has none.
    ``probabilities`` is ``None`` until a classifier has looked at the face; ``quality``, in 0..1, is the weight of that
    look (`fer_stream.imaging.quality`). ``measures`` are ``None`` until then, and where the model has none.
    """

    box: Box
    confidence: float
    landmarks: tuple[tuple[float, float], ...] = ()
    probabilities: Probabilities | None = None
    quality: float = 1.0
    measures: Measures | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return box, confidence, probabilities and measures, if there are any, as JSON values.

        They are rounded to a thousandth of a pixel and to 1e-6.
        """
        probabilities = self.probabilities.as_dict() if self.probabilities else {}
        return {
            "box": [round(side, 3) for side in self.box],
            "confidence": round(self.confidence, 6),
            "probabilities": {label: round(value, 6) for label, value in probabilities.items()},
        } | (
            {"measures": {name: round(value, 6) for name, value in self.measures.as_dict().items()}}
            if self.measures
            else {}
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """Where a face that is known should be in a frame, and whether it is ``due`` for a closer look."""

    box: Box
    due: bool


class Region(NamedTuple):
    """A part of a picture, in whole pixels: ``(x1, y1)`` inclusive, ``(x2, y2)`` exclusive."""

    x1: int
    y1: int
    x2: int
    y2: int


THUMBNAIL = (36, 64)
"""Rows and columns of the thumbnail on which pictures are compared (`fer_stream.imaging.motion`)."""


@dataclass(frozen=True, slots=True, eq=False)
class Hints:
    """What a worker is to look at in a frame.

    ``faces`` are those to check. With ``whole`` the whole picture is searched for others; otherwise, where there is
    ``seen`` (uint8 ``[36, 64]``: how each cell of the thumbnail looked when it was last searched), what is
    not like it.
    """

    faces: tuple[Expected, ...] = ()
    whole: bool = False
    seen: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """Which ``cells`` of a picture were searched, bool ``[36, 64]``, and its thumbnail, uint8 ``[36, 64]``."""

    cells: NDArray[np.bool_]
    thumbnail: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Track:
    """A face followed over frames by motion and overlap; ``id`` is unique within a camera's epoch, never an identity.

    ``face`` is the latest observation, ``first_seen`` and ``last_seen`` are capture times.
    """

    id: int
    face: Face
    first_seen: Nanoseconds
    last_seen: Nanoseconds


@dataclass(frozen=True, slots=True)
class Estimate:
    """The smoothed state of one track after one observation.

    ``label`` is the open interval's label, or ``None`` while uncertain. ``probabilities`` is the smoothed
    distribution over the label set in force; it sums to at most 1 (a subset leaves the rest out, and poor looks leave
    something unknown). ``measures`` are smoothed, too; ``None`` where the model has none.
    """

    track: int
    probabilities: Probabilities
    label: str | None
    measures: Measures | None = None


class EventType(StrEnum):
    """Every kind of event."""

    CAMERA_ONLINE = "camera.online"
    CAMERA_OFFLINE = "camera.offline"
    CAMERA_RESET = "camera.reset"
    FACE_ENTERED = "face.entered"
    FACE_LEFT = "face.left"
    EMOTION_STARTED = "emotion.started"
    EMOTION_UPDATED = "emotion.updated"
    EMOTION_ENDED = "emotion.ended"
    VALENCE_STARTED = "valence.started"
    VALENCE_UPDATED = "valence.updated"
    VALENCE_ENDED = "valence.ended"
    ZONE_ENTERED = "zone.entered"
    ZONE_LEFT = "zone.left"
    LINE_CROSSED = "line.crossed"
    STREAM_GAP = "stream.gap"


Setting = NewType("Setting", float)
"""The value of a setting, in its own unit."""


Outline = NewType("Outline", tuple[tuple[float, float], ...])
"""Points ``(x, y)`` as fractions of a picture's width and height."""


@dataclass(frozen=True, slots=True)
class LineShape:
    """A line between two points, and the names of the two directions in which it is crossed.

    ``to_right`` is the direction from left to right, as seen in the picture from the first point to the second.
    """

    points: Outline
    to_right: str
    to_left: str


@dataclass(frozen=True, slots=True)
class Places:
    """The zones of a camera, polygons by name, and its lines by name."""

    zones: dict[str, Outline]
    lines: dict[str, LineShape]


@dataclass(frozen=True, slots=True)
class CameraData:
    """``reason`` is one word for people and alerts; width and height are 0 where no frame is known.

    ``smoother`` has the settings that smooth this camera's labels; it is there only when the camera comes online, and
    only if they are not the defaults. ``calibration`` has the camera's calibration, if it has one: ``temperature``, and
    ``bias.LABEL`` for each label that has a bias. ``zones`` and ``lines`` are those of the camera, if it has any. These
    fields, too, are there only when the camera comes online.
    """

    reason: str
    width: int
    height: int
    smoother: dict[str, Setting] | None = None
    calibration: dict[str, Setting] | None = None
    zones: dict[str, Outline] | None = None
    lines: dict[str, LineShape] | None = None


@dataclass(frozen=True, slots=True)
class Probability:
    """Of an interval's label, over the interval so far."""

    mean: float
    peak: float


Level = NewType("Level", float)
"""A value on a measure's scale."""


@dataclass(frozen=True, slots=True)
class MeasureData:
    """Of a smoothed measure, over the looks of the interval so far, or of a whole stay."""

    mean: Level
    lowest: Level
    highest: Level


@dataclass(frozen=True, slots=True)
class FaceData:
    """A face's stay: ``end_time`` is ``None`` while it is in view.

    ``measures`` is there only when it has left, and only if the model has measures and has scored the face.
    """

    start_time: Nanoseconds
    end_time: Nanoseconds | None
    duration_ms: Milliseconds
    box: Box
    confidence: float
    measures: dict[str, MeasureData] | None = None


@dataclass(frozen=True, slots=True)
class ExpressionData:
    """An interval of one apparent expression (an emotion, or a valence group) on one face.

    ``measures`` is there only if the model has measures, such as valence and arousal.
    """

    start_time: Nanoseconds
    end_time: Nanoseconds | None
    duration_ms: Milliseconds
    label: str
    previous: str | None
    probability: Probability
    probabilities: dict[str, float]
    box: Box
    confidence: float
    measures: dict[str, MeasureData] | None = None


@dataclass(frozen=True, slots=True)
class ZoneData:
    """A visit of a face to a zone of the camera: ``end_time`` is ``None`` while the face is there."""

    zone: str
    start_time: Nanoseconds
    end_time: Nanoseconds | None
    duration_ms: Milliseconds
    box: Box
    confidence: float


@dataclass(frozen=True, slots=True)
class LineData:
    """A face crossed a line of the camera; ``direction`` is the name of the direction."""

    line: str
    direction: str
    box: Box
    confidence: float


@dataclass(frozen=True, slots=True)
class GapData:
    """The events after ``from_cursor``, up to and including ``to_cursor``, are no longer available, and why.

    With the reason ``another journal``, ``from_cursor`` was of another one, and this one follows from its beginning.
    """

    from_cursor: Cursor
    to_cursor: Cursor
    reason: str


EventData = CameraData | FaceData | ExpressionData | ZoneData | LineData | GapData


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a camera.

    ``time`` is the capture time of the causing frame and ``frame`` its number; ``track`` is 0 for events about the
    camera itself. ``sequence`` counts the camera's events without gaps; ``cursor`` is where to resume after this event.
    Before the event is journaled, ``sequence`` is 0 and ``cursor`` is `BEGINNING`.
    """

    type: EventType
    camera: str
    epoch: int
    frame: int
    track: int
    time: Nanoseconds
    data: EventData
    sequence: int = 0
    cursor: Cursor = BEGINNING


@dataclass(frozen=True, slots=True)
class Annotation:
    """An annotator's label for a face in an interval, or only the mark that the shown label is wrong.

    If it is the label that was shown, it confirms that label. Annotations are stored beside the events, in a sequence
    of their own, and change no event. If an annotator annotates an interval (camera, track, start) several times, all
    annotations stay, and the last one counts.
    """

    id: str
    """Chosen by the sender, 32 hexadecimal digits. An annotation that is sent again is not stored again."""
    camera: str
    track: int
    start: Nanoseconds
    end: Nanoseconds
    label: str
    """The right label, or ``wrong``."""
    previous: str | None
    """The label that was shown; ``None``: there was none."""
    annotator: str
    note: str = ""
    made: Nanoseconds = Nanoseconds(0)
    """When the aggregator received it, by its clock."""
    number: int = 0
    """Its place in the sequence of annotations, from 1; 0 before it is stored."""


EARLIEST, LATEST = -8_520_336_000_000_000_000, 7_289_654_399_000_000_000
"""The times that an annotation can be about, from 1700 to 2200, in nanoseconds since the Unix epoch."""


class AnnotationQuery(NamedTuple):
    """Which annotations to read: those that reach into a period, in nanoseconds since the Unix epoch."""

    since: int = EARLIEST
    until: int = LATEST
    """Exclusive."""
    camera: str | None = None
    """Only this camera's."""
    after: int = 0
    """Only those with a number above this."""
    limit: int = 500


class AnnotationPage(NamedTuple):
    """Annotations in the order in which they were stored."""

    found: list[Annotation]
    more: int
    """The number after which the next page begins; 0: there are no more."""
