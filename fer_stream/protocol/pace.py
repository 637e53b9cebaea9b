"""Slow links: when to warn about one, and how small frames must be to fit it. No sockets, no clocks."""

from __future__ import annotations

SLOW = 1.0
"""Seconds that a frame's transfer may take before it is worth a warning."""

REPEAT = 600.0
"""Least seconds between two such warnings."""

LEVELS = ((100, 1.0), (75, 1.0), (50, 1.0), (30, 1.0), (30, 0.7), (30, 0.5), (30, 0.35), (30, 0.25))
"""Highest JPEG quality and share of each side, from large to small; each gives at least half the
bytes of the one before. Size is reduced last, because a change of size resets the camera (``camera.reset``)."""

MARGIN = 2.5
"""Larger frames are tried only when frames take less than the limit divided by this, for they may take twice as long. A
frame that takes longer than the limit times this lowers the level by two steps."""

SLOW_FRAMES = 3
"""Frames in a row that must take too long before smaller ones are sent: one may be late by chance."""

QUICK_FRAMES = 20
"""Frames in a row that must be quick before larger ones are tried; the number doubles each time those were too slow."""


class Pace:
    """Decides when to warn that frames take long."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of the frame that was sent last."""
        self._warned = -REPEAT

    def slow(self, seconds: float, now: float) -> str:
        """Take how many seconds that frame took; return a text for the log if a warning is due, else an empty text."""
        if seconds < SLOW or now < self._warned + REPEAT:
            return ""
        self._warned = now
        amount = f"{self.size / 1e6:.1f} MB" if self.size >= 1e6 else f"{self.size / 1e3:.0f} kB"
        return f"a frame of {amount} takes {seconds:.1f} s ({8 * self.size / seconds / 1e6:.2g} Mbit/s)"


class Fit:
    """Chooses one of `LEVELS` so that a frame takes no longer than ``most`` seconds; ``None``: always the first."""

    def __init__(self, most: float | None) -> None:
        self._most = most
        self._level = 0
        self._slow = self._quick = 0
        self._patience = QUICK_FRAMES
        self._tried = False  # larger ones, since smaller ones had to be sent

    @property
    def quality(self) -> int:
        """The highest JPEG quality."""
        return LEVELS[self._level][0]

    @property
    def scale(self) -> float:
        """What to multiply each side with."""
        return LEVELS[self._level][1]

    @property
    def full(self) -> bool:
        """Whether nothing has to be made smaller."""
        return self._level == 0

    @property
    def ends(self) -> bool:
        """Whether frames cannot be made smaller any more, or must not be."""
        return self._most is None or self._level == len(LEVELS) - 1

    def took(self, seconds: float) -> bool:
        """Take how long a frame took; return whether the level has changed."""
        if self._most is None:
            return False
        before = self._level
        self._slow = self._slow + 1 if seconds > self._most else 0
        self._quick = self._quick + 1 if seconds * MARGIN < self._most else 0
        if seconds > MARGIN * self._most:
            self._shrink(2)
        elif self._slow == SLOW_FRAMES:
            self._shrink(1)
        elif self._quick >= self._patience and self._level > 0:
            self._level, self._quick, self._tried = self._level - 1, 0, True
        return self._level != before

    def _shrink(self, steps: int) -> None:
        self._level = min(self._level + steps, len(LEVELS) - 1)
        self._slow = 0
        if self._tried:
            self._patience, self._tried = 2 * self._patience, False
