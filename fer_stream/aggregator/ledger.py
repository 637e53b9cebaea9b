"""The account of a camera's frames."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Outcome = Literal["done", "rejected", "expired", "lost_worker", "lost_link"]

REASONS = ("capture", "corrupt", "poisoned")
"""Why a frame may be rejected. The capture rejects damaged pictures and those over a limit; its log says which."""

TERMS = {"done", "expired", "lost_worker", "lost_link", *(f"rejected_{reason}" for reason in REASONS)}
"""The possible outcomes of a frame that was sent."""


@dataclass(slots=True)
class Ledger:
    """The number of a camera's frames by outcome. ``captured`` always equals the sum of the other terms."""

    captured: int = 0
    done: int = 0
    superseded: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    expired: int = 0
    lost_worker: int = 0
    lost_link: int = 0
    in_flight: int = 0

    def copy(self) -> Ledger:
        """Return an independent copy."""
        return replace(self, rejected=dict(self.rejected))

    def as_dict(self) -> dict[str, int]:
        """Return every term; ``rejected`` is the sum, ``rejected_<reason>`` are its parts."""
        parts = {f"rejected_{reason}": n for reason, n in sorted(self.rejected.items())}
        return {
            "captured": self.captured,
            "done": self.done,
            "superseded": self.superseded,
            "rejected": sum(self.rejected.values()),
            "expired": self.expired,
            "lost_worker": self.lost_worker,
            "lost_link": self.lost_link,
            "in_flight": self.in_flight,
            **parts,
        }

    def balanced(self) -> bool:
        """Return whether ``captured`` equals the sum of the other terms."""
        return self.captured == self.resolved() + self.superseded + self.in_flight

    def resolved(self) -> int:
        """Return how many frames reached their final outcome, without the superseded ones."""
        return self.done + sum(self.rejected.values()) + self.expired + self.lost_worker + self.lost_link

    def count(self, outcome: Outcome, reason: str = "", frames: int = 1) -> None:
        """Add resolved frames."""
        if outcome == "rejected":
            self.rejected[reason] = self.rejected.get(reason, 0) + frames
        else:
            setattr(self, outcome, getattr(self, outcome) + frames)
