"""What frames cost on a link: a sentence where it is slow, and pictures that follow it. No sockets, no clocks."""

from __future__ import annotations

SLOW = 1.0
"""Seconds from which a frame's way is worth a sentence."""

REPEAT = 600.0
"""Least seconds from one such sentence to the next."""

LEVELS = ((100, 1.0), (75, 1.0), (60, 1.0), (45, 1.0), (30, 1.0), (30, 0.5), (30, 0.25))
"""Highest JPEG quality and share of each side, from large to small: a level has a quarter of the last one's bytes at
least. Size comes last, for a camera whose pictures change their size begins anew (``camera.reset``)."""

MARGIN = 4
"""A frame must take this many times less than it may before larger ones are tried: those must not take too long."""

PATIENCE = 10
"""Frames in a row that must do so."""


class Pace:
    """Says that frames take long, now and then."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of the frame that was sent last."""
        self._told = -REPEAT

    def slow(self, seconds: float, now: float) -> str:
        """Take how many seconds that frame took; return it in words where it is time to tell it, else an empty text."""
        if seconds < SLOW or now < self._told + REPEAT:
            return ""
        self._told = now
        amount = f"{self.size / 1e6:.1f} MB" if self.size >= 1e6 else f"{self.size / 1e3:.0f} kB"
        return f"a frame of {amount} takes {seconds:.1f} s ({8 * self.size / seconds / 1e6:.2g} Mbit/s)"


class Fit:
    """Chooses one of `LEVELS` so that a frame takes no longer than ``seconds``; with ``None`` it stays at the first."""

    def __init__(self, seconds: float | None) -> None:
        self._most = seconds
        self._quick = 0
        self._level = 0

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

    def took(self, seconds: float) -> bool:
        """Take how long a frame took; return whether the level is another one now."""
        before = self._level
        if self._most is None:
            return False
        if seconds > self._most:
            self._quick = 0
            self._level = min(self._level + (2 if seconds > MARGIN * self._most else 1), len(LEVELS) - 1)
        elif seconds * MARGIN < self._most:
            self._quick += 1
            if self._quick == PATIENCE:
                self._quick, self._level = 0, max(self._level - 1, 0)
        else:
            self._quick = 0
        return self._level != before
