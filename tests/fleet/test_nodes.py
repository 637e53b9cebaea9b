"""Nodes in virtual time: machines with clocks of their own, an engine that may be away, cameras that come and go."""

from __future__ import annotations

import heapq
from itertools import count
from random import Random
from typing import TYPE_CHECKING

import pytest

from fer_stream.errors import ConfigError
from fer_stream.fleet.liveness import GAP, T
from fer_stream.fleet.nodes import STABLE, Beat, Nodes, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from scale import Scale

TICK = 0.1
LATE = 0.2
"""Most seconds for a message through the engine."""

SETTLED = T + STABLE + 2.0
"""Seconds after which everything must be as it stays: silence, or the wait of a newcomer, and some messages."""


class World:
    """A cell in virtual time."""

    def __init__(self, seed: int) -> None:
        self.numbers = Random(seed)
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.away = False
        self.machines: dict[str, Machine] = {}
        self.cameras: dict[str, str] = {}
        self.latest: dict[str, str] = {}
        """The last beat of each machine, as a new watch delivers it."""

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time, next(self._order), action))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = end

    def publish(self, machine: str, text: str) -> None:
        if self.away:
            return
        self.latest[machine] = text
        arrival = self.now + self.numbers.uniform(0.001, LATE)  # one order for all, as in a stream
        for one in self.machines.values():
            one.arrives(arrival, machine, text)

    def register(self, cameras: dict[str, str]) -> None:
        self.cameras = cameras
        for machine in self.machines.values():
            self.at(self.now + self.numbers.uniform(0, LATE), lambda machine=machine: machine.learn(cameras))

    def start(self, name: str) -> None:
        self.machines[name] = Machine(self, name)

    def kill(self, name: str) -> None:
        self.machines.pop(name).dead = True

    def holders(self) -> dict[str, list[str]]:
        return {
            camera: [name for name, machine in self.machines.items() if camera in machine.mine]
            for camera in self.cameras
        }


class Machine:
    """A node, with its own clock."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.offset, self.rate = world.numbers.uniform(0, 1e6), world.numbers.uniform(0.99, 1.01)
        self.dead = self.paused = self.leaving = False
        self.inbox: list[tuple[str, str, bool]] = []
        self.cameras = world.cameras
        self.mine: frozenset[str] = frozenset()
        self.changes = 0
        self.reached = 0.0
        self.nodes = Nodes(name, f"{world.numbers.getrandbits(64)}", 0.0, 4.0)
        for machine, text in world.latest.items():
            self.inbox.append((machine, text, False))
        world.at(world.now + world.numbers.uniform(0, TICK), self.tick)

    def clock(self) -> float:
        return self.offset + self.world.now * self.rate

    def learn(self, cameras: dict[str, str]) -> None:
        self.cameras = cameras

    def arrives(self, at: float, machine: str, text: str) -> None:
        self.reached = max(self.reached, at)  # in order
        self.world.at(self.reached, lambda: self.inbox.append((machine, text, True)))

    def tick(self) -> None:
        if self.dead:
            return
        if not self.paused:
            for machine, text, live in self.inbox:
                beat = decode(text)
                assert beat is not None
                self.nodes.hear(machine, beat, live, self.clock())
            self.inbox = []
            beat = self.nodes.beat(len(self.mine), self.leaving, self.clock())
            if beat is not None:
                self.world.publish(self.name, encode(beat))
            mine = self.nodes.mine(self.cameras, self.clock())
            if mine != self.mine:
                self.mine = mine
                self.changes += 1
        self.world.at(self.world.now + TICK, self.tick)


def cell(seed: int, machines: int | None = None) -> World:
    world = World(seed)
    numbers = world.numbers
    world.cameras = {f"cam-{n}": numbers.choice(["", "", "", "m0", "attic"]) for n in range(numbers.randint(0, 40))}
    for number in range(machines or numbers.randint(1, 6)):
        world.start(f"m{number}")
    world.run(SETTLED)
    return world


def check(world: World) -> None:
    """Each camera that may be captured is captured once, and no other is."""
    for camera, holders in world.holders().items():
        pinned = world.cameras[camera]
        if pinned:
            assert holders == ([pinned] if pinned in world.machines else [])
        else:
            assert len(holders) == (1 if world.machines else 0), (camera, holders)
    for machine in world.machines.values():
        assert machine.mine <= world.cameras.keys()


def test_after_every_change_each_camera_is_captured_once(scale: Scale) -> None:
    for seed in range(scale.of(40, 1000)):
        world = cell(seed)
        check(world)
        for step in range(5):
            what = world.numbers.choice(["start", "kill", "leave", "restart", "cameras", "away"])
            names = sorted(world.machines)
            if what == "start":
                world.start(f"new-{step}")
            elif what == "kill" and len(names) > 1:
                world.kill(world.numbers.choice(names))
            elif what == "leave" and len(names) > 1:
                name = world.numbers.choice(names)
                world.machines[name].leaving = True
                world.run(1.0)
                world.kill(name)
            elif what == "restart":
                name = world.numbers.choice(names)
                world.kill(name)
                world.run(world.numbers.uniform(0, 2 * T))
                world.start(name)
            elif what == "cameras":
                kept = {camera: pin for camera, pin in world.cameras.items() if world.numbers.random() < 0.8}
                world.register(kept | {f"more-{step}-{n}": "" for n in range(world.numbers.randint(0, 5))})
            elif what == "away":
                world.away = True
                world.run(world.numbers.uniform(0, 30))
                world.away = False
            world.run(SETTLED)
            check(world)


def test_while_the_engine_is_away_everybody_keeps_what_it_has(scale: Scale) -> None:
    for seed in range(scale.of(20, 300)):
        world = cell(seed)
        before, changes = world.holders(), [machine.changes for machine in world.machines.values()]
        world.away = True
        world.run(world.numbers.uniform(0, 60))
        world.away = False
        world.run(SETTLED)
        assert world.holders() == before
        assert [machine.changes for machine in world.machines.values()] == changes, "nothing went to and fro either"


def test_a_short_pause_moves_nothing(scale: Scale) -> None:
    for seed in range(scale.of(20, 300)):
        world = cell(seed, machines=3)
        before, changes = world.holders(), {name: machine.changes for name, machine in world.machines.items()}
        for _ in range(3):
            machine = world.numbers.choice(list(world.machines.values()))
            machine.paused = True
            world.run(world.numbers.uniform(0, GAP - 0.5))
            machine.paused = False
            world.run(world.numbers.uniform(1, SETTLED))
        assert world.holders() == before
        assert {name: machine.changes for name, machine in world.machines.items()} == changes


def test_a_machine_that_comes_and_goes_gets_nothing() -> None:
    world = World(1)
    world.cameras = {f"cam-{n}": "" for n in range(20)}
    world.start("steady")
    world.run(SETTLED)
    for _ in range(5):
        world.start("restless")
        world.run(STABLE - 1.0)
        world.kill("restless")
        world.run(T + 1.0)
    assert world.machines["steady"].changes == 1
    check(world)


def test_pinned_cameras_do_not_wait_for_others() -> None:
    nodes = Nodes("here", "1", 100.0, 4.0)
    assert nodes.mine({"desk": "here", "door": "", "attic": "there"}, 0.1) == {"desk"}
    assert nodes.counting == frozenset()


def test_a_dead_machine_s_cameras_are_taken_soon() -> None:
    world = World(7)
    world.cameras = {f"cam-{n}": "" for n in range(20)}
    for name in "abc":
        world.start(name)
    world.run(SETTLED)
    world.kill("b")
    world.run(T + 1.0)
    check(world)


def test_two_processes_of_one_name() -> None:
    first, second = Nodes("here", "1", 100.0, 4.0), Nodes("here", "2", 100.4, 4.0)
    with pytest.raises(ConfigError, match="another node of the cell has the name here"):
        second.hear("here", Beat("1", 100.0, 1, 4.0), True, 10.5)
    for tenth in range(60):
        first.beat(0, False, tenth / 10)
    first.hear("here", Beat("2", 100.4, 1, 4.0), True, 10.1)  # it was there first
    again = Nodes("here", "3", 200.0, 4.0)
    again.hear("here", Beat("1", 100.0, 30, 4.0), False, 20.0)  # the last word of a process that has died
    again.hear("here", Beat("1", 100.0, 31, 4.0, leaving=True), True, 20.1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "{}",
        '{"process": "1", "started": 1, "number": 1, "capacity": 0, "load": 0, "leaving": false}',
        "[" * 100_000,
    ],
)
def test_texts_that_are_no_beats(text: str) -> None:
    assert decode(text) is None


def test_a_beat_is_read_as_it_was_written() -> None:
    beat = Beat("a-1", 100.25, 7, 2.5, 3, True)
    assert decode(encode(beat)) == beat
