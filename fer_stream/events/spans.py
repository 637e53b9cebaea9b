"""Spans of time: their union and intersection, and the parts into which statistics divide a period."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Number = TypeVar("Number", int, float)

Span = tuple[int, int]
"""Begin (inclusive) and end (exclusive) in nanoseconds."""

MOST_ROWS = 100_000
"""Most parts of a period, and most rows of one answer."""


class Trial(NamedTuple):
    """A named span of time, in nanoseconds since the Unix epoch; ``end`` is exclusive."""

    name: str
    start: int
    end: int


class Parts:
    """Parts of a period, or trials. Trials may overlap, and have gaps between them."""

    def __init__(self, trials: Iterable[Trial]) -> None:
        """Take trials, in any order.

        Raises:
            ConfigError: one is empty.
        """
        self.trials = sorted(trials, key=lambda trial: (trial.start, trial.end, trial.name))
        if empty := [trial for trial in self.trials if trial.end <= trial.start]:
            what = f"the trial {empty[0].name!r}" if empty[0].name else "the period"
            raise ConfigError(f"{what} is empty: its end must be after its beginning")
        self._starts = [trial.start for trial in self.trials]
        self._latest = list(accumulate((trial.end for trial in self.trials), max))

    @classmethod
    def of(cls, start: int, end: int, every: int | None = None) -> Parts:
        """Return the parts of a period, each of ``every`` nanoseconds (the last one may be shorter); ``None``: one.

        Raises:
            ConfigError: the period is empty, or it has more than `MOST_ROWS` parts.
        """
        every = end - start if every is None else every
        if end <= start or every <= 0:
            raise ConfigError("the period is empty: its end must be after its beginning")
        if (count := -(-(end - start) // every)) > MOST_ROWS:
            raise ConfigError(
                f"these are {count} parts, and at most {MOST_ROWS} are possible: choose a shorter period or longer "
                "parts"
            )
        return cls(Trial("", begin, min(begin + every, end)) for begin in range(start, end, every))

    def __len__(self) -> int:
        return len(self.trials)

    def pieces(self, spans: Iterable[Span]) -> Iterator[tuple[int, int, int]]:
        """Yield the number of a part, and begin and end of what lies in it, for each span and part that it reaches.

        A span without duration lies in the parts that contain its moment.
        """
        for begin, end in spans:
            upto = bisect_left(self._starts, end) if end > begin else bisect_right(self._starts, begin)
            for number in range(bisect_right(self._latest, begin), upto):
                _, start, stop = self.trials[number]
                if stop > begin:
                    yield number, max(begin, start), min(end, stop)

    def spread(self, spans: Iterable[Span]) -> list[int]:
        """Return how much of the spans is in each part."""
        found = [0] * len(self.trials)
        for number, begin, end in self.pieces(spans):
            found[number] += end - begin
        return found


def union(spans: Iterable[tuple[Number, Number]]) -> list[tuple[Number, Number]]:
    """Return the same time in spans that do not overlap, in order."""
    found: list[tuple[Number, Number]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def common(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """Return the time that is in spans of both kinds; those of one kind do not overlap."""
    found = []
    for begin, end in spans:
        for start, stop in others:
            if max(begin, start) < min(end, stop):
                found.append((max(begin, start), min(end, stop)))
    return found
