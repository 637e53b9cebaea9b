"""The dispatcher decides what a plain implementation of its rules decides, which looks at every camera each time."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from arrivals import arrived
from hypothesis import given, settings
from hypothesis import strategies as st

import fer_stream.aggregator
from fer_stream.aggregator.dispatcher import ASK_PATIENCE, Ask, Assign, Dispatcher, Fence, Release
from fer_stream.protocol.messages import Totals
from fer_stream.settings.tree import DispatchSettings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType
    from typing import Any

    from fer_stream.aggregator.dispatcher import Command
    from fer_stream.settings.kinds import Policy

SETTINGS = DispatchSettings(deadline=2.0, max_age=1.0, silence=1e9, transfer=0.5)
DEPTH = 3


@dataclass
class Frame:
    camera: str
    seq: int
    taken: float
    live: bool
    tries: int = 0
    outcome: str = ""


@dataclass
class Camera:
    live: bool
    served: float
    offered: bool = False
    asked: float | None = None
    waiting: list[Frame] = field(default_factory=list)
    unresolved: list[Frame] = field(default_factory=list)


@dataclass
class Worker:
    idle_since: float
    most: int
    held: dict[int, tuple[Frame, float]] = field(default_factory=dict)
    """Each frame and its deadline, by ticket."""

    def takes(self, frame: Frame) -> bool:
        return not self.held if not frame.live else self.room() > 0

    def room(self) -> int:
        return 0 if any(not frame.live for frame, _ in self.held.values()) else self.most - len(self.held)


class Plain:
    """The rules without an index. Returns commands as texts."""

    def __init__(self) -> None:
        self.cameras: dict[str, Camera] = {}
        self.workers: dict[str, Worker] = {}
        self.tickets = 0

    def pump(self, now: float) -> list[str]:
        texts = []
        waiting = [frame for camera in self.cameras.values() for frame in camera.waiting if frame.live]
        for frame in sorted(waiting, key=lambda frame: frame.taken):
            if now - frame.taken > SETTINGS.max_age:
                self.cameras[frame.camera].waiting.remove(frame)
                texts += self.resolve(frame, "expired")
        while ready := [(camera.served, key) for key, camera in self.cameras.items() if camera.waiting]:
            camera = self.cameras[min(ready)[1]]
            frame = camera.waiting[0]
            takers = [
                (len(worker.held), worker.idle_since, name)
                for name, worker in self.workers.items()
                if worker.takes(frame)
            ]
            if not takers:
                return texts
            name = min(takers)[2]
            camera.waiting.remove(frame)
            frame.tries += 1
            camera.served = now
            self.tickets += 1
            self.workers[name].held[self.tickets] = frame, now + SETTINGS.transfer + SETTINGS.deadline
            texts.append(f"{name} gets {frame.camera} {frame.seq}")
        return texts + self.ask(sum(worker.room() for worker in self.workers.values()), now)

    def ask(self, room: int, now: float) -> list[str]:
        asked = [camera.asked for camera in self.cameras.values() if camera.asked is not None]
        texts: list[str] = []
        for _ in range(room - sum(now - when < ASK_PATIENCE for when in asked)):
            ready = [
                (camera.served, name)
                for name, camera in self.cameras.items()
                if camera.offered and camera.asked is None and len(camera.unresolved) < DEPTH
            ]
            if ready:
                name = min(ready)[1]
                self.cameras[name].asked = self.cameras[name].served = now
                texts.append(f"ask {name}")
        return texts

    def resolve(self, frame: Frame, outcome: str) -> list[str]:
        frame.outcome = outcome
        queue, texts = self.cameras[frame.camera].unresolved, []
        while queue and queue[0].outcome:
            texts.append(f"release {queue[0].camera} {queue[0].seq} {queue.pop(0).outcome}")
        return texts

    def give_up(self, name: str) -> list[str]:
        texts: list[str] = []
        for frame, _ in self.workers.pop(name).held.values():
            if frame.live or frame.tries >= 2:
                texts += self.resolve(frame, "lost_worker" if frame.live else "rejected")
            else:
                self.cameras[frame.camera].waiting.insert(0, frame)
        return texts

    def take_back(self, name: str, ticket: int) -> None:
        frame, _ = self.workers[name].held.pop(ticket)
        frame.tries -= 1
        self.cameras[frame.camera].waiting.insert(0, frame)


def shown(commands: Iterable[Command]) -> list[str]:
    texts = []
    for command in commands:
        match command:
            case Ask(camera):
                texts.append(f"ask {camera}")
            case Assign(worker, _, item):
                texts.append(f"{worker} gets {item.camera} {item.arrival.frame}")
            case Release(item):
                texts.append(f"release {item.camera} {item.arrival.frame} {item.outcome}")
            case Fence():
                pass
    return texts


class Pair:
    """Both implementations, given the same input; each command must be the same."""

    def __init__(self, numbers: random.Random) -> None:
        self.numbers, self.now = numbers, 100.0
        self.it, self.plain = Dispatcher(SETTINGS, DEPTH), Plain()
        self.sent: dict[str, int] = {}
        self.named = 0

    def same(self, commands: list[Command], texts: list[str]) -> None:
        assert shown(commands) == texts

    def join(self) -> None:
        name = f"camera-{self.numbers.randrange(8)}"
        if name in self.sent:  # a new capture starts; frames of the old one stay
            self.it.left(name)
        policy: Policy = self.numbers.choice(["wait", "drop_oldest"])
        before = self.plain.cameras.get(name)
        camera = self.plain.cameras[name] = Camera(policy == "drop_oldest", self.now)
        if before:
            camera.waiting, camera.unresolved = before.waiting, before.unresolved
        self.sent[name] = 0
        self.same(self.it.joined(name, policy, Totals(), {}, self.now), self.plain.pump(self.now))

    def offer(self) -> None:
        name, full = self.numbers.choice(list(self.sent)), self.numbers.random() < 0.8
        camera = self.plain.cameras[name]
        camera.offered = full
        if not full or (camera.asked is not None and self.now - camera.asked > ASK_PATIENCE):
            camera.asked = None
        totals = Totals(self.sent[name] + full, 0, 0, self.sent[name])
        self.same(self.it.offer(name, totals, full, self.now), self.plain.pump(self.now))

    def frame(self) -> None:
        name = self.numbers.choice(list(self.sent))
        camera = self.plain.cameras[name]
        self.sent[name] += 1
        seq, taken = self.sent[name], self.now - self.numbers.random()
        frame = Frame(name, seq, taken, camera.live)
        camera.offered, camera.asked = False, None
        camera.unresolved.append(frame)
        camera.waiting.append(frame)
        totals = Totals(seq, 0, 0, seq)
        self.same(self.it.frame(name, arrived(seq, taken), "pixels", totals, self.now), self.plain.pump(self.now))

    def silent(self) -> None:
        name = self.numbers.choice(list(self.sent))
        self.it.silent(name)
        self.plain.cameras[name].offered, self.plain.cameras[name].asked = False, None

    def forget(self) -> None:
        name = self.numbers.choice(list(self.sent))
        if not self.plain.cameras[name].unresolved and len(self.sent) > 1:
            self.it.left(name)
            self.it.forget(name)
            del self.plain.cameras[name], self.sent[name]

    def ready(self) -> None:
        if len(self.plain.workers) < 5:
            self.named += 1
            name = f"w{self.named}"
            most = self.numbers.choice([1, 1, 3])
            self.plain.workers[name] = Worker(self.now, most)
            self.same(self.it.ready(name, self.now, most), self.plain.pump(self.now))

    def held(self) -> tuple[str, int] | None:
        held = [(name, ticket) for name, worker in self.plain.workers.items() for ticket in worker.held]
        return self.numbers.choice(held) if held else None

    def done(self) -> None:
        if held := self.held():
            name, ticket = held
            worker = self.plain.workers[name]
            frame, _ = worker.held.pop(ticket)
            worker.idle_since = self.now
            texts = self.plain.resolve(frame, "done") + self.plain.pump(self.now)
            self.same(self.it.done(name, ticket, "done", "", None, self.now), texts)

    def returned(self) -> None:
        if held := self.held():
            name, ticket = held
            self.plain.take_back(name, ticket)
            self.plain.workers[name].idle_since = self.now
            self.same(self.it.returned(name, ticket, self.now), self.plain.pump(self.now))

    def gone(self) -> None:
        if self.plain.workers:
            name = self.numbers.choice(list(self.plain.workers))
            texts = self.plain.give_up(name) + self.plain.pump(self.now)
            self.same(self.it.gone(name, "silent", self.now), texts)

    def ended(self) -> None:
        if self.plain.workers:
            name = self.numbers.choice(list(self.plain.workers))
            for ticket in sorted(self.plain.workers[name].held, reverse=True):
                self.plain.take_back(name, ticket)
            del self.plain.workers[name]
            self.same(self.it.ended(name, self.now), self.plain.pump(self.now))

    def tick(self) -> None:
        self.now += self.numbers.choice([0.001, 0.1, 0.6])
        late = [
            name
            for name, worker in self.plain.workers.items()
            if any(self.now > deadline for _, deadline in worker.held.values())
        ]
        texts = [text for name in late for text in self.plain.give_up(name)]
        self.same(self.it.tick(self.now), texts + self.plain.pump(self.now))

    def step(self) -> None:
        actions = {
            self.offer: 16, self.frame: 8, self.done: 8, self.tick: 4, self.ready: 1,
            self.join: 0.5, self.silent: 0.5, self.gone: 0.3, self.ended: 0.2, self.returned: 0.3, self.forget: 0.2,
        }  # fmt: skip
        self.numbers.choices(list(actions), list(actions.values()))[0]()


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32))
def test_decisions_are_those_of_the_plain_rules(seed: int) -> None:
    pair = Pair(random.Random(seed))
    pair.join()
    for _ in range(300):
        pair.step()


def lines(cameras: int, frames: int = 300) -> int:
    """Return how many lines of the aggregator's code are run for so many frames of cameras that always have one."""
    it, count, now = Dispatcher(SETTINGS, DEPTH), 0, 100.0
    sent = {f"camera-{number:02}": 0 for number in range(cameras)}
    assigned: list[Assign] = []
    folder = str(Path(fer_stream.aggregator.__file__).parent)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(folder):
            return None
        count += event == "line"
        return trace

    def offer(name: str) -> list[Command]:
        return it.offer(name, Totals(sent[name] + 1, 0, 0, sent[name]), True, now)

    for name in sent:
        it.joined(name, "drop_oldest", Totals(), {}, now)
        offer(name)
    commands = [command for number in range(4) for command in it.ready(f"w{number}", now)]
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in range(frames):
            now += 0.01
            while commands:
                command = commands.pop(0)
                if isinstance(command, Ask):
                    name = command.camera
                    sent[name] += 1
                    totals = Totals(sent[name], 0, 0, sent[name])
                    commands += it.frame(name, arrived(sent[name], now), "pixels", totals, now)
                    commands += offer(name)
                elif isinstance(command, Assign):
                    assigned.append(command)
            done = assigned.pop(0)
            commands += it.done(done.worker, done.ticket, "done", "", None, now)
    finally:
        sys.settrace(before)
    return count


def test_the_work_a_frame_does_not_grow_with_the_cameras() -> None:
    assert lines(64) <= 1.3 * lines(4)
