"""The times of a recording's pictures, from the time stamps in its container."""

from __future__ import annotations

SECOND = 1_000_000_000

LEAP = 2 * SECOND
"""Nanoseconds. A larger step between two pictures is checked against the next time stamp."""

WRAP = (1 << 33) * SECOND // 90_000
"""Nanoseconds after which the time stamps of MPEG-TS and MPEG-PS begin again at 0."""


class Stamps:
    """Turns time stamps into times in nanoseconds since the container's start, which always increase.

    A time stamp that contradicts both neighbours is replaced, and counted in ``replaced``. If the time stamps jump back
    and go on from there, as where files were joined, time continues from the last picture.

    Args:
        period: nanoseconds between two pictures, used where a time stamp is missing.
        rate: pictures/s that replace the container's time stamps.
        end: the container's duration in nanoseconds, if known.
        wraps: whether time stamps begin again at 0 after `WRAP`. FFmpeg adds `WRAP` to a time stamp that is before the
            first one, so a step of more than half of `WRAP` is in fact a step back.
    """

    def __init__(self, period: int, rate: float | None = None, end: int | None = None, *, wraps: bool = False) -> None:
        self.replaced = 0
        self._period = round(SECOND / rate) if rate else period
        self._rate = rate
        self._end = end
        self._max_step = WRAP // 2 if wraps else None
        self._count = 0
        self._last: int | None = None
        self._shift = 0
        self._base = 0

    def next(self, stamp: int | None, following: int | None) -> int:
        """Return a picture's time.

        Args:
            stamp: its time stamp in nanoseconds since the container's start; ``None`` if it has none.
            following: the next picture's time stamp; ``None`` if there is none.
        """
        count, self._count = self._count, self._count + 1
        if self._rate:
            return self._increase(self._base + round(count * SECOND / self._rate))
        if stamp is None:
            return self._increase(self._expected())
        time = stamp + self._shift
        if self._last is None:
            return self._increase(max(0, self._first(stamp, following)))
        after = None if following is None else following + self._shift
        step = time - self._last
        if 0 < step <= LEAP:
            return self._increase(time)
        if self._max_step and step > self._max_step:
            step -= WRAP
        if after is None:  # the last picture: compare with the duration
            if step > 0 and (self._end is None or stamp <= self._end + LEAP):
                return self._increase(time)
            self.replaced += step > 0
            return self._increase(self._expected())
        if self._last < after <= self._last + LEAP and (step <= 0 or after < time):
            self.replaced += 1  # the neighbours agree with each other
            return self._increase((self._last + after) // 2)
        if step <= 0:
            self._shift += self._expected() - time
            return self._increase(self._expected())
        return self._increase(time)

    @property
    def last(self) -> int:
        """The last picture's time."""
        return self._last or 0

    def rewind(self) -> None:
        """Start again for a repetition: its first picture comes one period after the last one."""
        self._base = self._expected() if self._rate or self._last is not None else 0
        self._shift = self._base
        self._count = 0

    def _first(self, stamp: int, following: int | None) -> int:
        if following is None or following >= stamp:
            return stamp
        self.replaced += 1  # only the first time stamp is wrong
        return following - self._period

    def _expected(self) -> int:
        return 0 if self._last is None else self._last + self._period

    def _increase(self, time: int) -> int:
        self._last = time if self._last is None else max(time, self._last + 1)
        return self._last
