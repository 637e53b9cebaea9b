"""Assigns frames to workers and accounts for every frame: a state machine without sockets or clocks.

The aggregator passes in each message with the time (monotonic seconds, which never go back) and carries out the
commands that are returned::

    joined, offer, frame, left      from captures            ->  Ask     send NEXT to a capture
    ready, pinged, done, gone, ...  from workers             ->  Assign  send a frame to a worker
    tick                            time passes              ->  Fence   this worker is given up
                                                             ->  Release a frame is resolved, in order of capture

Rules: a capture is asked for its freshest frame only when a worker is idle. The capture that was served longest ago is
asked first, and the worker that has been idle longest gets the frame. A worker holds one frame at a time. The frames
of one camera are released in order of capture. Each frame that was ever captured is, at any moment, in exactly one
term of its camera's `Ledger`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fer_stream.aggregator.ledger import Ledger
from fer_stream.aggregator.priority import PriorityQueue
from fer_stream.protocol.wire import Totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_stream.aggregator.ledger import Outcome
    from fer_stream.settings.kinds import Policy
    from fer_stream.settings.tree import DispatchSettings

FENCES = ("ended", "replaced", "unreachable", "silent", "deadline")
"""Why a worker is given up. ``ended`` is a clean exit; the others count as deaths."""

MAX_TRIES = 2
"""Under ``wait``, how many workers may die while they hold a frame before it is rejected as poisoned."""

ASK_PATIENCE = 0.5
"""Seconds for which an idle worker is reserved for a capture that was asked for a frame."""


@dataclass(slots=True, eq=False)
class Item:
    """A frame from its arrival to its release. The dispatcher only stores ``frame``, ``about`` and ``result``.

    ``frame`` may be large, so it is set to ``None`` once the frame is resolved, even if it cannot be released yet.
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
    """This worker is given up: its later messages are ignored."""

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
    booked: Ledger  # without the present capture's own totals and the unresolved frames
    told: Ledger  # the part of `booked` that concerns frames sent by the present capture
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
    begun: bool = False  # whether the worker confirmed that it received the whole frame
    deadline: float = 0.0
    done: int = 0


class Dispatcher:
    """See the module's text. Not thread-safe. Its methods return the commands that follow from their input."""

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

    # Input from captures

    def joined(self, camera: str, policy: Policy, totals: Totals, told: Mapping[str, int], now: float) -> list[Command]:
        """Add a camera's capture: a new process, or one that is older than this aggregator.

        ``totals`` are the capture's own. ``told`` are the outcomes of its sent frames that earlier aggregators reported
        to it (`told`). Sent frames without a reported outcome are lost.
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
        """Take a capture's totals, and whether it has a frame in its slot."""
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
        """Take a frame that a capture sent. If ``refused`` is not empty, the frame is rejected for that reason."""
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
        """Do not ask a camera for frames until it offers again."""
        known = self._cameras[camera]
        known.offered, known.asked = False, None
        self._index(camera)

    def left(self, camera: str) -> None:
        """End a camera's capture: the frame in its slot is lost; frames that it sent are still worked on."""
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
        """Delete a camera that has no unresolved frames. A later `joined` starts a new ledger."""
        if self._cameras[camera].unresolved:
            raise AssertionError("a camera with frames that are still worked on")
        del self._cameras[camera]
        for index in (self._askable, self._waiting, self._asked):
            index.discard(camera)

    # Input from workers

    def ready(self, worker: str, now: float) -> list[Command]:
        """Add a worker, which has one credit."""
        self._workers[worker] = _Worker(heard=now, idle_since=now)
        self._index_worker(worker)
        return self._pump(now)

    def done(
        self, worker: str, ticket: int, outcome: Literal["done", "rejected"], reason: str, result: Any, now: float
    ) -> list[Command]:
        """Take a worker's answer. An answer whose ticket is not the worker's current one is late and is ignored."""
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
        """Take a worker's confirmation of the latest frame it received; the first one returns the transfer's seconds.

        ``life`` counts the worker's connections. A frame in transfer when a connection broke will not arrive, so a new
        connection ends the extra time for the transfer.
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
        """Take a worker's heartbeat; return ``False`` if the worker is not known."""
        known = self._workers.get(worker)
        if known is not None:
            known.heard = now
        return known is not None

    def gone(self, worker: str, reason: str, now: float) -> list[Command]:
        """Remove a worker. Its frame is lost; under ``wait`` it is given to another worker, once."""
        return self._give_up(worker, reason) + self._pump(now)

    def unreachable(self, worker: str, now: float, reason: str = "unreachable") -> list[Command]:
        """Undo an `Assign` that the worker did not get or begin: remove the worker and keep its frame."""
        self._take_back(worker)
        return self.gone(worker, reason, now)

    def returned(self, worker: str, ticket: int, now: float) -> list[Command]:
        """Undo an `Assign` of a frame that the worker could not open. The worker gets its credit back."""
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
        # Give up all of them before assigning: a frame assigned to the next dead worker would count as tried.
        for name, worker in list(self._workers.items()):
            if now - worker.heard > self._settings.silence:
                commands += self._give_up(name, "silent")
            elif worker.item is not None and now > worker.deadline:
                commands += self._give_up(name, "deadline")
        return commands + self._pump(now)

    # Queries

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
        """Return the outcomes of the present capture's sent frames, by term. The capture returns them to `joined`."""
        told = self._cameras[camera].told
        rejected = {f"rejected_{reason}": frames for reason, frames in told.rejected.items()}
        plain = {term: getattr(told, term) for term in ("done", "expired", "lost_worker", "lost_link")}
        return {term: frames for term, frames in (plain | rejected).items() if frames}

    def asked(self, camera: str) -> float | None:
        """Return when a camera was asked for a frame that it has not sent yet, or ``None``."""
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
        if missing > 0:  # the link keeps the order, so frames sent earlier will not arrive any more
            known.received += missing
            known.asked = None
            known.booked.captured += missing
            self._book(known, known.session, "lost_link", frames=missing)

    def _book(self, known: _Camera, session: int, outcome: Outcome, reason: str = "", frames: int = 1) -> None:
        known.booked.count(outcome, reason, frames)
        if session == known.session:
            known.told.count(outcome, reason, frames)

    def _resolve(self, item: Item, outcome: Outcome, reason: str = "") -> list[Command]:
        """Resolve a frame, and release all resolved frames at the head of its camera's queue."""
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
