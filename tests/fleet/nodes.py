"""Simulated aggregators: a `Member`, a journal that writes as the fleet's page says, and the ledgers of cameras."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from arrivals import arrived
from fleet.engine import Entry

from fer_stream.aggregator.frames import CameraFrames, Item
from fer_stream.fleet import records
from fer_stream.fleet.member import Member
from fer_stream.fleet.records import Conflict, Done, Moved, Place, Unknown, Welcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet.peers import CapturePeer, WorkerPeer
    from fleet.world import World

    from fer_stream.fleet.records import Answer, Command, Outcome
    from fer_stream.protocol.messages import Totals

TICK = 0.1
ROUND = 0.5
"""Seconds between two messages to each capture and worker."""

FLUSH = 1.5
"""Seconds within which the last frames of a partition must be resolved and stored."""

BATCH = 20


class Writer:
    """The events of one partition: one atomic batch in flight, read back when anything is unclear."""

    def __init__(self, node: Node, number: int, fence: int, cursor: int) -> None:
        self.node, self.number, self.fence, self.cursor = node, number, fence, cursor
        self.held: list[str] = []
        self.batch: list[str] = []

    def add(self, event: str) -> None:
        self.held.append(event)
        self.pump()

    def pump(self) -> None:
        if not self.batch and self.held:
            self.batch = self.held[:BATCH]
            self.send()

    def send(self) -> None:
        engine = self.node.world.engine
        engine.append(self.node, self.number, self.batch, self.cursor, self.fence, once(self.answered))

    def answered(self, outcome: Outcome) -> None:
        if isinstance(outcome, Done):
            self.stored(outcome.value)
        else:
            self.read_back()

    def read_back(self) -> None:
        self.node.world.engine.tail(self.node, self.number, self.cursor, once(self.found))

    def found(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Done):
            self.node.later(0.25, self.read_back)
            return
        entries, fence = outcome.value
        if fence != self.fence:
            self.node.do(self.node.member.fenced(self.number))
        elif not entries:
            self.node.later(0.25, self.send)
        else:
            assert entries == [Entry(self.node.me, event) for event in self.batch], "a batch is stored whole or not"
            self.stored(self.cursor + len(entries))

    def stored(self, cursor: int) -> None:
        self.cursor = cursor
        del self.held[: len(self.batch)]
        self.batch = []
        self.pump()


def once(action: Callable[[Outcome], None]) -> Callable[[Outcome], None]:
    """Ignore an answer that comes after `Unknown`."""
    answered = []

    def first(outcome: Outcome) -> None:
        if not answered:
            answered.append(outcome)
            action(outcome)

    return first


@dataclass
class Camera:
    """A camera at one aggregator."""

    peer: CapturePeer
    link: int
    frames: CameraFrames[object, object]
    asked: float = -1.0  # when a frame was asked for that has not come


class Node:
    """One process of an aggregator. ``post`` is its inbox: a paused process reads it when it wakes."""

    writer = Writer

    def __init__(self, world: World, host: str, me: str, former: str) -> None:
        numbers = world.numbers
        self.world, self.host, self.me = world, host, me
        self.place = Place(f"tcp://{host}", f"key of {host}")
        self.member = Member(me, self.place, world.partitions, former)
        self.dead = self.paused = self.cut = self.deaf = self.stalled = False
        self.wall = 0.0
        self.impaired = world.loop.now  # when it was last not quite well
        self.rate, self.offset = numbers.uniform(0.99, 1.01), numbers.uniform(0, 1e6)
        self.cameras: dict[str, Camera] = {}
        self.workers: dict[str, tuple[WorkerPeer, int]] = {}
        self.writers: dict[int, Any] = {}
        self.asking: set[int] = set()
        self.flushed: set[int] = set()
        self.inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._events = count(1)
        world.engine.watch(self)
        world.loop.after(numbers.uniform(0, TICK), self.tick)
        world.loop.after(numbers.uniform(0, ROUND), self.round)

    def clock(self) -> float:
        """The monotonic clock. The wall clock, which may jump, is `wall` seconds off; only a mutant uses it."""
        return self.offset + self.world.loop.now * self.rate

    @property
    def well(self) -> bool:
        return not (self.dead or self.paused or self.cut or self.stalled)

    # The process

    def post(self, action: Callable[..., None], *arguments: Any) -> None:
        if self.dead:
            return
        if self.paused:
            self.inbox.append((action, arguments))
        else:
            action(*arguments)

    def later(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self.world.loop.after(seconds, self.post, action, *arguments)

    def resume(self) -> None:
        self.paused = False
        inbox, self.inbox = self.inbox, []
        for action, arguments in inbox:
            self.post(action, *arguments)

    def die(self) -> None:
        self.dead = True
        self.world.engine.unwatch(self)

    def tick(self) -> None:
        load: dict[int, float] = defaultdict(lambda: 1.0)
        for camera in self.cameras.values():
            load[camera.peer.partition] += 1
        busy = min(len(self.workers), -(-len(self.cameras) // 4))
        self.member.report(load, len(self.cameras), len(self.workers), len(self.workers) - busy)
        self.do(self.member.tick(self.clock()))
        if not self.dead:
            self.later(TICK, self.tick)

    # The engine

    def beaten(self, number: int) -> Callable[[Outcome], None] | None:
        """Return what takes the answer to a beat. Nothing does; a mutant overrides this."""

    def alive(self, member: str, number: int, status: Any) -> None:
        self.member.alive(member, number, status, self.clock())

    def seen(self, number: int, revision: int, part: Any) -> None:
        self.do(self.member.seen(number, revision, part, self.clock()))

    def do(self, commands: list[Command]) -> None:
        engine = self.world.engine
        for command in commands:
            if self.dead:
                return
            match command:
                case records.Beat(number, status):
                    engine.beat(self, number, status)
                case records.Write(call, number, part, revision):
                    engine.write(self, number, part, revision, self.answer_to(call))
                case records.Read(call, number):
                    engine.read(self, number, self.answer_to(call))
                case records.Look(call, number):
                    engine.look(self, number, self.answer_to(call))
                case records.Fence(call, number, mark, last):
                    engine.fence(self, number, mark, last, self.answer_to(call))
                case records.Recover(call, number, fence):
                    self.recover(call, number, fence)
                case records.Flush(call, number):
                    self.asking.discard(number)
                    self.flush(call, number, self.world.loop.now + FLUSH)
                case records.Serve(number):
                    self.asking.add(number)
                    self.flushed.discard(number)
                case records.Move(number, place):
                    self.asking.discard(number)
                    self.move(number, place)
                case records.MoveWorker(place):
                    self.world.gave_worker(self)
                    for worker, _ in list(self.workers.values())[:1]:
                        del self.workers[worker.name]
                        worker.send(self, Moved(place))
                case records.Inquire(place):
                    self.world.to(place, self, lambda other: other.inform(self))
                case records.End():
                    self.world.ended(self)
                case records.Left():
                    self.world.left(self)

    def answer_to(self, call: int) -> Callable[[Outcome], None]:
        return lambda outcome: self.do(self.member.result(call, outcome, self.clock()))

    def inform(self, other: Node) -> None:
        """Answer another aggregator's inquiry."""
        for one in self.member.partitions:
            if one.part is not None and not self.deaf and not other.deaf:
                self.world.loop.after(0.005, other.post, other.seen, one.partition, one.revision, one.part)

    # The journal

    def recover(self, call: int, number: int, fence: int) -> None:
        """Read the end of a partition's stream, and close what is open."""
        answer, engine = self.answer_to(call), self.world.engine

        def found(outcome: Outcome) -> None:
            if not isinstance(outcome, Done):
                answer(outcome)
                return
            entries, at = outcome.value
            if at != fence:
                answer(Conflict())
                return
            closing = f"{self.me} closing {next(self._events)}"
            engine.append(self, number, [closing], len(entries), fence, once(closed))

        def closed(outcome: Outcome) -> None:
            if isinstance(outcome, Done):
                self.writers[number] = self.writer(self, number, fence, outcome.value)
                answer(outcome)
            else:
                answer(Unknown())

        engine.tail(self, number, 0, once(found))

    def flush(self, call: int, number: int, until: float) -> None:
        cameras = [camera for camera in self.cameras.values() if camera.peer.partition == number]
        coming = any(camera.frames.unresolved or camera.asked > self.world.loop.now - 1 for camera in cameras)
        if not coming and not self.writers[number].held:
            self.flushed.add(number)
            self.answer_to(call)(Done())
        elif self.world.loop.now >= until:
            self.answer_to(call)(Unknown())
        else:
            self.later(0.05, self.flush, call, number, until)

    # Captures and workers

    def move(self, number: int, place: Place) -> None:
        for name, camera in list(self.cameras.items()):
            if camera.peer.partition == number:
                camera.peer.send(self, camera.link, "moved", camera.frames.reported(), Moved(place))
                del self.cameras[name]

    def hello(self, peer: CapturePeer, link: int, totals: Totals, told: dict[str, int]) -> None:
        if self.deaf:
            return
        answer: Answer = self.member.answer(peer.name)
        if not isinstance(answer, Welcome):
            peer.send(self, link, "moved", {}, answer)
            return
        known = self.cameras.get(peer.name)
        if known is None:
            known = self.cameras[peer.name] = Camera(peer, link, CameraFrames())
            known.frames.join("drop_oldest", totals, told, self.clock())
        known.link = link
        peer.send(self, link, "welcome", {}, answer)

    def round(self) -> None:
        """Ask each capture for its freshest frame if it has none here, and let it hear this process in any case."""
        for camera in self.cameras.values():
            asked = camera.peer.partition in self.asking and not camera.frames.unresolved
            if asked:
                camera.asked = self.world.loop.now
            camera.peer.send(self, camera.link, "next" if asked else "ping", camera.frames.reported(), None)
        self.workers = {name: (one, link) for name, (one, link) in self.workers.items() if one.link == link}
        for worker, _ in self.workers.values():
            worker.send(self, None)
        self.later(ROUND, self.round)

    def frame(self, peer: CapturePeer, link: int, number: int, totals: Totals) -> None:
        camera = self.cameras.get(peer.name)
        if self.deaf or camera is None or camera.link != link or peer.partition in self.flushed:
            return
        camera.asked = -1.0
        arrival = arrived(number, self.clock())
        item: Item[object, object] = Item(peer.name, arrival, None, "drop_oldest", camera.frames.session)
        camera.frames.receive(item, totals)
        if self.workers:
            self.later(self.world.numbers.uniform(0.02, 0.3), self.resolved, camera, item)
        else:
            item.outcome = "expired"
            camera.frames.release()

    def resolved(self, camera: Camera, item: Item[object, object]) -> None:
        item.outcome = "done"
        camera.peer.done += 1
        camera.frames.release()
        number = camera.peer.partition
        if self.world.numbers.random() < 0.5:
            event = f"{self.me} {item.camera} {next(self._events)}"
            self.world.made.setdefault(self.me, []).append((number, event))
            self.writers[number].add(event)

    def ready(self, worker: WorkerPeer) -> None:
        if self.deaf:
            return
        answer = self.member.answer_worker()
        if isinstance(answer, Welcome):
            self.workers[worker.name] = (worker, worker.link)
        worker.send(self, answer)
