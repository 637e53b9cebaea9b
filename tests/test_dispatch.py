"""Who gets which frame, and what became of every one: rules by example, then a simulation of all that can happen.

The simulation plays captures, workers, links and aggregators; the dispatcher only hears what they would tell it.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.config import DispatchSettings
from fer_stream.dispatch import Ask, Assign, Dispatcher, Fence, Ledger, Release
from fer_stream.wire import Totals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fer_stream.config import Policy
    from fer_stream.dispatch import Command, Item

SETTINGS = DispatchSettings(deadline=2.0, max_age=1.0, silence=1.5)


class Desk:
    """A dispatcher with short names: what it is told, and the commands it gave, by kind."""

    def __init__(self, depth: int = 4) -> None:
        self.it = Dispatcher(SETTINGS, depth)
        self.now = 0.0
        self.sent: Counter[str] = Counter()

    def join(self, camera: str = "door", policy: Policy = "drop_oldest", **told: int) -> list[Command]:
        return self.it.joined(camera, policy, Totals(), told, self.now)

    def offer(self, camera: str = "door", full: bool = True) -> list[Command]:
        sent = self.sent[camera]
        return self.it.offer(camera, Totals(captured=sent + full, sent=sent), full, self.now)

    def frame(self, camera: str = "door", refused: str = "") -> list[Command]:
        self.sent[camera] += 1
        sent = self.sent[camera]
        return self.it.frame(camera, sent, f"{camera} {sent}", self.now, Totals(sent, 0, 0, sent), self.now, refused)

    def done(self, assign: Command, outcome: Any = "done", reason: str = "") -> list[Command]:
        assert isinstance(assign, Assign)
        return self.it.done(assign.worker, assign.ticket, outcome, reason, f"of {assign.item.seq}", self.now)


def shown(commands: Iterable[Command]) -> list[str]:
    texts = []
    for command in commands:
        match command:
            case Ask(camera):
                texts.append(f"ask {camera}")
            case Assign(worker, _, item):
                texts.append(f"{worker} gets {item.camera} {item.seq}")
            case Fence(worker, reason):
                texts.append(f"fence {worker} {reason}")
            case Release(item):
                texts.append(f"release {item.camera} {item.seq} {' '.join(filter(None, (item.outcome, item.reason)))}")
    return texts


# Captures


def test_a_capture_is_asked_only_when_a_worker_is_idle() -> None:
    desk = Desk()
    assert desk.join() == []
    assert desk.offer() == []
    assert shown(desk.it.ready("w1", 0)) == ["ask door"]
    assert desk.offer() == [], "it was asked, and is about to send"
    assert shown(desk.frame()) == ["w1 gets door 1"]
    assert desk.offer() == [], "nobody is idle"


def test_a_question_that_was_lost_is_asked_again() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    assert shown(desk.offer()) == ["ask door"]
    desk.now = 0.4
    assert desk.offer() == []
    desk.now = 0.6
    assert shown(desk.offer()) == ["ask door"]


def test_a_capture_that_does_not_answer_keeps_no_worker_waiting() -> None:
    desk = Desk()
    desk.join("door")
    desk.join("gate")
    desk.it.ready("w1", 0)
    assert shown(desk.offer("door")) == ["ask door"]
    assert desk.offer("gate") == []
    assert shown(desk.it.tick(0.6)) == ["ask gate"]


def test_the_camera_longest_unserved_is_asked_first() -> None:
    desk = Desk()
    for camera in ("a", "b", "c"):
        desk.join(camera)
        desk.offer(camera)
    served = []
    (ask,) = desk.it.ready("w1", 0)
    for desk.now in range(1, 10):
        assert isinstance(ask, Ask)
        served.append(ask.camera)
        (assign,) = desk.frame(ask.camera)
        for camera in ("a", "b", "c"):
            desk.offer(camera)
        *_, ask = desk.done(assign)
    assert served == ["a", "b", "c"] * 3


def test_no_more_than_depth_frames_of_one_camera_are_under_way() -> None:
    desk = Desk(depth=2)
    desk.join()
    for worker in ("w1", "w2", "w3"):
        desk.it.ready(worker, 0)
    assigns = []
    for _ in range(2):
        assert shown(desk.offer()) == ["ask door"]
        assigns += desk.frame()
    assert desk.offer() == []
    assert desk.it.unresolved("door") == 2
    assert shown(desk.done(assigns[1])) == [], "the older one is not resolved: this one still counts"
    assert shown(desk.done(assigns[0])) == ["release door 1 done", "release door 2 done", "ask door"]


def test_one_who_was_silent_is_asked_only_after_a_new_offer() -> None:
    desk = Desk()
    desk.join()
    desk.offer()
    desk.it.silent("door")
    assert desk.it.ready("w1", 0) == []
    assert shown(desk.offer()) == ["ask door"]


# Workers


def test_the_worker_longest_idle_gets_the_frame() -> None:
    desk = Desk()
    desk.join()
    for desk.now, worker in enumerate(["w2", "w1", "w3"]):
        desk.it.ready(worker, desk.now)
    got = []
    for desk.now in range(5, 11):
        (assign,) = (command for command in desk.frame() if isinstance(command, Assign))
        got.append(assign.worker)
        desk.done(assign)
    assert got == ["w2", "w1", "w3"] * 2


def test_a_worker_holds_one_frame_at_a_time() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    (first,) = desk.frame()
    assert desk.frame() == []
    assert desk.it.workers() == {"w1": ("busy", 0)}
    commands = desk.done(first)
    assert shown(commands) == ["release door 1 done", "w1 gets door 2"]
    desk.done(commands[1])
    assert desk.it.workers() == {"w1": ("idle", 2)}


def test_frames_are_released_in_order_with_their_results() -> None:
    desk = Desk()
    desk.join()
    for worker in ("w1", "w2", "w3"):
        desk.it.ready(worker, 0)
    one, two, three = (desk.frame()[0] for _ in range(3))
    assert desk.done(three) == []
    assert desk.done(two, "rejected", "corrupt") == []
    released = [command.item for command in desk.done(one) if isinstance(command, Release)]
    assert [(item.seq, item.outcome, item.reason, item.result) for item in released] == [
        (1, "done", "", "of 1"),
        (2, "rejected", "corrupt", "of 2"),
        (3, "done", "", "of 3"),
    ]
    assert desk.it.ledger("door").as_dict() == {
        "captured": 3,
        "done": 2,
        "superseded": 0,
        "rejected": 1,
        "rejected_corrupt": 1,
        "expired": 0,
        "lost_worker": 0,
        "lost_link": 0,
        "in_flight": 0,
    }


def test_a_late_or_invented_answer_changes_nothing() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    (assign,) = desk.frame()
    assert desk.it.done("w1", assign.ticket + 1, "done", "", None, 0) == []
    assert desk.it.done("nobody", assign.ticket, "done", "", None, 0) == []
    assert shown(desk.done(assign)) == ["release door 1 done"]
    assert desk.done(assign) == []
    assert desk.it.ledger("door").done == 1


def test_live_a_dead_worker_s_frame_is_lost() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    (assign,) = desk.frame()
    assert shown(desk.it.gone("w1", "ended", 0)) == ["fence w1 ended", "release door 1 lost_worker"]
    assert desk.it.gone("w1", "ended", 0) == []
    assert desk.done(assign) == []
    assert desk.it.ledger("door").lost_worker == 1


def test_under_wait_a_dead_worker_s_frame_goes_to_another_one_once() -> None:
    desk = Desk()
    desk.join(policy="wait")
    desk.it.ready("w1", 0)
    desk.frame()
    desk.it.ready("w2", 0)
    assert shown(desk.it.gone("w1", "silent", 0)) == ["fence w1 silent", "w2 gets door 1"]
    desk.frame()
    assert shown(desk.it.gone("w2", "silent", 0)) == ["fence w2 silent", "release door 1 rejected poisoned"]
    assert shown(desk.it.ready("w3", 0)) == ["w3 gets door 2"]
    assert desk.it.ledger("door").rejected == {"poisoned": 1}


def test_a_worker_that_cannot_be_reached_is_no_mark_against_the_frame() -> None:
    for policy in ("wait", "drop_oldest"):
        desk = Desk()
        desk.join(policy=policy)  # type: ignore[arg-type]
        desk.frame()
        for number in range(5):
            desk.it.ready(f"w{number}", 0)
            assert shown(desk.it.unreachable(f"w{number}", 0)) == [f"fence w{number} unreachable"]
        commands = desk.it.ready("w9", 0)
        assert shown(commands) == ["w9 gets door 1"]
        assert shown(desk.done(commands[0])) == ["release door 1 done"]


def test_a_frame_that_a_worker_cannot_open_is_given_out_again() -> None:
    for policy in ("wait", "drop_oldest"):
        desk = Desk()
        desk.join(policy=policy)  # type: ignore[arg-type]
        desk.frame()
        commands = desk.it.ready("w1", 0)
        assign = commands[0]
        assert isinstance(assign, Assign)
        assert desk.it.returned("w1", assign.ticket + 1, 0) == [], "an answer to another frame"
        for _ in range(5):
            commands = desk.it.returned("w1", assign.ticket, 0)
            assert shown(commands) == ["w1 gets door 1"]
            assign = commands[0]
            assert isinstance(assign, Assign)
            assert assign.item.tries == 1
        assert desk.it.returned("w2", assign.ticket, 0) == []
        assert shown(desk.done(assign)) == ["release door 1 done"]


def test_silence_and_deadlines_end_a_worker() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("slow", 0)
    desk.frame()
    desk.it.ready("mute", 0)
    for now in (1.0, 1.4):
        assert desk.it.heard("slow", now)
        assert desk.it.tick(now) == []
    assert shown(desk.it.tick(1.6)) == ["fence mute silent"]
    assert not desk.it.heard("mute", 1.6)
    assert desk.it.heard("slow", 1.9)
    assert desk.it.tick(2.0) == []
    assert shown(desk.it.tick(2.1)) == ["fence slow deadline", "release door 1 lost_worker"]


def test_a_live_frame_that_nobody_took_expires_and_a_waiting_one_does_not() -> None:
    desk = Desk()
    desk.join("live")
    desk.join("file", policy="wait")
    desk.frame("live")
    desk.frame("file")
    assert desk.it.tick(1.0) == []
    assert shown(desk.it.tick(1.1)) == ["release live 1 expired"]
    assert shown(desk.it.ready("w1", 1.1)) == ["w1 gets file 1"]


def test_a_frame_can_be_refused_at_once() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    assert shown(desk.frame(refused="limit")) == ["release door 1 rejected limit"]
    assert desk.it.told("door") == {"rejected_limit": 1}


def test_of_two_dead_workers_the_second_is_not_given_the_first_one_s_frame() -> None:
    """Killed together, they are found silent together; the frame was in one pair of hands only."""
    desk = Desk()
    desk.join(policy="wait")
    desk.it.ready("w1", 0)
    desk.frame()
    desk.it.ready("w2", 0)
    assert shown(desk.it.tick(1.6)) == ["fence w1 silent", "fence w2 silent"]
    commands = desk.it.ready("w3", 1.6)
    assert shown(commands) == ["w3 gets door 1"]
    assert shown(desk.done(commands[0])) == ["release door 1 done"]


# Totals and takeovers


def test_what_was_sent_and_is_not_here_is_lost_on_the_link() -> None:
    desk = Desk()
    desk.join()
    desk.it.offer("door", Totals(captured=9, superseded=3, rejected=1, sent=4), full=True, now=0)
    ledger = desk.it.ledger("door")
    assert (ledger.captured, ledger.superseded, ledger.rejected, ledger.lost_link) == (9, 3, {"limit": 1}, 4)
    assert ledger.in_flight == 1
    assert ledger.balanced()


def test_a_new_capture_goes_on_with_the_camera_s_ledger() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    (assign,) = desk.frame()
    desk.it.offer("door", Totals(captured=4, superseded=2, sent=1), full=True, now=0)
    desk.sent.clear()
    desk.join()
    assert desk.it.ledger("door").lost_link == 1, "what lay in the dead one's slot"
    assert desk.it.told("door") == {}
    desk.done(assign)
    assert desk.it.told("door") == {}, "that frame was another capture's"
    ledger = desk.it.ledger("door")
    assert (ledger.captured, ledger.done, ledger.superseded, ledger.in_flight) == (4, 1, 2, 0)


def test_a_new_aggregator_knows_from_the_capture_what_was_and_loses_the_rest() -> None:
    desk = Desk()
    told = {"done": 5, "lost_worker": 1, "rejected_corrupt": 2}
    desk.it.joined("door", "wait", Totals(captured=12, superseded=1, sent=10), told, 0)
    ledger = desk.it.ledger("door")
    assert (ledger.done, ledger.lost_worker, ledger.rejected, ledger.lost_link) == (5, 1, {"corrupt": 2}, 2)
    assert ledger.in_flight == 1
    assert ledger.balanced()
    assert desk.it.told("door") == told | {"lost_link": 2}


def test_leaving_twice_books_once() -> None:
    desk = Desk()
    desk.it.left("unknown")
    desk.join()
    desk.it.offer("door", Totals(captured=3, superseded=1, rejected=1), full=True, now=0)
    for _ in range(2):
        desk.it.left("door")
        assert desk.it.ledger("door").as_dict()["lost_link"] == 1
        assert desk.it.ledger("door").captured == 3


def test_a_ledger_that_does_not_add_up_is_not_balanced() -> None:
    assert Ledger().balanced()
    assert not Ledger(captured=1).balanced()
    assert Ledger(captured=2, rejected={"corrupt": 1}, in_flight=1).balanced()
    original = Ledger(rejected={"corrupt": 1})
    original.copy().count("rejected", "corrupt")
    assert original.rejected == {"corrupt": 1}


# The simulation


@dataclass
class Capture:
    """One slot, overwritten or waited for; what it sends goes through a link that keeps the order and may break."""

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
    ticket: int | None = None
    item: Item | None = None
    mute: bool = False


class World:
    """Everything around a dispatcher. ``numbers`` decides what happens; after each step all promises are looked at."""

    def __init__(self, numbers: random.Random) -> None:
        self.numbers = numbers
        self.now = 100.0
        self.depth = numbers.randint(1, 4)
        self.captures: dict[str, Capture] = {}
        self.workers: dict[str, Worker] = {}
        self.named = 0
        self.aggregator()

    def aggregator(self) -> None:
        """Start a new one; captures tell it what the one before had told them, workers come again."""
        self.dispatcher = Dispatcher(SETTINGS, self.depth)
        self.waiting: list[Assign] = []  # answers under way, of workers alive or dead
        self.answered: set[int] = set()
        self.released: dict[str, tuple[int, int]] = {}
        self.lost_questions: Counter[str] = Counter()  # taken for lost, though they may still be answered
        before, self.workers = self.workers, {}
        for name, capture in self.captures.items():
            capture.link.clear()
            capture.nexts = 0
            self.enter(name)
        for worker in before:
            self.ready(worker)

    # Those around it

    def enter(self, name: str) -> None:
        capture = self.captures[name]
        self.do(self.dispatcher.joined(name, capture.policy, capture.figures(), capture.told, self.now))

    def ready(self, worker: str) -> None:
        self.workers[worker] = Worker()
        self.do(self.dispatcher.ready(worker, self.now))

    def do(self, commands: list[Command]) -> None:
        todo = deque(commands)
        while todo:
            match todo.popleft():
                case Ask(name):
                    capture = self.captures[name]
                    assert any(worker.item is None for worker in self.workers.values())
                    assert self.dispatcher.unresolved(name) < self.depth
                    under_way = any(kind == "frame" for kind, _, _ in capture.link)
                    self.lost_questions[name] += bool(capture.nexts or under_way)
                    capture.nexts += 1
                    capture.told = self.dispatcher.told(name)
                case Assign(name, ticket, item) as assign:
                    worker = self.workers[name]
                    assert worker.item is None, "a worker holds one frame at a time"
                    assert item.outcome is None
                    if self.numbers.random() < 0.03:
                        todo.extend(self.dispatcher.unreachable(name, self.now))
                    else:
                        worker.ticket, worker.item = ticket, item
                        self.waiting.append(assign)
                case Fence(name, _):
                    del self.workers[name]
                case Release(item):
                    place = (item.session, item.seq)
                    assert self.released.get(item.camera, (-1, 0)) < place, "released in order of capture"
                    self.released[item.camera] = place
                    assert item.outcome is not None
                    if item.policy == "wait":
                        assert item.outcome == "done" or item.reason in ("corrupt", "poisoned"), "nothing is lost"
                        assert item.reason != "poisoned" or item.tries == 2
                    assert item.tries <= (2 if item.policy == "wait" else 1)
                    assert (item.result is not None) == (item.outcome == "done" or item.reason == "corrupt")

    # What can happen

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
        """Carry a NEXT to a capture, or the oldest of what a capture sent to the dispatcher."""
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
                self.do(self.dispatcher.frame(name, value, object(), taken, totals, self.now))
            else:
                self.do(self.dispatcher.offer(name, totals, bool(value), self.now))

    def answer(self) -> None:
        known = [a for a in self.waiting if a.worker in self.workers and not self.workers[a.worker].mute]
        if known:
            self.say(self.numbers.choice(known))

    def late_answer(self) -> None:
        """Of a worker that was given up, or a second time."""
        if self.waiting:
            self.say(self.numbers.choice(self.waiting), again=True)

    def say(self, assign: Assign, again: bool = False) -> None:
        worker = self.workers.get(assign.worker)
        counts = worker is not None and worker.ticket == assign.ticket and worker.item is not None
        corrupt = self.numbers.random() < 0.1
        if worker is not None and counts:
            worker.item = None
            assert assign.ticket not in self.answered, "no ticket is answered twice"
            self.answered.add(assign.ticket)
        before = {name: self.dispatcher.ledger(name).as_dict() for name in self.captures}
        outcome: Any = "rejected" if corrupt else "done"
        commands = self.dispatcher.done(
            assign.worker, assign.ticket, outcome, "corrupt" if corrupt else "", "seen", self.now
        )
        if not counts:
            assert commands == [], "a late answer changes nothing"
            assert before == {name: self.dispatcher.ledger(name).as_dict() for name in self.captures}
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
        """A long time without a tick, in which workers were heard."""
        for _ in range(3):
            self.now += 0.8
            for name, worker in list(self.workers.items()):
                if not worker.mute:
                    self.dispatcher.heard(name, self.now)
        self.do(self.dispatcher.tick(self.now))
        for worker in self.workers.values():
            assert not worker.mute, "who is silent is given up"

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
        """A capture ends; under its name comes a new one."""
        name = self.some(self.captures)
        if name:
            self.dispatcher.left(name)
            assert self.dispatcher.ledger(name).balanced()
            self.captures[name] = Capture("drop_oldest")
            self.enter(name)

    def go_silent(self) -> None:
        name = self.some(self.captures)
        if name:
            self.dispatcher.silent(name)

    def break_link(self) -> None:
        """What was under way is gone; only a live camera's, for the simulation counts what wait loses as a fault."""
        name = self.some(self.captures)
        if name and self.captures[name].policy == "drop_oldest":
            self.captures[name].link.clear()
            self.captures[name].nexts = 0

    # What must hold

    def look(self) -> None:
        held = Counter(worker.item.camera for worker in self.workers.values() if worker.item is not None)
        for name in self.captures:
            ledger = self.dispatcher.ledger(name)
            assert ledger.balanced(), ledger
            assert min(ledger.as_dict().values()) >= 0, ledger
            unresolved = self.dispatcher.unresolved(name)
            assert held[name] <= unresolved <= ledger.in_flight <= unresolved + 1
            assert unresolved <= self.depth + self.lost_questions[name]
        states = self.dispatcher.workers()
        assert {name: state for name, (state, _) in states.items()} == {
            name: "idle" if worker.item is None else "busy" for name, worker in self.workers.items()
        }

    def settle(self) -> None:
        """Nothing more is captured, and everything that is there goes its way: then nothing is in flight."""
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
                        self.do(self.dispatcher.frame(name, value, object(), self.now, totals, self.now))
                    else:
                        self.do(self.dispatcher.offer(name, totals, bool(value), self.now))
            for assign in list(self.waiting):
                self.say(assign)
            self.pass_time()
            self.look()
            if not self.workers:
                self.new_worker()
            if not any(self.dispatcher.ledger(name).in_flight for name in self.captures):
                return
        raise AssertionError(f"frames are stuck: {[self.dispatcher.ledger(name) for name in self.captures]}")


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32), st.integers(20, 400))
def test_whatever_happens_every_frame_is_accounted_for(seed: int, steps: int) -> None:
    world = World(random.Random(seed))
    world.new_capture()
    world.new_worker()
    for _ in range(steps):
        world.step()
    world.settle()
    for name, capture in world.captures.items():
        ledger = world.dispatcher.ledger(name)
        told = world.dispatcher.told(name)
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
    told = world.dispatcher.told("file")
    assert told.keys() <= {"done", "rejected_corrupt", "rejected_poisoned"}
    assert told["done"] > 100


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_not_done_yet_is_never_more_than_workers_and_cameras(workers: int) -> None:
    """Pixels wait at the capture, in its one slot, and not here."""
    desk = Desk(depth=8)
    for camera in ("a", "b"):
        desk.join(camera)
    for number in range(workers):
        desk.it.ready(f"w{number}", 0)
    assigned: list[Command] = []
    numbers = random.Random(1)
    for desk.now in (i / 20 for i in range(400)):
        for camera in ("a", "b"):
            for command in desk.offer(camera):
                if isinstance(command, Ask):
                    assigned += [c for c in desk.frame(command.camera) if isinstance(c, Assign)]
        under_way = sum(desk.it.unresolved(camera) for camera in ("a", "b"))
        assert len(assigned) <= workers
        assert under_way <= 16
        for number in range(workers):
            desk.it.heard(f"w{number}", desk.now)
        if assigned and numbers.random() < 0.5:
            more = desk.done(assigned.pop(numbers.randrange(len(assigned))))
            for command in more:
                if isinstance(command, Ask):
                    assigned += [c for c in desk.frame(command.camera) if isinstance(c, Assign)]


def test_pixels_are_let_go_once_a_frame_is_resolved_though_older_ones_hold_it_back() -> None:
    dispatcher = Dispatcher(DispatchSettings(), 4)
    dispatcher.joined("door", "wait", Totals(), {}, 0.0)
    for name in ("w1", "w2"):
        dispatcher.ready(name, 0.0)
    assigns = []
    for seq in (1, 2, 3):
        assigns += dispatcher.frame(
            "door", seq, f"pixels {seq}", 0.0, Totals(seq, 0, 0, seq), 0.0, about=f"frame {seq}"
        )
    first, second = (command for command in assigns if isinstance(command, Assign))
    assert dispatcher.waiting("door") == 1
    dispatcher.done(second.worker, second.ticket, "done", "", None, 0.1)
    assert dispatcher.waiting("door") == 0
    assert (second.item.frame, second.item.about) == (None, "frame 2")
    assert first.item.frame == "pixels 1"
