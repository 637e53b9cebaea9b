"""How often tests with a short form and a long form repeat what they do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """How often a fault is tried: ``share`` of the full number, or the short number if ``share`` is 0."""

    share: float

    def of(self, short: int, full: int) -> int:
        return max(short, round(self.share * full)) if self.share else short
