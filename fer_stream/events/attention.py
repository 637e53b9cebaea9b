"""Chooses what a worker searches and scores in a camera's next frame, from the results of earlier frames.

Faces persist, and expressions change more slowly than frames. Therefore the whole picture is searched only once in a
while, and changed regions more often. In between, workers check known faces at their predicted positions. A worker
keeps no state: what it needs to know about earlier frames is in the `Hints`, and its result contains a `Searched`.

Under the policy ``wait`` the hints for a frame depend on exactly the results of the frames up to the one ``depth``
before it, whatever the number of workers: the same file gives the same events. Otherwise they depend on all results so
far.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fer_stream.types import Expected, Hints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from fer_stream.events.tracker import Course
    from fer_stream.settings.kinds import Policy
    from fer_stream.settings.tree import SearchSettings
    from fer_stream.types import Searched

HORIZON = 300_000_000
"""Nanoseconds for which workers check the predicted position of a face that was not found."""

STALE = 1_000_000_000
"""Nanoseconds without a result after which known positions are too old, and the whole picture is searched."""

PRESSED_SCAN, PRESSED_MOTION = 10, 2
"""Minimum number of frames between two whole searches, and between two searches of changed regions, while frames are
superseded. A search costs several times as much as following faces, so a busy system searches less often.
"""

SOON = 4
"""Divisor of ``search.look_interval`` for a face whose last score would change its label. The next score comes sooner
and shows whether the expression changed or the score was wrong. Faces that do not change cost no more
(`training.smoothing`).
"""


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """The state after the result of a frame: predicted positions, unsettled tracks, and the searched picture."""

    frame: int
    time: int
    courses: tuple[Course, ...]
    unsettled: frozenset[int]
    seen: NDArray[np.uint8] | None


class _Search(NamedTuple):
    """When a search was ordered: the capture time of its frame, and how many frames had asked for hints by then."""

    time: int
    asked: int


class Attention:
    """The hints of one camera, during one epoch."""

    def __init__(self, settings: SearchSettings, policy: Policy, depth: int) -> None:
        self._scan, self._motion, self._look = (
            round(seconds * 1e9)
            for seconds in (settings.scan_interval, settings.motion_interval, settings.look_interval)
        )
        self._lag = depth if policy == "wait" else 0
        self._known: deque[_Known] = deque([_Known(0, 0, (), frozenset(), None)])
        self._given: dict[int, Hints] = {}
        self._scanned: _Search | None = None
        self._searched: _Search | None = None
        self._asked = 0
        self._last = 0
        self._looked: dict[int, int] = {}
        self._size: tuple[int, int] | None = None
        self._since = 0  # the first frame of this size; results of frames of other sizes are not used

    @property
    def following(self) -> bool:
        """Whether frames are searched in part; false until the first result, and if every frame is searched whole."""
        return self._known[-1].seen is not None

    def hints(self, frame: int, time: int, size: tuple[int, int]) -> Hints | None:
        """Return what to look at in a frame; ``None`` means the whole frame.

        Call this in order of capture. A second call for the same frame returns the same hints.

        Args:
            frame: the frame's number.
            time: its capture time, in nanoseconds.
            size: its width and height, in pixels.
        """
        if not self._scan:
            return None
        if frame not in self._given:
            if size != self._size:
                self._size, self._since = size, frame
            pressed = not self._lag and frame > self._last + 1
            self._asked, self._last = self._asked + 1, frame
            self._given[frame] = self._decide(self._before(frame), time, pressed)
        return self._given[frame]

    def take(
        self,
        frame: int,
        time: int,
        courses: Sequence[Course],
        searched: Searched | None,
        unsettled: Iterable[int] = (),
    ) -> None:
        """Take the result of a frame; call this in order of the frames.

        Args:
            frame: the frame's number.
            time: its capture time, in nanoseconds.
            courses: position and velocity of each face after this frame.
            searched: what the worker searched in it; ``None``: nothing, or the worker does not report it.
            unsettled: ids of the tracks to score again soon (see `SOON`).
        """
        self._given.pop(frame, None)
        seen = self._known[-1].seen
        if searched is not None:
            seen = searched.thumbnail if seen is None else np.where(searched.cells, searched.thumbnail, seen)
        self._known.append(_Known(frame, time, tuple(courses), frozenset(unsettled), seen))
        self._before(frame + 1)

    def miss(self, frame: int) -> None:
        """Note that a frame gets no result. Unless the policy is ``wait``, its search is due again."""
        hints = self._given.pop(frame, None)
        if hints is None or self._lag:
            return
        if hints.whole:
            self._scanned = None
        elif hints.seen is not None:
            self._searched = None

    def _decide(self, known: _Known, time: int, pressed: bool) -> Hints:
        search = _Search(time, self._asked)
        if known.frame < self._since:
            self._scanned = self._searched = search
            return Hints(whole=True)
        expected, looked = [], {}
        for course in known.courses:
            last = max(self._looked.get(course.key, 0), course.scored)
            due = time - last >= (self._look // SOON if course.track in known.unsettled else self._look)
            looked[course.key] = time if due else last
            if known.time - course.seen <= HORIZON:
                expected.append(Expected(course.at(time), due))
        self._looked = looked
        stale = time - known.time > STALE
        if known.seen is None or stale or _over(search, self._scanned, self._scan, pressed * PRESSED_SCAN):
            self._scanned = self._searched = search
            return Hints(tuple(expected), whole=True)
        if _over(search, self._searched, self._motion, pressed * PRESSED_MOTION):
            self._searched = search
            return Hints(tuple(expected), seen=known.seen)
        return Hints(tuple(expected))

    def _before(self, frame: int) -> _Known:
        """Return the state that the hints of a frame are based on, and drop older ones."""
        while len(self._known) > 1 and self._known[1].frame <= frame - max(self._lag, 1):
            self._known.popleft()
        return self._known[0]


def _over(now: _Search, last: _Search | None, interval: int, frames: int) -> bool:
    if last is None or now.time < last.time:
        return True
    return now.time - last.time >= interval and now.asked - last.asked >= frames
