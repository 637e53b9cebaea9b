"""What a worker is to look at in a camera's next frame, given what was seen in the ones before.

Faces persist, and expressions change slower than frames: so a whole picture is searched once in a while, what changed
in it more often, and in between the faces that are known are checked where they should be. A worker keeps nothing, so
all that it needs to know of earlier frames travels to it as `Hints`, and comes back with its answer as `Searched`.

Under ``wait`` the hints for a frame follow from the answers to all frames up to the one ``depth`` before it, no sooner
and no later, however many workers there are: the same file gives the same events. Live, they follow from all there is.
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
"""Nanoseconds for which a face that was not found is looked for where it should be."""

STALE = 1_000_000_000
"""Nanoseconds without an answer after which known positions are too old, and the whole picture is searched."""

PRESSED_SCAN, PRESSED_MOTION = 10, 2
"""Least number of frames from one whole search to the next, and from one search of what changed to the next, while
frames are superseded. A search costs several times as much as following faces, so a busy system searches less often.
"""

SOON = 4
"""How many times as often a face is looked at whose last look would change its label. This shows sooner whether the
expression changed or the look was a mistake; faces that do not change cost no more (`training.smoothing`).
"""


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """All that is known once a frame was answered."""

    seq: int
    time: int
    courses: tuple[Course, ...]
    unsettled: frozenset[int]
    seen: NDArray[np.uint8] | None


class _Search(NamedTuple):
    """When a search was ordered, and in which of the frames that were asked for."""

    time: int
    asked: int


class Attention:
    """Of one camera, over one epoch."""

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
        self._since = 0  # the first frame of this size: what is known of others is of no use

    @property
    def following(self) -> bool:
        """Whether frames are searched in part: not before the first search is answered, nor where all are searched."""
        return self._known[-1].seen is not None

    def hints(self, seq: int, time: int, size: tuple[int, int]) -> Hints | None:
        """Return what to look at in frame ``seq`` of capture time ``time``; ``None`` means the whole frame.

        Frames are asked for in order of capture; one that is asked for again gets the same. ``size`` is its width and
        height.
        """
        if not self._scan:
            return None
        if seq not in self._given:
            if size != self._size:
                self._size, self._since = size, seq
            pressed = not self._lag and seq > self._last + 1
            self._asked, self._last = self._asked + 1, seq
            self._given[seq] = self._decide(self._before(seq), time, pressed)
        return self._given[seq]

    def take(
        self,
        seq: int,
        time: int,
        courses: Sequence[Course],
        searched: Searched | None,
        unsettled: Iterable[int] = (),
    ) -> None:
        """Take where the faces go after frame ``seq``, what was searched in it, and the tracks to look at again soon.

        Frames come in order.
        """
        self._given.pop(seq, None)
        seen = self._known[-1].seen
        if searched is not None:
            seen = searched.thumbnail if seen is None else np.where(searched.cells, searched.thumbnail, seen)
        self._known.append(_Known(seq, time, tuple(courses), frozenset(unsettled), seen))
        self._before(seq + 1)

    def miss(self, seq: int) -> None:
        """Note that frame ``seq`` will not be answered. Unless frames wait for answers, its search is due again."""
        hints = self._given.pop(seq, None)
        if hints is None or self._lag:
            return
        if hints.whole:
            self._scanned = None
        elif hints.seen is not None:
            self._searched = None

    def _decide(self, known: _Known, time: int, pressed: bool) -> Hints:
        search = _Search(time, self._asked)
        if known.seq < self._since:
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

    def _before(self, seq: int) -> _Known:
        """Return what the hints of a frame follow from, and forget what came before it."""
        while len(self._known) > 1 and self._known[1].seq <= seq - max(self._lag, 1):
            self._known.popleft()
        return self._known[0]


def _over(now: _Search, last: _Search | None, interval: int, frames: int) -> bool:
    if last is None or now.time < last.time:
        return True
    return now.time - last.time >= interval and now.asked - last.asked >= frames
