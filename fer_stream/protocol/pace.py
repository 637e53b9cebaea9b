"""Slow links: when to warn about one, and how small its frames must be. This module uses neither sockets nor clocks."""

from __future__ import annotations

SLOW = 1.0
"""Seconds of a frame's transfer from which a warning is logged."""

REPEAT = 600.0
"""Least seconds between two such warnings."""

LEVELS = ((100, 1.0), (75, 1.0), (50, 1.0), (30, 1.0), (30, 0.7), (30, 0.5), (30, 0.35), (30, 0.25))
"""Highest JPEG quality, and factor for width and height, from large to small. Frames of each level have at least half
the bytes of the level before. Width and height are reduced last, because a new size resets the camera
(``camera.reset``)."""

MARGIN = 2.5
"""Larger frames are tried only if frames take less than the limit divided by this, as larger ones may take twice as
long. After a frame that takes longer than the limit times this, frames are made smaller by two levels at once."""

SLOW_FRAMES = 3
"""Frames in a row that must take too long before smaller ones are sent: one may be late by chance."""

QUICK_FRAMES = 20
"""Frames in a row that must be quick before larger ones are tried. Each time the larger ones are too slow, the number
doubles."""


class SlowLinkWarning:
    """Decides when to warn that the frames on a link take long."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of the frame that was sent last."""
        self._warned = -REPEAT

    def slow(self, seconds: float, now: float) -> str:
        """Take the seconds that the last frame took; return a log message if a warning is due, else an empty text."""
        if seconds < SLOW or now < self._warned + REPEAT:
            return ""
        self._warned = now
        amount = f"{self.size / 1e6:.1f} MB" if self.size >= 1e6 else f"{self.size / 1e3:.0f} kB"
        return f"a frame of {amount} takes {seconds:.1f} s ({8 * self.size / seconds / 1e6:.2g} Mbit/s)"


class FrameSizeControl:
    """Chooses one of `LEVELS` so that a frame takes no longer than ``most`` seconds; ``None``: always the first."""

    def __init__(self, most: float | None) -> None:
        self._most = most
        self._level = 0
        self._slow = self._quick = 0
        self._patience = QUICK_FRAMES
        self._tried = False  # whether larger frames were tried since frames were last made smaller

    @property
    def quality(self) -> int:
        """The highest JPEG quality."""
        return LEVELS[self._level][0]

    @property
    def scale(self) -> float:
        """The factor for width and height."""
        return LEVELS[self._level][1]

    @property
    def full(self) -> bool:
        """Whether frames need not be made smaller."""
        return self._level == 0

    @property
    def ends(self) -> bool:
        """Whether frames cannot or must not be made smaller."""
        return self._most is None or self._level == len(LEVELS) - 1

    def took(self, seconds: float) -> bool:
        """Take the seconds of a frame's transfer; return whether the level has changed."""
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
