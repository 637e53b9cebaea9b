"""The times of a recording's pictures, from the time stamps in its container."""

from __future__ import annotations

SECOND = 1_000_000_000

LEAP = 2 * SECOND
"""A step between two pictures from which a stamp is compared with those beside it."""


class Stamps:
    """A recording's time in nanoseconds since its container's start. It always rises, also over repetitions.

    Feed it each stamp with the one after it (`next`). A stamp that both neighbours contradict is replaced, and counted
    in ``replaced``. Where the stamps go back and stay there (films joined end to end), time goes on from where it was.

    Args:
        period: nanoseconds between two pictures where the container does not say it.
        rate: pictures a second that replace the container's stamps.
        end: nanoseconds at which the container says it ends, if it does.
    """

    def __init__(self, period: int, rate: float | None = None, end: int | None = None) -> None:
        self.replaced = 0
        self._period = period
        self._rate = rate
        self._end = end
        self._count = 0
        self._last: int | None = None
        self._shift = 0
        self._base = 0

    def next(self, stamp: int | None, following: int | None) -> int:
        """Return a picture's time.

        Args:
            stamp: the container's, in nanoseconds since its start; ``None`` if the picture has none.
            following: the next picture's.
        """
        count, self._count = self._count, self._count + 1
        if self._rate:
            return self._rise(self._base + round(count * SECOND / self._rate))
        if stamp is None:
            return self._rise(self._expected())
        moved = stamp + self._shift
        if self._last is None:
            if following is not None and following < stamp:  # the first stamp alone is wrong
                self.replaced += 1
                moved = max(0, following - self._period)
            return self._rise(max(0, moved))
        after = None if following is None else following + self._shift
        step = moved - self._last
        if 0 < step <= LEAP:
            return self._rise(moved)
        if after is None:  # the last one: the container's length decides
            if step > 0 and (self._end is None or stamp <= self._end + LEAP):
                return self._rise(moved)
            self.replaced += step > 0
            return self._rise(self._expected())
        if self._last < after <= self._last + LEAP and (step <= 0 or after < moved):
            self.replaced += 1  # its neighbours agree with each other
            return self._rise((self._last + after) // 2)
        if step <= 0:
            self._shift += self._expected() - moved
            return self._rise(self._expected())
        return self._rise(moved)

    def rewind(self) -> None:
        """Begin again: the first picture follows one period after the last one."""
        self._base = self._expected() if self._rate or self._last is not None else 0
        self._shift = self._base
        self._count = 0

    def _expected(self) -> int:
        return 0 if self._last is None else self._last + self._period

    def _rise(self, time: int) -> int:
        self._last = time if self._last is None else max(time, self._last + 1)
        return self._last
