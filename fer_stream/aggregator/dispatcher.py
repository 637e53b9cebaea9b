"""Who gets which frame, and what became of every one: a state machine without sockets or clocks.

The aggregator tells it what arrived and what time it is (monotonic seconds) and carries out the commands it gets back::

    joined, offer, frame, left      from captures            ->  Ask     send NEXT to a capture
    ready, pinged, done, gone, ...  from workers             ->  Assign  send a frame to a worker
    tick                            time passes              ->  Fence   this worker is given up
                                                             ->  Release a frame is resolved, in order of capture

Rules: a capture is asked for its freshest frame only when a worker is idle; of several captures the one longest
unserved goes first, and the worker longest idle gets the frame. A worker holds one frame at a time. The frames of one
camera are released in order of capture. Each frame that was ever captured is, at any moment, in exactly one term of
its camera's `Ledger`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from fer_stream.aggregator.priority import PriorityQueue
from fer_stream.protocol.wire import Totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_stream.settings.kinds import Policy
    from fer_stream.settings.tree import DispatchSettings

Outcome = Literal["done", "rejected", "expired", "lost_worker", "lost_link"]

REASONS = ("corrupt", "limit", "poisoned")
"""Why a frame may be rejected."""

TERMS = {"done", "expired", "lost_worker", "lost_link", *(f"rejected_{reason}" for reason in REASONS)}
"""What may become of a frame that was sent."""

FENCES = ("ended", "replaced", "unreachable", "silent", "deadline")
"""Why a worker is given up; all but the first are deaths."""

MAX_TRIES = 2
"""Under ``wait``, the workers that may die on one frame before it counts as poisoned."""

ASK_PATIENCE = 0.5
"""Seconds after which a capture that was asked and sent nothing no longer keeps a worker waiting."""


@dataclass(slots=True)
class Ledger:
    """What became of a camera's frames. Always ``captured`` equals the sum of all the other terms."""

    captured: int = 0
    done: int = 0
    superseded: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    expired: int = 0
    lost_worker: int = 0
    lost_link: int = 0
    in_flight: int = 0

    def copy(self) -> Ledger:
        """Return another ledger of the same figures."""
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
        """Whether the promise holds."""
        return self.captured == self.resolved() + self.superseded + self.in_flight

    def resolved(self) -> int:
        """Return how many frames reached an end after they were captured, other than being superseded."""
        return self.done + sum(self.rejected.values()) + self.expired + self.lost_worker + self.lost_link

    def count(self, outcome: Outcome, reason: str = "", frames: int = 1) -> None:
        """Book resolved frames."""
        if outcome == "rejected":
            self.rejected[reason] = self.rejected.get(reason, 0) + frames
        else:
            setattr(self, outcome, getattr(self, outcome) + frames)


@dataclass(slots=True, eq=False)
class Item:
    """One frame on its way. ``frame``, ``about`` and ``result`` are the caller's own and not looked at here.

    ``frame`` is let go once the frame is resolved, whether or not it can be released yet: it may be large.
    """

    camera: str
    seq: int
    frame: Any
    taken: float
    """When the picture was taken, on this machine's monotonic clock."""
    policy: Policy
    session: int
    """Which of the camera's captures it is from."""
    tries: int = 0
    outcome: Outcome | None = None
    reason: str = ""
    result: Any = None
    about: Any = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Send NEXT to this camera's capture."""

    camera: str


@dataclass(frozen=True, slots=True)
class Assign:
    """Send this frame to this worker; its answer carries the ticket."""

    worker: str
    ticket: int
    item: Item


@dataclass(frozen=True, slots=True)
class Fence:
    """This worker is given up: nothing it says from now on counts."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """A frame is resolved, and so are all older ones of its camera."""

    item: Item


Command = Ask | Assign | Fence | Release


@dataclass(slots=True)
class _Camera:
    policy: Policy
    served: float
    totals: Totals
    booked: Ledger  # all but the present capture's own totals and the unresolved frames
    told: Ledger  # of `booked`, what concerns the present capture's sent frames
    session: int
    received: int
    offered: bool = False
    asked: float | None = None
    waiting: deque[Item] = field(default_factory=deque)  # received, with no worker yet
    unresolved: deque[Item] = field(default_factory=deque)  # received and not released, in order of capture

    def slot(self) -> int:
        t = self.totals
        return t.captured - t.superseded - t.rejected - t.sent


@dataclass(slots=True)
class _Worker:
    heard: float
    idle_since: float
    ticket: int = 0
    item: Item | None = None
    assigned: float = 0.0
    life: int = 0
    begun: bool = False  # whether it is known to have the frame, rather than a part of it
    deadline: float = 0.0
    done: int = 0


class Dispatcher:
    """See the module's text. Not thread-safe; its methods return the commands that follow from what they were told."""

    def __init__(self, settings: DispatchSettings, depth: int) -> None:
        self._settings = settings
        self._depth = depth
        self._cameras: dict[str, _Camera] = {}
        self._workers: dict[str, _Worker] = {}
        self._ticket = self._arrivals = 0
        # Indexes of the above, so that no message costs a look at every camera. `_index` and `_index_worker` keep them.
        self._idle: PriorityQueue[str, tuple[float, str]] = PriorityQueue()  # workers, longest idle first
        self._askable: PriorityQueue[str, tuple[float, str]] = PriorityQueue()  # cameras, longest unserved first
        self._waiting: PriorityQueue[str, tuple[float, str]] = PriorityQueue()  # the same, of those with waiting frames
        self._asked: PriorityQueue[str, tuple[float, str]] = PriorityQueue()  # cameras asked lately, oldest first
        self._aging: PriorityQueue[Item, tuple[float, int]] = PriorityQueue()  # waiting live frames, oldest first

    # What captures say

    def joined(self, camera: str, policy: Policy, totals: Totals, told: Mapping[str, int], now: float) -> list[Command]:
        """Begin with a camera's capture: a new process, or one that is older than this aggregator.

        ``totals`` are the capture's own; ``told`` is what the aggregators before this one told it of its sent frames
        (`told`). What they did not tell is lost with them.
        """
        self.left(camera)
        before = self._cameras.get(camera)
        known = _Camera(
            policy=policy,
            served=now,
            totals=totals,
            booked=before.booked if before else Ledger(),
            told=Ledger(),
            session=before.session + 1 if before else 0,
            received=totals.sent,
            waiting=before.waiting if before else deque(),
            unresolved=before.unresolved if before else deque(),
        )
        known.booked.captured += totals.sent
        for term, frames in told.items():
            outcome, _, reason = term.partition("_") if term.startswith("rejected_") else (term, "", "")
            self._book(known, known.session, outcome, reason, frames)  # type: ignore[arg-type]
        self._book(known, known.session, "lost_link", frames=max(0, totals.sent - known.told.resolved()))
        self._cameras[camera] = known
        self._index(camera)
        return self._pump(now)

    def offer(self, camera: str, totals: Totals, full: bool, now: float) -> list[Command]:
        """Take a capture's totals, and whether a frame lies in its slot."""
        known = self._cameras[camera]
        self._take(known, totals)
        known.offered = full
        if not full or (known.asked is not None and now - known.asked > ASK_PATIENCE):
            known.asked = None
        self._index(camera)
        return self._pump(now)

    def frame(
        self,
        camera: str,
        seq: int,
        frame: Any,
        taken: float,
        totals: Totals,
        now: float,
        refused: str = "",
        about: Any = None,
    ) -> list[Command]:
        """Take a frame that a capture sent; with ``refused`` it is rejected for that reason."""
        known = self._cameras[camera]
        item = Item(camera, seq, frame, taken, known.policy, known.session, about=about)
        known.received += 1
        known.booked.captured += 1
        known.offered, known.asked = False, None
        known.unresolved.append(item)
        self._take(known, totals)
        if refused:
            return self._resolve(item, "rejected", refused) + self._pump(now)
        known.waiting.append(item)
        self._index_item(item)
        return self._pump(now)

    def silent(self, camera: str) -> None:
        """Ask nothing more of a camera until it offers again."""
        known = self._cameras[camera]
        known.offered, known.asked = False, None
        self._index(camera)

    def left(self, camera: str) -> None:
        """Close the books of a camera's capture: what it did not send is lost; what it sent is still worked on."""
        known = self._cameras.get(camera)
        if known is None:
            return
        t, slot = known.totals, known.slot()
        known.booked.superseded += t.superseded
        if t.rejected:
            known.booked.count("rejected", "limit", t.rejected)
        known.booked.count("lost_link", frames=slot)
        known.booked.captured += t.superseded + t.rejected + slot
        known.totals, known.received, known.session = Totals(), 0, known.session + 1
        known.offered, known.asked = False, None
        self._index(camera)

    def forget(self, camera: str) -> None:
        """Drop all that is known of a camera, of which no frame is unresolved; `joined` begins anew with it."""
        if self._cameras[camera].unresolved:
            raise AssertionError("a camera with frames that are still worked on")
        del self._cameras[camera]
        for index in (self._askable, self._waiting, self._asked):
            index.discard(camera)

    # What workers say

    def ready(self, worker: str, now: float) -> list[Command]:
        """Begin with a worker, which has one credit."""
        self._workers[worker] = _Worker(heard=now, idle_since=now)
        self._index_worker(worker)
        return self._pump(now)

    def done(
        self, worker: str, ticket: int, outcome: Literal["done", "rejected"], reason: str, result: Any, now: float
    ) -> list[Command]:
        """Take a worker's answer. One with another ticket than the worker holds is late, and changes nothing."""
        known = self._workers.get(worker)
        if known is None or known.item is None or known.ticket != ticket:
            return []
        item, known.item = known.item, None
        known.idle_since = known.heard = now
        known.done += 1
        self._index_worker(worker)
        item.result = result
        return self._resolve(item, outcome, reason) + self._pump(now)

    def pinged(self, worker: str, ticket: int, life: int, now: float) -> float | None:
        """Take a worker's word of the frame that came last; return the seconds that this took where it is news.

        ``life`` counts its connections: what was on its way when one broke will not come, and gets no more time.
        """
        known = self._workers[worker]
        if life != known.life:
            known.life = life
            known.deadline = min(known.deadline, now + self._settings.deadline)
        if known.item is None or known.ticket != ticket or known.begun:
            return None
        known.begun, known.deadline = True, now + self._settings.deadline
        return now - known.assigned

    def heard(self, worker: str, now: float) -> bool:
        """Take a worker's sign of life; ``False`` where that worker is not known."""
        known = self._workers.get(worker)
        if known is not None:
            known.heard = now
        return known is not None

    def gone(self, worker: str, reason: str, now: float) -> list[Command]:
        """End with a worker. Its frame is lost, or under ``wait`` given to another one, once."""
        return self._give_up(worker, reason) + self._pump(now)

    def unreachable(self, worker: str, now: float, reason: str = "unreachable") -> list[Command]:
        """Undo an `Assign` that the worker never got, or never began with: the worker is gone, its frame is not."""
        self._take_back(worker)
        return self.gone(worker, reason, now)

    def returned(self, worker: str, ticket: int, now: float) -> list[Command]:
        """Undo an `Assign` of a frame that the worker could not open and so never looked at; it has its credit back."""
        known = self._workers.get(worker)
        if known is None or known.item is None or known.ticket != ticket:
            return []
        self._take_back(worker)
        known.idle_since = known.heard = now
        self._index_worker(worker)
        return self._pump(now)

    def _take_back(self, worker: str) -> None:
        known = self._workers.get(worker)
        if known is not None and known.item is not None:
            item, known.item = known.item, None
            item.tries -= 1
            self._cameras[item.camera].waiting.appendleft(item)
            self._index_item(item)

    # Time

    def tick(self, now: float) -> list[Command]:
        """Give up workers that are silent or too slow, and live frames that are too old."""
        commands: list[Command] = []
        # All of them before anything is handed out: a frame given to one who is next would count as tried.
        for name, worker in list(self._workers.items()):
            if now - worker.heard > self._settings.silence:
                commands += self._give_up(name, "silent")
            elif worker.item is not None and now > worker.deadline:
                commands += self._give_up(name, "deadline")
        return commands + self._pump(now)

    # What it knows

    def ledger(self, camera: str) -> Ledger:
        """Return a camera's ledger as it stands, over all its captures."""
        known = self._cameras[camera]
        t, slot, result = known.totals, known.slot(), known.booked.copy()
        result.captured += t.superseded + t.rejected + slot
        result.superseded += t.superseded
        if t.rejected:
            result.count("rejected", "limit", t.rejected)
        result.in_flight = slot + len(known.unresolved)
        return result

    def told(self, camera: str) -> dict[str, int]:
        """Return what became of the present capture's sent frames, by term; the capture keeps it for `joined`."""
        told = self._cameras[camera].told
        rejected = {f"rejected_{reason}": frames for reason, frames in told.rejected.items()}
        plain = {term: getattr(told, term) for term in ("done", "expired", "lost_worker", "lost_link")}
        return {term: frames for term, frames in (plain | rejected).items() if frames}

    def asked(self, camera: str) -> float | None:
        """Return when a camera was asked for the frame that it has not sent yet, if it was."""
        return self._cameras[camera].asked

    def unresolved(self, camera: str) -> int:
        """Return how many frames of a camera are received and not released."""
        return len(self._cameras[camera].unresolved)

    def waiting(self, camera: str) -> int:
        """Return how many frames of a camera are received and have no worker yet."""
        return len(self._cameras[camera].waiting)

    def workers(self) -> dict[str, tuple[Literal["idle", "busy"], int]]:
        """Return each worker's state and how many frames it has answered."""
        return {name: ("idle" if w.item is None else "busy", w.done) for name, w in self._workers.items()}

    # The rules

    def _take(self, known: _Camera, totals: Totals) -> None:
        known.totals = totals
        missing = totals.sent - known.received
        if missing > 0:  # the link keeps the order, so what is not here by now will not come
            known.received += missing
            known.asked = None
            known.booked.captured += missing
            self._book(known, known.session, "lost_link", frames=missing)

    def _book(self, known: _Camera, session: int, outcome: Outcome, reason: str = "", frames: int = 1) -> None:
        known.booked.count(outcome, reason, frames)
        if session == known.session:
            known.told.count(outcome, reason, frames)

    def _resolve(self, item: Item, outcome: Outcome, reason: str = "") -> list[Command]:
        """Settle a frame, and release all frames at the head of its camera's line that are settled."""
        item.outcome, item.reason, item.frame = outcome, reason, None
        known = self._cameras[item.camera]
        commands: list[Command] = []
        while known.unresolved and (head := known.unresolved[0]).outcome is not None:
            known.unresolved.popleft()
            self._book(known, head.session, head.outcome, head.reason)
            commands.append(Release(head))
        self._index(item.camera)
        return commands

    def _give_up(self, worker: str, reason: str) -> list[Command]:
        known = self._workers.pop(worker, None)
        self._idle.discard(worker)
        if known is None:
            return []
        commands: list[Command] = [Fence(worker, reason)]
        item = known.item
        if item is not None:
            if item.policy == "drop_oldest":
                commands += self._resolve(item, "lost_worker")
            elif item.tries >= MAX_TRIES:
                commands += self._resolve(item, "rejected", "poisoned")
            else:
                self._cameras[item.camera].waiting.appendleft(item)
                self._index_item(item)
        return commands

    def _pump(self, now: float) -> list[Command]:
        """Expire old frames, hand out waiting ones, then ask for as many as there are workers left."""
        commands = self._expire(now)
        while (worker := self._idle.first()) and (camera := self._waiting.first()):
            commands.append(self._assign(worker[0], camera[0], now))
        return commands + self._ask(now)

    def _expire(self, now: float) -> list[Command]:
        commands: list[Command] = []
        while (oldest := self._aging.first()) and now - oldest[0].taken > self._settings.max_age:
            item = oldest[0]
            self._aging.discard(item)
            self._cameras[item.camera].waiting.remove(item)
            commands += self._resolve(item, "expired")
        return commands

    def _assign(self, worker: str, camera: str, now: float) -> Command:
        item = self._cameras[camera].waiting.popleft()
        self._aging.discard(item)
        self._ticket += 1
        known = self._workers[worker]
        known.item, known.ticket, known.assigned, known.begun = item, self._ticket, now, False
        known.deadline = now + self._settings.transfer + self._settings.deadline
        self._index_worker(worker)
        item.tries += 1
        self._cameras[camera].served = now
        self._index(camera)
        return Assign(worker, self._ticket, item)

    def _ask(self, now: float) -> list[Command]:
        """Ask as many captures as workers are idle, less those who were asked and are about to send."""
        while (asked := self._asked.first()) and now - asked[1][0] >= ASK_PATIENCE:
            self._asked.discard(asked[0])
        commands: list[Command] = []
        while len(self._asked) < len(self._idle) and (first := self._askable.first()):
            camera = first[0]
            known = self._cameras[camera]
            known.asked = known.served = now
            self._asked.put(camera, (now, camera))
            self._index(camera)
            commands.append(Ask(camera))
        return commands

    # The indexes

    def _index(self, camera: str) -> None:
        """Bring the indexes up to date after a change to a camera."""
        known = self._cameras[camera]
        rank = known.served, camera
        if known.asked is None:
            self._asked.discard(camera)
        if known.offered and known.asked is None and len(known.unresolved) < self._depth:
            self._askable.put(camera, rank)
        else:
            self._askable.discard(camera)
        if known.waiting:
            self._waiting.put(camera, rank)
        else:
            self._waiting.discard(camera)

    def _index_item(self, item: Item) -> None:
        """Bring the indexes up to date after a frame began to wait."""
        if item.policy == "drop_oldest":
            self._arrivals += 1
            self._aging.put(item, (item.taken, self._arrivals))
        self._index(item.camera)

    def _index_worker(self, worker: str) -> None:
        """Bring the index up to date after a change to a worker."""
        known = self._workers[worker]
        if known.item is None:
            self._idle.put(worker, (known.idle_since, worker))
        else:
            self._idle.discard(worker)
