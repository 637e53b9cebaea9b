"""How far a sink is behind, in events and in seconds."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fer_stream.events.cursor import to_numbers

if TYPE_CHECKING:
    from fer_stream.types import Cursor

MARKS = 512
"""Most remembered moments; beyond that every second one is forgotten, which makes the seconds coarser."""


class Lag:
    """Compares a sink's cursor with those of the latest events, as they were found at several moments.

    The capture times of events cannot tell how long one has waited: those of a recording are of any year.
    """

    def __init__(self) -> None:
        self.caught_up = False
        """Whether the sink has reached what was the latest event at the first look. How long the events before that
        have waited is not known."""
        self._first: tuple[int, ...] | None = None
        self._marks: deque[tuple[float, tuple[int, ...]]] = deque()
        self._newest: tuple[int, ...] = ()

    def look(self, newest: Cursor, now: float) -> None:
        """Take the cursor of the latest event at a time, in seconds of the monotonic clock."""
        numbers = to_numbers(newest)
        self._first = self._first or numbers
        if numbers != self._newest:
            self._newest = numbers
            self._marks.append((now, numbers))
            if len(self._marks) > MARKS:
                self._marks = deque(list(self._marks)[::2])

    def behind(self, cursor: Cursor, now: float) -> tuple[int, float]:
        """Return the number of events after a sink's cursor, and for how many seconds the oldest has waited."""
        numbers = to_numbers(cursor)
        self.caught_up = self.caught_up or (self._first is not None and _missing(numbers, self._first) == 0)
        while self._marks and _missing(numbers, self._marks[0][1]) == 0:
            self._marks.popleft()
        return _missing(numbers, self._newest), now - self._marks[0][0] if self._marks else 0.0


def _missing(reached: tuple[int, ...], newest: tuple[int, ...]) -> int:
    if len(reached) == 1:  # the beginning, or a journal of one partition
        reached *= len(newest)
    return sum(max(0, there - here) for here, there in zip(reached, newest, strict=False))
