"""Makes the rows of the tables from observations. `fer_stream.analysis.columns` says what their columns mean.

A face has a row for each frame from the first in which it was found to the last. The tracker makes it a track only
after it was seen for a while (`tracker.confirm`), and gives it up only after it was not seen for a while. Therefore the
rows of a frame are held back until the outcome of each of its faces is known:

- The rows of a face that became a track get its number; those from before are marked as provisional.
- A face that was missed in some frames, and found again later, also has rows for these frames, marked as not found.
- A face that was given up before it became a track was most likely a false detection: it has no rows.
- If the recording ended, or the picture's size changed, before a face became a track, the face has provisional rows
  without a number: it may be a real one. So a film of one frame has rows for its faces.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.imaging.pose import head_pose
from fer_stream.types import EventType, ExpressionData, FaceData, LineData, ZoneData

if TYPE_CHECKING:
    from fer_stream.analysis.columns import Layout
    from fer_stream.analysis.observe import Observation
    from fer_stream.types import Box, Estimate, Event, Face

Row = list[bool | int | float | str | None]

PLACES = 4
"""Decimal places of probabilities, confidence and quality. Pixels and degrees have one, seconds six."""

TRACK = 2
"""Index of the column ``track`` in the table of faces."""

FACES = 4
"""Index of the column ``faces`` in the table of frames."""


class FaceRow(NamedTuple):
    """A face in a frame: its row in the table of faces, and the detected face."""

    row: Row
    face: Face
    found: bool


class FrameRows(NamedTuple):
    """A frame's row in the table of frames, and the rows of its faces, in the order of their tracks."""

    row: Row
    faces: list[FaceRow]

    @property
    def found(self) -> int:
        """The number of faces that were found in the frame."""
        return sum(face.found for face in self.faces)


@dataclass(slots=True)
class _Waiting:
    """A frame's row without the number of its faces, its decided face rows, and the number of its undecided ones.

    It does not hold the frame, whose pixels would stay in memory.
    """

    row: Row
    processed: bool
    faces: list[FaceRow] = field(default_factory=list)
    undecided: int = 0


@dataclass(slots=True)
class _Course:
    """A face that the tracker follows: its latest detection, and its undecided rows."""

    face: Face
    estimate: Estimate | None
    confirmed: bool = False
    rows: list[tuple[_Waiting, FaceRow]] = field(default_factory=list)

    def settle(self, track: int | None) -> None:
        """Give the undecided rows to a track, or to a face that never became one."""
        for waiting, face in self.rows:
            face.row[TRACK] = track
            waiting.faces.append(face)
        self.drop()

    def drop(self) -> None:
        """Leave out the undecided rows."""
        for waiting, _ in self.rows:
            waiting.undecided -= 1
        self.rows.clear()

    def end(self) -> None:
        """Decide about the rows at the end of the recording, or of a picture size."""
        while self.rows and (self.confirmed or not self.rows[-1][1].found):
            self.rows.pop()[0].undecided -= 1
        self.settle(None)


class Rows:
    """Makes the rows of a recording's tables of frames and faces.

    Args:
        start: the capture time that counts as 0, in nanoseconds.
        layout: the columns.
    """

    def __init__(self, start: int, layout: Layout) -> None:
        self._start, self._layout = start, layout
        self._waiting: deque[_Waiting] = deque()
        self._courses: dict[int, _Course] = {}

    def of(self, observation: Observation) -> list[FrameRows]:
        """Take the next observation, and return the frames whose rows are now complete, in order."""
        frame = observation.frame
        if frame is None or any(event.type is EventType.CAMERA_RESET for event, _ in observation.events):
            for course in self._courses.values():
                course.end()
            self._courses.clear()
        if frame is not None:
            processed = observation.processed
            row: Row = [frame.number, self._seconds(frame.time), *frame.size, None, processed, observation.searched]
            self._waiting.append(_Waiting(row, processed))
            if processed:  # otherwise it has no fates, which does not mean that the faces were given up
                self._take(self._waiting[-1], observation)
        ready = []
        while self._waiting and not self._waiting[0].undecided:
            ready.append(_complete(self._waiting.popleft()))
        return ready

    def _take(self, waiting: _Waiting, observation: Observation) -> None:
        fates = observation.fates
        for key in [key for key in self._courses if key not in fates]:
            self._courses.pop(key).drop()
        tracks = {track.id: track.face for track in observation.tracks}
        for key, track in fates.items():
            face = tracks.get(track) or observation.candidates.get(key)
            course = self._courses.get(key)
            if face is not None:
                if course is None:
                    course = self._courses[key] = _Course(face, None)
                course.face, course.estimate = face, observation.estimates.get(track)
                course.confirmed = bool(track)
            elif course is None:
                continue
            row = self._row(waiting.row[:2], course, found=face is not None)
            course.rows.append((waiting, row))
            waiting.undecided += 1
            if face is not None and track:
                course.settle(track)

    def _row(self, when: Row, course: _Course, *, found: bool) -> FaceRow:
        face, estimate, layout = course.face, course.estimate, self._layout
        scored = found and face.probabilities is not None
        smoothed = estimate.probabilities.as_dict() if estimate else {}
        own = face.probabilities.as_dict() if face.probabilities and found else {}
        levels = estimate.measures.as_dict() if estimate and estimate.measures else {}
        measured = face.measures.as_dict() if face.measures and found else {}
        row: Row = [
            *when,
            None,
            *box(face.box),
            round(face.confidence, PLACES) if found else None,
            found,
            not course.confirmed,
            *(pose(face) if found else (None, None, None)),
            estimate.label if estimate else None,
            *(_rounded(smoothed.get(label)) for label in layout.labels),
            scored,
            round(face.quality, PLACES) if scored else None,
            *(_rounded(own.get(label)) for label in layout.model_labels),
            *(_rounded(levels.get(measure)) for measure in layout.measures),
            *(_rounded(measured.get(measure)) for measure in layout.measures),
        ]
        return FaceRow(row, face, found)

    def _seconds(self, time: int) -> float:
        return round((time - self._start) / 1e9, 6)

    def event(self, event: Event) -> Row:
        """Return the row of an event in the table of events."""
        data = event.data
        stay = data if isinstance(data, FaceData | ExpressionData | ZoneData) else None
        crossing = data if isinstance(data, LineData) else None
        expression = data if isinstance(data, ExpressionData) else None
        face = stay or crossing
        end = stay.end_time if stay else None
        levels = (data.measures if isinstance(data, FaceData | ExpressionData) else None) or {}
        own = expression.probabilities if expression else {}
        return [
            event.sequence,
            event.type.value,
            event.frame,
            self._seconds(event.time),
            event.track or None,
            expression.label if expression else None,
            expression.previous if expression else None,
            self._seconds(stay.start_time) if stay else None,
            self._seconds(end) if end is not None else None,
            stay.duration_ms / 1000 if stay else None,
            round(expression.probability.mean, PLACES) if expression else None,
            round(expression.probability.peak, PLACES) if expression else None,
            *(box(face.box) if face else (None,) * 4),
            round(face.confidence, PLACES) if face else None,
            getattr(data, "reason", None),
            data.zone if isinstance(data, ZoneData) else None,
            crossing.line if crossing else None,
            crossing.direction if crossing else None,
            *(_rounded(own.get(label)) for label in self._layout.labels),
            *(
                _rounded(getattr(levels[measure], what) if measure in levels else None)
                for what in ("mean", "lowest", "highest")
                for measure in self._layout.measures
            ),
        ]

    def openface(self, one: FaceRow) -> Row:
        """Return the row of a face in the OpenFace table."""
        row, layout = one.row, self._layout
        cell = dict(zip(layout.faces, row, strict=True))
        angles = [cell[name] for name in ("approx_pitch", "approx_yaw", "approx_roll")]
        points = one.face.landmarks if one.found and len(one.face.landmarks) == 5 else ((None, None),) * 5
        left, right, *rest = [tuple(None if side is None else round(side, 1) for side in point) for point in points]
        return [
            cell["frame"],
            cell["track"],
            cell["time"],
            cell["detection"],
            int(one.found),
            *(round(math.radians(angle), PLACES) if isinstance(angle, float) else None for angle in angles),
            *(x for x, _ in rest),
            *(y for _, y in rest),
            *left,
            *right,
            cell["label"],
            *(cell[name] for name in (*layout.labels, *layout.measures)),
        ]


def _complete(waiting: _Waiting) -> FrameRows:
    waiting.faces.sort(key=lambda face: face.row[TRACK] or math.inf)
    if waiting.processed:
        waiting.row[FACES] = sum(face.found for face in waiting.faces)
    return FrameRows(waiting.row, waiting.faces)


def box(found: Box) -> list[float]:
    """Return the left and upper edge, the width and the height of a box, in pixels."""
    x1, y1, x2, y2 = found
    return [round(side, 1) for side in (x1, y1, x2 - x1, y2 - y1)]


def pose(face: Face) -> tuple[float | None, float | None, float | None]:
    """Return a face's roll, yaw and pitch in degrees; nothing without landmarks."""
    found = head_pose(face.landmarks)
    if found is None:
        return None, None, None
    return round(found.roll, 1), round(found.yaw, 1), round(found.pitch, 1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, PLACES)
