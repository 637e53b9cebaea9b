"""The frames of one camera: what its capture reported, its ledger, and the frames that are not released yet."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from fer_stream.aggregator.ledger import Ledger
from fer_stream.protocol.messages import Totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_stream.aggregator.ledger import Outcome
    from fer_stream.settings.kinds import Policy
    from fer_stream.types import Nanoseconds

FrameT = TypeVar("FrameT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Arrival:
    """The header of a received frame."""

    epoch: int
    """The camera's epoch when the frame arrived."""
    frame: int
    """The frame's number within its epoch."""
    time: Nanoseconds
    """When the picture was taken, by the capture's clock."""
    taken: float
    """The same on this machine's monotonic clock, in seconds."""
    size: tuple[int, int]
    """Width and height in pixels."""


@dataclass(slots=True, eq=False)
class Item(Generic[FrameT, ResultT]):
    """A frame from its arrival to its release. ``frame`` and ``result`` are stored for the caller and never read.

    ``frame`` may be large, so it is set to ``None`` once the frame is resolved, even if it cannot be released yet.
    """

    camera: str
    arrival: Arrival
    frame: FrameT | None
    policy: Policy
    session: int
    """Which of the camera's captures it is from."""
    tries: int = 0
    """How many workers it was assigned to."""
    outcome: Outcome | None = None
    reason: str = ""
    result: ResultT | None = None


@dataclass(slots=True)
class CameraFrames(Generic[FrameT, ResultT]):
    """The state of a camera's frames, over all its captures. The `Dispatcher` changes it."""

    policy: Policy = "drop_oldest"
    served: float = 0.0
    """When a frame was last asked for or assigned, in monotonic seconds."""
    offered: bool = False
    """Whether the capture has a frame in its slot."""
    asked: float | None = None
    """When the capture was asked for a frame that it has not sent yet."""
    waiting: deque[Item[FrameT, ResultT]] = field(default_factory=deque)
    """Received, and not assigned to a worker."""
    unresolved: deque[Item[FrameT, ResultT]] = field(default_factory=deque)
    """Received and not released, in order of capture."""
    session: int = -1
    """How many captures there were before the present one."""
    _totals: Totals = field(default_factory=Totals)
    _received: int = 0
    _booked: Ledger = field(default_factory=Ledger)  # without the present capture's totals and the unresolved frames
    _reported: Ledger = field(default_factory=Ledger)  # the part of it that concerns the present capture's sent frames

    def join(self, policy: Policy, totals: Totals, reported: Mapping[str, int], now: float) -> None:
        """Begin with a capture: a new process, or one that is older than this aggregator.

        Args:
            policy: the capture's.
            totals: the capture's own.
            reported: outcomes of its sent frames that earlier aggregators reported to it. Its other sent frames are
                lost.
            now: monotonic seconds.
        """
        self.leave()
        self.policy, self.served = policy, now
        self._totals, self._received, self._reported = totals, totals.sent, Ledger()
        self._booked.captured += totals.sent
        for term, frames in reported.items():
            outcome, _, reason = term.partition("_") if term.startswith("rejected_") else (term, "", "")
            self._book(self.session, cast("Outcome", outcome), reason, frames)
        self._book(self.session, "lost_link", frames=max(0, totals.sent - self._reported.resolved()))

    def leave(self) -> None:
        """End the present capture. The frame in its slot is lost; the frames that it sent stay."""
        t, slot = self._totals, self._in_slot()
        self._booked.superseded += t.superseded
        if t.rejected:
            self._booked.count("rejected", "capture", t.rejected)
        self._booked.count("lost_link", frames=slot)
        self._booked.captured += t.superseded + t.rejected + slot
        self._totals, self._received, self.session = Totals(), 0, self.session + 1
        self.offered, self.asked = False, None

    def update(self, totals: Totals) -> None:
        """Take the capture's totals. Sent frames that were overtaken by this message are lost."""
        self._totals = totals
        missing = totals.sent - self._received
        if missing > 0:  # the link keeps the order, so frames sent earlier will not arrive any more
            self._received += missing
            self.asked = None
            self._booked.captured += missing
            self._book(self.session, "lost_link", frames=missing)

    def receive(self, item: Item[FrameT, ResultT], totals: Totals) -> None:
        """Take a frame, and the capture's totals that came with it."""
        self._received += 1
        self._booked.captured += 1
        self.offered, self.asked = False, None
        self.unresolved.append(item)
        self.update(totals)

    def release(self) -> list[Item[FrameT, ResultT]]:
        """Remove the resolved frames at the head of ``unresolved``, enter them in the ledger, and return them."""
        released = []
        while self.unresolved and (head := self.unresolved[0]).outcome is not None:
            self.unresolved.popleft()
            self._book(head.session, head.outcome, head.reason)
            released.append(head)
        return released

    def ledger(self) -> Ledger:
        """Return the ledger as it stands, over all captures."""
        t, slot, result = self._totals, self._in_slot(), self._booked.copy()
        result.captured += t.superseded + t.rejected + slot
        result.superseded += t.superseded
        if t.rejected:
            result.count("rejected", "capture", t.rejected)
        result.in_flight = slot + len(self.unresolved)
        return result

    def reported(self) -> dict[str, int]:
        """Return the outcomes of the present capture's sent frames, by term; its HELLO returns them (`join`)."""
        known = self._reported
        rejected = {f"rejected_{reason}": frames for reason, frames in known.rejected.items()}
        plain = {term: getattr(known, term) for term in ("done", "expired", "lost_worker", "lost_link")}
        return {term: frames for term, frames in (plain | rejected).items() if frames}

    def _in_slot(self) -> int:
        t = self._totals
        return t.captured - t.superseded - t.rejected - t.sent

    def _book(self, session: int, outcome: Outcome, reason: str = "", frames: int = 1) -> None:
        self._booked.count(outcome, reason, frames)
        if session == self.session:
            self._reported.count(outcome, reason, frames)
