"""Links faces to short-lived tracks by motion and overlap, never by appearance: a track is not an identity.

Each track predicts its box with a constant-velocity alpha-beta filter (Kalata 1984) over centre and size, and takes the
face that overlaps the prediction most. A face without enough overlap may continue a track whose centre is near,
relative to the face's size. Time is capture time, so uneven frame intervals and gaps need no special treatment.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fer_stream.imaging.geometry import area, overlap
from fer_stream.types import Box, Face, Nanoseconds, Track

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.settings.tree import TrackerSettings

ALPHA, BETA = 0.85, 0.3
"""The filter's gains on position and velocity. Boxes are accurate to a few percent, so the gains are high."""

FAR = 0.6
"""Largest distance of centres, in face sizes, at which a face without enough overlap may continue a track."""

ALIKE = 1.6
"""Largest ratio of the sizes of such a face and its track."""

MOST_MOVED, MOST_GROWN = 3.0, math.log(1.5)
"""Limits of a prediction: the largest movement, in face sizes, and the largest growth, as a logarithm."""

LEAST_FRAMES = 3
"""Minimum time, in frame intervals, before an unseen face is given up. With one frame a second, a shorter
``tracker.patience`` would give up every face before its next frame."""

BURST = 0.02
"""Seconds. Frames closer together than this are treated as this far apart: a speed over a shorter time is mostly
noise."""

GAPS = 8
"""How many recent frame intervals are kept. The second-longest estimates the frame interval: it ignores a single stall.
If the frames of several workers arrive together, it is the pause between these groups."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """The result of one observation: tracks seen now, the newly confirmed ones among them, and tracks given up.

    ``candidates`` are the faces seen now that are not confirmed yet, by the keys of their courses.
    """

    seen: tuple[Track, ...]
    entered: tuple[Track, ...]
    left: tuple[Track, ...]
    candidates: dict[int, Face]


@dataclass(frozen=True, slots=True)
class Course:
    """Filtered position and velocity of a face, confirmed or not; ``key`` is unique within the epoch.

    ``position`` is centre x, centre y (pixels), log width and log height; ``velocity`` is their change per second.
    ``seen`` and ``scored`` are the capture times at which it was last seen and last scored; ``track`` is its track's
    id, 0 until it is confirmed.
    """

    key: int
    track: int
    position: tuple[float, ...]
    velocity: tuple[float, ...]
    seen: int
    scored: int

    def at(self, time: int) -> Box:
        """Return the predicted box at a capture time."""
        dt = (time - self.seen) / 1e9
        x, y, width, height = (v * dt for v in self.velocity)
        # Limit the step: a velocity from two close frames is inaccurate, and so is a prediction over a long time.
        far = MOST_MOVED * math.exp(min(max(self.position[2:]), 12.0))
        steps = (_within(x, far), _within(y, far), _within(width, MOST_GROWN), _within(height, MOST_GROWN))
        return _box([p + step for p, step in zip(self.position, steps, strict=True)])


class _State:
    """The filter of one track: centre x, centre y, log width, log height, and their velocities per second."""

    __slots__ = ("confirmed", "key", "position", "scored", "track", "velocity")

    def __init__(self, key: int, track: Track) -> None:
        self.key = key
        self.track = track
        self.scored = track.last_seen if track.face.probabilities else 0
        self.confirmed = False
        self.position = _measure(track.face.box)
        self.velocity = [0.0, 0.0, 0.0, 0.0]

    def predict(self, time: int) -> list[float]:
        dt = (time - self.track.last_seen) / 1e9
        return [p + v * dt for p, v in zip(self.position, self.velocity, strict=True)]

    def update(self, time: Nanoseconds, face: Face) -> None:
        dt = (time - self.track.last_seen) / 1e9
        expected = self.predict(time)
        residual = [m - e for m, e in zip(_measure(face.box), expected, strict=True)]
        self.position = [e + ALPHA * r for e, r in zip(expected, residual, strict=True)]
        if dt > 0:
            # Two frames in a burst would turn the detector's small errors into large velocities.
            self.velocity = [v + BETA * r / max(dt, BURST) for v, r in zip(self.velocity, residual, strict=True)]
        self.track = Track(self.track.id, face, self.track.first_seen, time)
        if face.probabilities:
            self.scored = time

    def course(self) -> Course:
        return Course(
            self.key, self.track.id, tuple(self.position), tuple(self.velocity), self.track.last_seen, self.scored
        )


def _within(value: float, most: float) -> float:
    return min(max(value, -most), most)


def _measure(box: Box) -> list[float]:
    width, height = max(box.x2 - box.x1, 1.0), max(box.y2 - box.y1, 1.0)
    return [(box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2, math.log(width), math.log(height)]


def _box(position: Sequence[float]) -> Box:
    x, y, width, height = position
    half_width, half_height = math.exp(min(width, 12.0)) / 2, math.exp(min(height, 12.0)) / 2
    return Box(x - half_width, y - half_height, x + half_width, y + half_height)


class Tracker:
    """Follows the faces of one camera. Deterministic: the same observations give the same tracks."""

    def __init__(self, settings: TrackerSettings) -> None:
        self._settings = settings
        self._confirm = round(settings.confirm * 1e9)
        self._patience = round(settings.patience * 1e9)
        self._states: list[_State] = []
        self._next = 1
        self._begun = 0
        self._time: int | None = None
        self._gaps: deque[int] = deque(maxlen=GAPS)

    @property
    def courses(self) -> tuple[Course, ...]:
        """Positions and velocities of all faces that are still followed, confirmed or not."""
        return tuple(state.course() for state in self._states)

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The confirmed tracks that are still followed."""
        return tuple(state.track for state in self._states if state.confirmed)

    def update(self, time: Nanoseconds, faces: Sequence[Face]) -> Tracking:
        """Take the faces of one frame; ``time`` must not go back.

        A track is confirmed once it was seen at least twice, at least ``confirm`` seconds apart. It is given up when it
        was not seen for ``patience`` seconds or `LEAST_FRAMES` frame intervals, whichever is longer (half of that while
        it is not confirmed).
        """
        if self._time is not None:
            self._gaps.append(time - self._time)
        self._time = time
        left = self.advance(time)
        matched = self._match(time, faces)
        seen: list[Track] = []
        entered: list[Track] = []
        candidates: dict[int, Face] = {}
        for index, face in enumerate(faces):
            state = matched.get(index)
            if state is None:
                self._begun += 1
                state = _State(self._begun, Track(0, face, time, time))
                self._states.append(state)
            else:
                state.update(time, face)
                if not state.confirmed and time - state.track.first_seen >= self._confirm:
                    state.confirmed = True
                    state.track = replace(state.track, id=self._next)
                    self._next += 1
                    entered.append(state.track)
            if state.confirmed:
                seen.append(state.track)
            else:
                candidates[state.key] = face
        seen.sort(key=lambda track: track.id)
        return Tracking(tuple(seen), tuple(entered), left, candidates)

    def advance(self, time: Nanoseconds) -> tuple[Track, ...]:
        """Advance the time without an observation, and return the tracks that are given up."""
        gap = sorted(self._gaps)[-2] if len(self._gaps) > 1 else 0
        patience = max(self._patience, LEAST_FRAMES * gap)
        kept: list[_State] = []
        left: list[Track] = []
        for state in self._states:
            unseen = time - state.track.last_seen
            if unseen <= (patience if state.confirmed else patience // 2):
                kept.append(state)
            elif state.confirmed:
                left.append(state.track)
        self._states = kept
        return tuple(left)

    def forget(self) -> None:
        """Drop all tracks and the measured frame intervals; ids are not used again."""
        self._states = []
        self._time = None
        self._gaps.clear()

    def _match(self, time: int, faces: Sequence[Face]) -> dict[int, _State]:
        """Return which face (by index) continues which track: best pairs first, overlap before distance."""
        pairs: list[tuple[float, int, int]] = []
        reaches = [_reach(face.box) for face in faces]
        for s, state in enumerate(self._states):
            last, expected = state.track.face.box, _box(state.predict(time))
            left, top = min(last.x1, expected.x1), min(last.y1, expected.y1)
            right, bottom = max(last.x2, expected.x2), max(last.y2, expected.y2)
            for f, (x1, y1, x2, y2) in enumerate(reaches):
                if x1 > right or x2 < left or y1 > bottom or y2 < top:  # skips most pairs if there are many faces
                    continue
                box = faces[f].box
                common = overlap(expected, box)
                if common >= self._settings.overlap:
                    pairs.append((-common, s, f))
                elif (distance := _distance(last, expected, box)) < FAR:
                    pairs.append((distance, s, f))
        taken: set[int] = set()
        matched: dict[int, _State] = {}
        for _, s, f in sorted(pairs):
            if s not in taken and f not in matched:
                taken.add(s)
                matched[f] = self._states[s]
        return matched


def _reach(box: Box) -> Box:
    """Return the region that a track's box must touch for this face to continue it: the box, enlarged by `FAR`."""
    far = FAR * _size(box)
    return Box(box.x1 - far, box.y1 - far, box.x2 + far, box.y2 + far)


def _size(box: Box) -> float:
    return math.sqrt(max(area(box), 1e-6))


def _distance(last: Box, expected: Box, box: Box) -> float:
    """Return the distance of a face from its track's last or predicted centre, in face sizes.

    It is infinite if the sizes differ by more than `ALIKE`.
    """
    size, before = _size(box), _size(last)
    if max(size / before, before / size) > ALIKE:
        return math.inf
    x, y = box.x1 + box.x2, box.y1 + box.y2
    from_last = math.hypot(x - last.x1 - last.x2, y - last.y1 - last.y2)
    from_expected = math.hypot(x - expected.x1 - expected.x2, y - expected.y1 - expected.y2)
    return min(from_last, from_expected) / 2 / size
