"""Random simulation: a dispatcher with simulated captures, workers and links that fail and restart."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from arrivals import arrived
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.aggregator.dispatcher import Ask, Assign, Dispatcher, Fence, Release
from fer_stream.protocol.messages import Totals
from fer_stream.settings.tree import DispatchSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fer_stream.aggregator.dispatcher import Command, Item
    from fer_stream.settings.kinds import Policy

SETTINGS = DispatchSettings(deadline=2.0, max_age=1.0, silence=1.5, transfer=0.5)


@dataclass
class Capture:
    """A capture with one slot, and a link that keeps the order of messages and may break."""

    policy: Policy
    totals: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # captured, superseded, rejected, sent
    slot: int | None = None
    seq: int = 0
    nexts: int = 0
    told: dict[str, int] = field(default_factory=dict)
    link: deque[tuple[str, int, Totals]] = field(default_factory=deque)
    fates: Counter[str] = field(default_factory=Counter)

    def figures(self) -> Totals:
        return Totals(*self.totals)

    def grab(self) -> None:
        if self.slot is not None and self.policy == "wait":
            return
        self.totals[0] += 1
        self.totals[1] += self.slot is not None
        self.seq += 1
        self.slot = self.seq

    def refuse(self) -> None:
        self.totals[0] += 1
        self.totals[2] += 1

    def send(self) -> None:
        if self.slot is None:
            return
        self.totals[3] += 1
        self.link.append(("frame", self.slot, self.figures()))
        self.slot = None

    def offer(self) -> None:
        self.link.append(("offer", int(self.slot is not None), self.figures()))


@dataclass
class Worker:
    most: int
    held: dict[int, Item] = field(default_factory=dict)
    mute: bool = False

    def room(self) -> int:
        return 0 if any(item.policy == "wait" for item in self.held.values()) else self.most - len(self.held)


class World:
    """The environment of a dispatcher. ``numbers`` picks each event; every invariant is checked after each step."""

    def __init__(self, numbers: random.Random) -> None:
        self.numbers = numbers
        self.now = 100.0
        self.depth = numbers.randint(1, 4)
        self.captures: dict[str, Capture] = {}
        self.workers: dict[str, Worker] = {}
        self.named = 0
        self.aggregator()

    def aggregator(self) -> None:
        """Start a new aggregator. Captures return the outcomes that they were sent, and workers join again."""
        self.dispatcher = Dispatcher(SETTINGS, self.depth)
        self.waiting: list[Assign] = []  # answers not delivered yet, also of dead workers
        self.answered: set[int] = set()
        self.released: dict[str, tuple[int, int]] = {}
        self.lost_questions: Counter[str] = Counter()  # requests repeated although the first may still be answered
        before, self.workers = self.workers, {}
        for name, capture in self.captures.items():
            capture.link.clear()
            capture.nexts = 0
            self.enter(name)
        for worker in before:
            self.ready(worker)

    # Peers

    def enter(self, name: str) -> None:
        capture = self.captures[name]
        self.do(self.dispatcher.joined(name, capture.policy, capture.figures(), capture.told, self.now))

    def ready(self, worker: str) -> None:
        self.workers[worker] = Worker(self.numbers.choice([1, 1, 4]))
        self.do(self.dispatcher.ready(worker, self.now, self.workers[worker].most))

    def do(self, commands: list[Command]) -> None:
        todo = deque(commands)
        while todo:
            match todo.popleft():
                case Ask(name):
                    capture = self.captures[name]
                    assert any(worker.room() for worker in self.workers.values())
                    assert len(self.dispatcher.cameras[name].unresolved) < self.depth
                    under_way = any(kind == "frame" for kind, _, _ in capture.link)
                    self.lost_questions[name] += bool(capture.nexts or under_way)
                    capture.nexts += 1
                    capture.told = self.dispatcher.cameras[name].reported()
                case Assign(name, ticket, item) as assign:
                    worker = self.workers[name]
                    assert worker.room(), "a worker holds no more frames than it takes"
                    assert item.policy != "wait" or not worker.held, "a frame under wait is alone"
                    assert item.outcome is None
                    if self.numbers.random() < 0.03:
                        unsent = [each for each in todo if isinstance(each, Assign) and each.worker == name]
                        todo = deque(each for each in todo if each not in unsent)
                        tickets = [ticket, *(each.ticket for each in unsent)]
                        todo.extend(self.dispatcher.unreachable(name, tickets, self.now))
                    else:
                        worker.held[ticket] = item
                        self.waiting.append(assign)
                case Fence(name, _):
                    del self.workers[name]
                case Release(item):
                    place = (item.session, item.arrival.frame)
                    assert self.released.get(item.camera, (-1, 0)) < place, "released in order of capture"
                    self.released[item.camera] = place
                    assert item.outcome is not None
                    if item.policy == "wait":
                        assert item.outcome == "done" or item.reason in ("corrupt", "poisoned"), "nothing is lost"
                        assert item.reason != "poisoned" or item.tries == 2
                    assert item.tries <= (2 if item.policy == "wait" else 1)
                    assert (item.result is not None) == (item.outcome == "done" or item.reason == "corrupt")

    # Events

    def step(self) -> None:
        actions = {
            self.grab: 8,
            self.deliver: 16,
            self.answer: 6,
            self.pass_time: 4,
            self.stall: 1,
            self.late_answer: 1,
            self.kill_worker: 0.5,
            self.mute_worker: 0.3,
            self.new_worker: 1,
            self.new_capture: 0.4,
            self.restart_capture: 0.3,
            self.leave: 0.1,
            self.go_silent: 0.2,
            self.break_link: 0.2,
            self.aggregator: 0.1,
        }
        self.numbers.choices(list(actions), list(actions.values()))[0]()
        self.look()

    def some(self, names: Iterable[str]) -> str | None:
        known = sorted(names)
        return self.numbers.choice(known) if known else None

    def grab(self) -> None:
        name = self.some(self.captures)
        if name:
            capture = self.captures[name]
            capture.grab() if self.numbers.random() < 0.9 else capture.refuse()
            capture.offer()

    def deliver(self) -> None:
        """Deliver a NEXT to a capture, or the oldest message of a capture to the dispatcher."""
        name = self.some(self.captures)
        if not name:
            return
        capture = self.captures[name]
        if capture.nexts and self.numbers.random() < 0.6:
            capture.nexts -= 1
            capture.send()
        elif capture.link:
            kind, value, totals = capture.link.popleft()
            if kind == "frame":
                taken = self.now - self.numbers.choice([0.0, 0.1, 0.9])
                self.do(self.dispatcher.frame(name, arrived(value, taken), object(), totals, self.now))
            else:
                self.do(self.dispatcher.offer(name, totals, bool(value), self.now))

    def answer(self) -> None:
        known = [a for a in self.waiting if a.worker in self.workers and not self.workers[a.worker].mute]
        if known:
            self.say(self.numbers.choice(known))

    def late_answer(self) -> None:
        """Deliver an answer of a worker that was given up, or one answer twice."""
        if self.waiting:
            self.say(self.numbers.choice(self.waiting), again=True)

    def say(self, assign: Assign, again: bool = False) -> None:
        worker = self.workers.get(assign.worker)
        counts = worker is not None and assign.ticket in worker.held
        corrupt = self.numbers.random() < 0.1
        if worker is not None and counts:
            del worker.held[assign.ticket]
            assert assign.ticket not in self.answered, "no ticket is answered twice"
            self.answered.add(assign.ticket)
        before = {name: self.dispatcher.cameras[name].ledger().as_dict() for name in self.captures}
        outcome: Any = "rejected" if corrupt else "done"
        commands = self.dispatcher.done(
            assign.worker, assign.ticket, outcome, "corrupt" if corrupt else "", "seen", self.now
        )
        if not counts:
            assert commands == [], "a late answer changes nothing"
            assert before == {name: self.dispatcher.cameras[name].ledger().as_dict() for name in self.captures}
        self.do(commands)
        if not again:
            self.waiting.remove(assign)

    def pass_time(self) -> None:
        self.now += self.numbers.choice([0.01, 0.1, 0.3])
        for name, worker in list(self.workers.items()):
            if not worker.mute:
                assert self.dispatcher.heard(name, self.now)
        self.do(self.dispatcher.tick(self.now))

    def stall(self) -> None:
        """A long time without a tick, in which workers send heartbeats."""
        for _ in range(3):
            self.now += 0.8
            for name, worker in list(self.workers.items()):
                if not worker.mute:
                    self.dispatcher.heard(name, self.now)
        self.do(self.dispatcher.tick(self.now))
        for worker in self.workers.values():
            assert not worker.mute, "a silent worker is given up"

    def kill_worker(self) -> None:
        name = self.some(self.workers)
        if name:
            self.do(self.dispatcher.gone(name, "ended", self.now))
            assert name not in self.workers

    def mute_worker(self) -> None:
        name = self.some(self.workers)
        if name:
            self.workers[name].mute = True

    def new_worker(self) -> None:
        if len(self.workers) < 4:
            self.named += 1
            self.ready(f"w{self.named}")

    def new_capture(self) -> None:
        if len(self.captures) < 3:
            name = f"c{len(self.captures)}"
            self.captures[name] = Capture(self.numbers.choice(["wait", "drop_oldest"]))
            self.enter(name)

    def restart_capture(self) -> None:
        name = self.some(self.captures)
        if name:
            self.captures[name] = Capture(self.numbers.choice(["wait", "drop_oldest"]))
            self.enter(name)

    def leave(self) -> None:
        """A capture ends, and another one joins under its name."""
        name = self.some(self.captures)
        if name:
            self.dispatcher.left(name)
            assert self.dispatcher.cameras[name].ledger().balanced()
            self.captures[name] = Capture("drop_oldest")
            self.enter(name)

    def go_silent(self) -> None:
        name = self.some(self.captures)
        if name:
            self.dispatcher.silent(name)

    def break_link(self) -> None:
        """Lose all messages of a link. Only of live cameras: a loss under ``wait`` is a failure."""
        name = self.some(self.captures)
        if name and self.captures[name].policy == "drop_oldest":
            self.captures[name].link.clear()
            self.captures[name].nexts = 0

    # Invariants

    def look(self) -> None:
        held = Counter(item.camera for worker in self.workers.values() for item in worker.held.values())
        for name in self.captures:
            ledger = self.dispatcher.cameras[name].ledger()
            assert ledger.balanced(), ledger
            assert min(ledger.as_dict().values()) >= 0, ledger
            unresolved = len(self.dispatcher.cameras[name].unresolved)
            assert held[name] <= unresolved <= ledger.in_flight <= unresolved + 1
            assert unresolved <= self.depth + self.lost_questions[name]
        states = {name: credit.state for name, credit in self.dispatcher.workers.items()}
        assert states == {name: "busy" if worker.held else "idle" for name, worker in self.workers.items()}

    def settle(self) -> None:
        """Capture nothing more, and process all frames; in the end none is in flight."""
        for worker in self.workers.values():
            worker.mute = False
        if not self.workers:
            self.new_worker()
        for _ in range(400):
            for name, capture in self.captures.items():
                capture.offer()
                while capture.nexts:
                    capture.nexts -= 1
                    capture.send()
                while capture.link:
                    kind, value, totals = capture.link.popleft()
                    if kind == "frame":
                        self.do(self.dispatcher.frame(name, arrived(value, self.now), object(), totals, self.now))
                    else:
                        self.do(self.dispatcher.offer(name, totals, bool(value), self.now))
            for assign in list(self.waiting):
                self.say(assign)
            self.pass_time()
            self.look()
            if not self.workers:
                self.new_worker()
            if not any(self.dispatcher.cameras[name].ledger().in_flight for name in self.captures):
                return
        raise AssertionError(f"frames are stuck: {[self.dispatcher.cameras[name].ledger() for name in self.captures]}")


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32), st.integers(20, 400))
def test_every_frame_is_accounted_for(seed: int, steps: int) -> None:
    world = World(random.Random(seed))
    world.new_capture()
    world.new_worker()
    for _ in range(steps):
        world.step()
    world.settle()
    for name, capture in world.captures.items():
        ledger = world.dispatcher.cameras[name].ledger()
        told = world.dispatcher.cameras[name].reported()
        assert sum(told.values()) == capture.totals[3], "each frame sent has one fate"
        assert ledger.resolved() >= sum(told.values())
        if capture.policy == "wait" and "lost_link" not in capture.told:
            assert told.keys() <= {"done", "rejected_corrupt", "rejected_poisoned", "lost_link"}


def test_a_camera_that_waits_loses_nothing_while_workers_come_and_go() -> None:
    world = World(random.Random(5))
    world.captures["file"] = Capture("wait")
    world.enter("file")
    for _ in range(3000):
        world.numbers.choice(
            [world.grab, world.deliver, world.deliver, world.answer, world.pass_time, world.new_worker]
        )()
        if world.numbers.random() < 0.01:
            world.kill_worker()
        world.look()
    world.settle()
    told = world.dispatcher.cameras["file"].reported()
    assert told.keys() <= {"done", "rejected_corrupt", "rejected_poisoned"}
    assert told["done"] > 100
