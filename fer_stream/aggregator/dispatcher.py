"""Assigns frames to workers and accounts for every frame: a state machine without sockets or clocks.

The aggregator passes in each message with the time (monotonic seconds, which never go back) and carries out the
commands that are returned::

    joined, offer, frame, left      from captures            ->  Ask     send NEXT to a capture
    ready, pinged, done, gone, ...  from workers             ->  Assign  send a frame to a worker
    tick                            time passes              ->  Fence   this worker is given up
                                                             ->  Release a frame is resolved, in order of capture

Rules: a capture is asked for its freshest frame only when a worker has room for it. The capture that was served longest
ago is asked first. The worker that holds the fewest frames gets the frame; of several such workers, the one that has
been idle longest. A worker holds at most as many frames as it announced; under ``wait`` it holds only one, so that no
other frame is affected if a frame makes it crash. The frames of one camera are released in order of capture. Each frame
that was ever captured is, at any moment, in exactly one term of its camera's `Ledger`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal

from fer_stream.aggregator.frames import CameraFrames, FrameT, Item, ResultT
from fer_stream.aggregator.priority import PriorityQueue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_stream.aggregator.frames import Arrival
    from fer_stream.aggregator.ledger import Outcome
    from fer_stream.protocol.messages import Totals
    from fer_stream.settings.kinds import Policy
    from fer_stream.settings.tree import DispatchSettings

FENCES = ("ended", "replaced", "unreachable", "silent", "deadline")
"""Why a worker is given up. ``ended`` is a clean exit; the others count as deaths."""

MAX_TRIES = 2
"""Under ``wait``, how many workers may die while they hold a frame before it is rejected as poisoned."""

ASK_PATIENCE = 0.5
"""Seconds for which a worker's room is reserved for a capture that was asked for a frame."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send NEXT to this camera's capture."""

    camera: str


@dataclass(frozen=True, slots=True)
class Assign(Generic[FrameT, ResultT]):
    """Send this frame to this worker; its answer carries the ticket."""

    worker: str
    ticket: int
    item: Item[FrameT, ResultT]


@dataclass(frozen=True, slots=True)
class Fence:
    """This worker is given up: its later messages are ignored."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Release(Generic[FrameT, ResultT]):
    """A frame is resolved, and so are all older ones of its camera."""

    item: Item[FrameT, ResultT]


Command = Ask | Assign[FrameT, ResultT] | Fence | Release[FrameT, ResultT]


@dataclass(slots=True)
class Held(Generic[FrameT, ResultT]):
    """A frame that a worker holds."""

    item: Item[FrameT, ResultT]
    sent: float
    """When its transfer began: it was sent, or the frame sent before it had arrived. Monotonic seconds."""
    deadline: float
    begun: bool = False
    """Whether the worker confirmed that it received the whole frame."""


@dataclass(slots=True)
class Credit(Generic[FrameT, ResultT]):
    """A worker's credit: how many frames it takes at a time, and which ones it holds."""

    heard: float
    """When the last message arrived, in monotonic seconds."""
    idle_since: float
    """When it answered last, in monotonic seconds."""
    most: int = 1
    """How many frames it takes at a time."""
    held: dict[int, Held[FrameT, ResultT]] = field(default_factory=dict)
    """The frames that it holds, by ticket, in the order in which they were sent."""
    connection: int = 0
    """Number of the worker's connection (`fer_stream.plugins.ConnectionState.number`)."""
    done: int = 0
    """How many frames it has answered."""
    room: int = 0
    """How many more frames it can be given."""

    @property
    def state(self) -> Literal["idle", "busy"]:
        """Whether it holds a frame."""
        return "busy" if self.held else "idle"


class Dispatcher(Generic[FrameT, ResultT]):
    """See the module docstring. Not thread-safe. Its methods return the commands that follow from their input.

    It stores frames and results and never reads them, so the caller chooses their types.
    """

    def __init__(self, settings: DispatchSettings, depth: int) -> None:
        self.cameras: dict[str, CameraFrames[FrameT, ResultT]] = {}
        self.workers: dict[str, Credit[FrameT, ResultT]] = {}
        self._settings = settings
        self._depth = depth
        self._ticket = self._arrivals = 0
        # Indexes of cameras, workers and frames, so that no message needs a loop over all cameras. `_index`,
        # `_index_item` and `_index_worker` update them.
        # Workers with room, those with the fewest frames first, and of these the longest idle.
        self._open: PriorityQueue[str, tuple[int, float, str]] = PriorityQueue()
        self._room = 0  # of all workers
        self._askable: PriorityQueue[str, tuple[float, str]] = PriorityQueue()  # cameras, longest unserved first
        self._waiting: PriorityQueue[str, tuple[float, str]] = PriorityQueue()  # the same, of those with waiting frames
        self._asked: PriorityQueue[str, tuple[float, str]] = PriorityQueue()  # cameras asked lately, oldest first
        # Waiting frames under ``drop_oldest``, oldest first.
        self._aging: PriorityQueue[Item[FrameT, ResultT], tuple[float, int]] = PriorityQueue()

    # Input from captures

    def joined(
        self, camera: str, policy: Policy, totals: Totals, reported: Mapping[str, int], now: float
    ) -> list[Command[FrameT, ResultT]]:
        """Add a camera's capture (`CameraFrames.join`)."""
        known = self.cameras.setdefault(camera, CameraFrames())
        known.join(policy, totals, reported, now)
        self._index(camera)
        return self._pump(now)

    def offer(self, camera: str, totals: Totals, full: bool, now: float) -> list[Command[FrameT, ResultT]]:
        """Take a capture's totals, and whether it has a frame in its slot."""
        known = self.cameras[camera]
        known.update(totals)
        known.offered = full
        if not full or (known.asked is not None and now - known.asked > ASK_PATIENCE):
            known.asked = None
        self._index(camera)
        return self._pump(now)

    def frame(
        self, camera: str, arrival: Arrival, frame: FrameT, totals: Totals, now: float, refused: str = ""
    ) -> list[Command[FrameT, ResultT]]:
        """Take a frame that a capture sent. If ``refused`` is not empty, the frame is rejected for that reason."""
        known = self.cameras[camera]
        item: Item[FrameT, ResultT] = Item(camera, arrival, frame, known.policy, known.session)
        known.receive(item, totals)
        if refused:
            return self._resolve(item, "rejected", refused) + self._pump(now)
        known.waiting.append(item)
        self._index_item(item)
        return self._pump(now)

    def silent(self, camera: str) -> None:
        """Do not ask a camera for frames until it offers again."""
        known = self.cameras[camera]
        known.offered, known.asked = False, None
        self._index(camera)

    def left(self, camera: str) -> None:
        """End a camera's capture (`CameraFrames.leave`)."""
        self.cameras[camera].leave()
        self._index(camera)

    def forget(self, camera: str) -> None:
        """Delete a camera that has no unresolved frames. A later `joined` starts a new ledger."""
        if self.cameras[camera].unresolved:
            raise AssertionError("a camera with frames that are still worked on")
        del self.cameras[camera]
        for index in (self._askable, self._waiting, self._asked):
            index.discard(camera)

    # Input from workers

    def ready(self, worker: str, now: float, most: int = 1) -> list[Command[FrameT, ResultT]]:
        """Add a worker, which takes at most ``most`` frames at a time."""
        self.workers[worker] = Credit(heard=now, idle_since=now, most=most)
        self._index_worker(worker)
        return self._pump(now)

    def done(
        self,
        worker: str,
        ticket: int,
        outcome: Literal["done", "rejected"],
        reason: str,
        result: ResultT | None,
        now: float,
    ) -> list[Command[FrameT, ResultT]]:
        """Take a worker's answer. An answer to a frame that the worker does not hold is late and is ignored."""
        known = self.workers.get(worker)
        if known is None or ticket not in known.held:
            return []
        item = known.held.pop(ticket).item
        known.idle_since = known.heard = now
        known.done += 1
        self._index_worker(worker)
        item.result = result
        return self._resolve(item, outcome, reason) + self._pump(now)

    def pinged(self, worker: str, ticket: int, connection: int, now: float) -> float | None:
        """Take a worker's PING, which confirms a frame and all earlier ones; return the transfer time in seconds.

        A PING that confirms no frame, or one that was confirmed before, returns ``None``.

        ``connection`` has changed if the worker's connection broke. A frame that was in transfer then does
        not arrive, so the extra time for the transfer ends.
        """
        known = self.workers[worker]
        coming = {number: frame for number, frame in known.held.items() if not frame.begun}
        limit = now + self._settings.deadline
        if connection != known.connection:
            known.connection = connection
            for frame in coming.values():
                frame.deadline = min(frame.deadline, limit)
        if ticket not in coming:
            return None
        seconds = now - coming[ticket].sent
        for number, frame in coming.items():
            if number <= ticket:  # frames arrive in the order in which they were sent
                frame.begun, frame.deadline = True, limit
            else:
                frame.sent = now
        return seconds

    def heard(self, worker: str, now: float) -> bool:
        """Record that a message from a worker arrived; return ``False`` if the worker is not known."""
        known = self.workers.get(worker)
        if known is not None:
            known.heard = now
        return known is not None

    def gone(self, worker: str, reason: str, now: float) -> list[Command[FrameT, ResultT]]:
        """Remove a worker. Its frames are lost; under ``wait`` its frame is given to another worker, once."""
        return self._give_up(worker, reason) + self._pump(now)

    def unreachable(self, worker: str, tickets: list[int], now: float) -> list[Command[FrameT, ResultT]]:
        """Remove a worker to which these frames could not be sent; they wait for another worker."""
        if worker in self.workers:
            self._take_back(worker, tickets)
        return self.gone(worker, "unreachable", now)

    def ended(self, worker: str, now: float) -> list[Command[FrameT, ResultT]]:
        """Remove a worker that said BYE. It has answered all frames that it has begun, so the others wait again."""
        if worker in self.workers:
            self._take_back(worker, list(self.workers[worker].held))
        return self.gone(worker, "ended", now)

    def returned(self, worker: str, ticket: int, now: float) -> list[Command[FrameT, ResultT]]:
        """Take back a frame that the worker could not open. The frame waits again."""
        known = self.workers.get(worker)
        if known is None or ticket not in known.held:
            return []
        self._take_back(worker, [ticket])
        known.idle_since = known.heard = now
        self._index_worker(worker)
        return self._pump(now)

    def _take_back(self, worker: str, tickets: list[int]) -> None:
        for ticket in reversed(tickets):
            item = self.workers[worker].held.pop(ticket).item
            item.tries -= 1
            self._wait_again(item)

    def _wait_again(self, item: Item[FrameT, ResultT]) -> None:
        self.cameras[item.camera].waiting.appendleft(item)
        self._index_item(item)

    # Time

    def tick(self, now: float) -> list[Command[FrameT, ResultT]]:
        """Give up workers that are silent or too slow, and expire waiting frames that are too old."""
        commands: list[Command[FrameT, ResultT]] = []
        # Give up all of them before assigning: a frame assigned to another dead worker would count as tried.
        for name, worker in list(self.workers.items()):
            if now - worker.heard > self._settings.silence:
                commands += self._give_up(name, "silent")
            elif any(now > frame.deadline for frame in worker.held.values()):
                commands += self._give_up(name, "deadline")
        return commands + self._pump(now)

    # The rules

    def _resolve(
        self, item: Item[FrameT, ResultT], outcome: Outcome, reason: str = ""
    ) -> list[Command[FrameT, ResultT]]:
        """Resolve a frame, and release all resolved frames at the head of its camera's queue."""
        item.outcome, item.reason, item.frame = outcome, reason, None
        released = self.cameras[item.camera].release()
        self._index(item.camera)
        return [Release(one) for one in released]

    def _give_up(self, worker: str, reason: str) -> list[Command[FrameT, ResultT]]:
        known = self.workers.pop(worker, None)
        self._open.discard(worker)
        if known is None:
            return []
        self._room -= known.room
        commands: list[Command[FrameT, ResultT]] = [Fence(worker, reason)]
        for frame in known.held.values():
            if frame.item.policy == "drop_oldest":
                commands += self._resolve(frame.item, "lost_worker")
            elif frame.item.tries >= MAX_TRIES:
                commands += self._resolve(frame.item, "rejected", "poisoned")
            else:
                self._wait_again(frame.item)
        return commands

    def _pump(self, now: float) -> list[Command[FrameT, ResultT]]:
        """Expire old frames, assign waiting ones to workers with room, and ask for frames for the room that is left."""
        commands = self._expire(now)
        while (camera := self._waiting.first()) and (worker := self._open.first()):
            if self.workers[worker[0]].held and self.cameras[camera[0]].waiting[0].policy == "wait":
                return commands  # it is this frame's turn, and it needs a worker that holds no other
            commands.append(self._assign(worker[0], camera[0], now))
        return commands if camera else commands + self._ask(now)

    def _expire(self, now: float) -> list[Command[FrameT, ResultT]]:
        commands: list[Command[FrameT, ResultT]] = []
        while (oldest := self._aging.first()) and now - oldest[0].arrival.taken > self._settings.max_age:
            item = oldest[0]
            self._aging.discard(item)
            self.cameras[item.camera].waiting.remove(item)
            commands += self._resolve(item, "expired")
        return commands

    def _assign(self, worker: str, camera: str, now: float) -> Command[FrameT, ResultT]:
        item = self.cameras[camera].waiting.popleft()
        self._aging.discard(item)
        self._ticket += 1
        deadline = now + self._settings.transfer + self._settings.deadline
        self.workers[worker].held[self._ticket] = Held(item, now, deadline)
        self._index_worker(worker)
        item.tries += 1
        self.cameras[camera].served = now
        self._index(camera)
        return Assign(worker, self._ticket, item)

    def _ask(self, now: float) -> list[Command[FrameT, ResultT]]:
        """Ask a capture for each frame that there is room for, less those asked for before (`ASK_PATIENCE`)."""
        while (asked := self._asked.first()) and now - asked[1][0] >= ASK_PATIENCE:
            self._asked.discard(asked[0])
        commands: list[Command[FrameT, ResultT]] = []
        while len(self._asked) < self._room and (first := self._askable.first()):
            camera = first[0]
            known = self.cameras[camera]
            known.asked = known.served = now
            self._asked.put(camera, (now, camera))
            self._index(camera)
            commands.append(Ask(camera))
        return commands

    # The indexes

    def _index(self, camera: str) -> None:
        """Update the indexes after a change to a camera."""
        known = self.cameras[camera]
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

    def _index_item(self, item: Item[FrameT, ResultT]) -> None:
        """Update the indexes after a frame began to wait."""
        if item.policy == "drop_oldest":
            self._arrivals += 1
            self._aging.put(item, (item.arrival.taken, self._arrivals))
        self._index(item.camera)

    def _index_worker(self, worker: str) -> None:
        """Update the index of workers with room, and their room, after a change to a worker."""
        known = self.workers[worker]
        alone = any(frame.item.policy == "wait" for frame in known.held.values())
        room = 0 if alone else known.most - len(known.held)
        self._room += room - known.room
        known.room = room
        if room:
            self._open.put(worker, (len(known.held), known.idle_since, worker))
        else:
            self._open.discard(worker)
