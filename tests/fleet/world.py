"""A simulated cell: hosts, the engine, captures, workers and faults; and what must hold at every moment and at the end.

One seed is one run. The engine's model checks that only the owner of the last fence stores events, each one once.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from fleet.engine import TIMEOUT, Engine, Loop
from fleet.nodes import Node
from fleet.peers import CapturePeer, PeerProcess, WorkerPeer

from fer_stream.fleet.liveness import BEAT, GAP, T
from fer_stream.fleet.ownership import RETRY, TAKING
from fer_stream.fleet.records import Part, Place

if TYPE_CHECKING:
    from collections.abc import Callable

FOUND = T + 1
"""Seconds after a fault within which each partition is owned again."""

JOINED = 6.0
"""Seconds after that within which each capture is welcome at the owner."""

CHECK = 0.25
STILL = 12.0
"""Seconds at the end of a run in which nothing may move any more."""


@dataclass(frozen=True)
class Profile:
    """What happens in a run: sizes, and the relative frequency of each fault."""

    faults: dict[str, float] = field(default_factory=dict)
    hosts: tuple[int, int] = (2, 5)
    partitions: tuple[int, int] = (3, 12)
    cameras: tuple[int, int] = (4, 14)
    workers: tuple[int, int] = (4, 9)
    seconds: float = 40.0
    gap: float = 4.0
    """Mean seconds between faults."""
    calm: float = 50.0
    """Seconds without faults at the end; with less than this, only what holds at every moment is checked."""


class World:
    """See the module docstring."""

    def __init__(self, seed: int, profile: Profile, node: type[Node] = Node) -> None:
        self.numbers = numbers = random.Random(seed)
        self.profile, self.node = profile, node
        self.loop = Loop()
        self.partitions = numbers.randint(*profile.partitions)
        self.engine = Engine(self.loop, numbers, self.partitions)
        self.nodes: dict[str, Node] = {}
        """The process on each host."""
        self.processes: dict[str, Node] = {}
        self.off: set[str] = set()
        self.made: dict[str, list[tuple[int, str]]] = {}
        self.moves: list[tuple[float, int, str]] = []
        self.given: list[float] = []
        self.fault = 0.0  # when the last fault began or ended
        self.faults: Counter[str] = Counter()
        self.worst = {"found": 0.0, "joined": 0.0}
        self._lives = count(1)
        self._orphaned: dict[int, float] = {}
        self._away: dict[str, float] = {}
        hosts = [f"h{n}" for n in range(numbers.randint(*profile.hosts))]
        places = [Place(f"tcp://{host}", f"key of {host}") for host in hosts]
        for host in hosts:
            self.loop.after(numbers.uniform(0, 2), self.start, host)
        self.captures = [CapturePeer(self, f"cam-{n}", places) for n in range(numbers.randint(*profile.cameras))]
        self.workers = [WorkerPeer(self, f"w{n}", places) for n in range(numbers.randint(*profile.workers))]

    def run(self) -> None:
        """Let faults happen for a while, then none; check everything."""
        self.loop.run(12.0)
        self.fault = self.loop.now
        self.loop.after(0, self.check)
        end = self.loop.now + self.profile.seconds
        kinds, weights = list(self.profile.faults), list(self.profile.faults.values())
        while kinds and self.loop.now < end:
            self.loop.run(self.loop.now + self.numbers.expovariate(1 / self.profile.gap))
            kind = self.numbers.choices(kinds, weights)[0]
            self.faults[kind] += 1
            getattr(self, kind)()
        while self.fault + self.profile.calm > self.loop.now:
            self.loop.run(self.fault + self.profile.calm)
        if self.profile.calm >= Profile.calm:
            self.check_end()

    # Processes

    def start(self, host: str, former: str = "") -> None:
        if host in self.off or (host in self.nodes and not self.nodes[host].dead):
            return
        me = f"{host}.{next(self._lives)}"
        self.nodes[host] = self.processes[me] = self.node(self, host, me, former)
        self.hurt()

    def kill(self, node: Node, quietly: bool = False) -> None:
        """End a process. Its peers notice, unless its whole machine is gone."""
        node.die()
        self.hurt()
        if not quietly:
            for peer in [*self.captures, *self.workers]:
                if peer.seeker.place == node.place:
                    peer.later(False, peer.broken, peer.link)

    def ended(self, node: Node) -> None:
        """A process ends itself, and its supervisor starts it again."""
        self.kill(node)
        self.loop.after(self.numbers.uniform(0.2, 1.5), self.start, node.host, node.me)

    def left(self, node: Node) -> None:
        self.kill(node)
        self.loop.after(self.numbers.uniform(1, 6), self.start, node.host)

    def hurt(self, *nodes: Node) -> None:
        self.fault = self.loop.now
        for node in nodes:
            node.impaired = self.loop.now
        for peer in [*self.captures, *self.workers]:
            peer.moves = 0

    # Messages

    def delay(self) -> float:
        return self.numbers.uniform(0.001, 0.01)

    def to(self, place: Place, sender: PeerProcess | Node, action: Callable[[Node], Any], link: int = 0) -> None:
        """Send to the process at a place. If there is none on its machine, the connection is refused."""

        def arrive() -> None:
            host = place.address.removeprefix("tcp://")
            node = self.nodes.get(host)
            if host in self.off or getattr(sender, "deaf", False) or (node and node.deaf):
                return
            if node is not None and not node.dead:
                node.post(action, node)
            elif isinstance(sender, PeerProcess):
                sender.later(False, sender.broken, link)

        if isinstance(sender, PeerProcess):
            sender.later(True, arrive)
        else:
            self.loop.after(self.delay(), arrive)

    # Faults

    def some(self) -> Node | None:
        well = [node for node in self.nodes.values() if node.well and not node.deaf]
        return self.numbers.choice(well) if well else None

    def crash(self) -> None:
        """A process dies; its supervisor sees it and starts it again."""
        if node := self.some():
            self.ended(node)

    def machine(self) -> None:
        """A machine dies, and comes back."""
        if node := self.some():
            self.kill(node, quietly=True)
            self.off.add(node.host)
            self.loop.after(self.numbers.uniform(5, 20), self.boot, node.host)

    def boot(self, host: str) -> None:
        self.off.discard(host)
        self.start(host)

    def pause(self) -> None:
        """SIGSTOP and SIGCONT, often beyond the lease."""
        if node := self.some():
            self.stop(node, self.numbers.choice([0.5, 1.4, 2.9, 4.0, 9.0]))

    def doze(self) -> None:
        """A machine dies, and an aggregator is paused in the middle of its take-over."""
        self.machine()
        self.catch(self.loop.now + 6.0)

    def catch(self, until: float) -> None:
        for node in self.nodes.values():
            if node.well and any(one.state in TAKING for one in node.member.partitions):
                self.stop(node, self.numbers.uniform(4.0, 9.0))
                return
        if self.loop.now < until:
            self.loop.after(self.numbers.uniform(0.0, 0.02), self.catch, until)

    def stop(self, node: Node, seconds: float) -> None:
        node.paused = True
        node.stalled = self.numbers.random() < 0.5  # its watches must connect again when it wakes
        self.hurt(node)
        self.loop.after(seconds, self.wake, node)

    def wake(self, node: Node) -> None:
        self.hurt(node)
        self.loop.after(BEAT, self.hurt)  # with its next beat it is well again
        if node.stalled:
            self.loop.after(self.numbers.uniform(0.2, 3.0), self.heal, node, "stalled")
        if not node.dead:
            node.resume()

    def isolate(self) -> None:
        """A process cannot reach the engine."""
        self.spoil("cut", 1, 15)

    def stall(self) -> None:
        """The watches of a process lag, while its requests are answered."""
        self.spoil("stalled", 1, 8)

    def mute(self) -> None:
        """A process cannot reach captures, workers and other aggregators."""
        self.spoil("deaf", 1, 8)

    def spoil(self, what: str, least: float, most: float) -> None:
        if node := self.some():
            setattr(node, what, True)
            self.hurt(node)
            self.loop.after(self.numbers.uniform(least, most), self.heal, node, what)

    def heal(self, node: Node, what: str) -> None:
        setattr(node, what, False)
        self.hurt(node)
        self.loop.after(BEAT, self.hurt)
        if what != "deaf" and not node.dead:
            self.engine.healed(node)

    def outage(self) -> None:
        """The leader of one bucket, of the streams, or of all dies."""
        groups = self.numbers.choice([["alive"], ["parts"], ["events"], ["alive", "parts", "events"]])
        for group in groups:
            seconds = self.numbers.uniform(4.0, 9.1)
            self.engine.outage(group, seconds)
            self.loop.after(seconds + TIMEOUT + RETRY, self.hurt)  # the last unanswered request is repeated by then
        self.hurt()

    def jump(self) -> None:
        """The wall clock of a machine jumps by up to an hour."""
        if node := self.some():
            node.wall += self.numbers.uniform(-3600, 3600)

    def leave(self) -> None:
        """An aggregator gives everything away and ends, unless it is the last; later it joins again."""
        node = self.some()
        if node and sum(other.well for other in self.nodes.values()) > 1:
            node.member.leave()
            self.hurt(node)
            self.loop.after(10.0, self.lose_patience, node)

    def lose_patience(self, node: Node) -> None:
        """Who stopped an aggregator ends it at last, if it could not give everything away."""
        if not node.dead:
            self.faults["killed"] += 1
            self.left(node)

    def join(self) -> None:
        """An aggregator joins whose address no capture and no worker knows."""
        if len(self.nodes) < 7:
            self.start(f"n{len(self.nodes)}")

    # What must hold

    def claimed(self, number: int, before: Part | None, part: Part, sent: float) -> None:
        """An owner changes: its predecessor gave it away, or was not well shortly before this was ``sent``."""
        kind = "first" if before is None else "gift" if before.heir == part.owner else "take-over"
        self.moves.append((self.loop.now, number, kind))
        if before is None or kind == "gift":
            return
        former = self.processes[before.owner]
        well = former.well and former.impaired < sent - GAP - 2 * BEAT
        assert not well, f"{part.owner} takes partition {number} of {before.owner}, which lives"

    def gave_worker(self, node: Node) -> None:
        self.given.append(self.loop.now)

    def check(self) -> None:
        now = self.loop.now
        for node in self.nodes.values():
            if not node.well:
                node.impaired = now
        if any(self.engine.away(group) for group in ("alive", "parts", "events")):
            self.fault = now
        if not any(node.well for node in self.nodes.values()):
            self.fault = now
        for number in range(self.partitions):
            self.bound("found", self._orphaned, number, self.owner(number) is not None, FOUND)
        for peer in self.captures:
            owner = self.owner(peer.partition)
            at_home = owner is not None and peer.node is owner and peer.name in owner.cameras
            hopeless = not any(self.reachable(place) for place in peer.seeker.places)
            unreachable = owner is not None and owner.deaf
            self.bound("joined", self._away, peer.name, at_home or hopeless or unreachable, FOUND + JOINED)
        self.loop.after(CHECK, self.check)

    def bound(self, what: str, since: dict[Any, float], key: Any, well: bool, limit: float) -> None:
        if well:
            since.pop(key, None)
            return
        begun = max(since.setdefault(key, self.loop.now), self.fault)
        lost = sum(1 for time in self.engine.losses if time > begun - T)
        took = self.loop.now - begun - lost * (TIMEOUT + RETRY)
        self.worst[what] = max(self.worst[what], took)
        assert took <= limit + CHECK, f"{key} is not {what} {self.loop.now - begun:.2f} s after the last fault"

    def reachable(self, place: Place) -> bool:
        node = self.nodes.get(place.address.removeprefix("tcp://"))
        return node is not None and node.well and not node.deaf

    def owner(self, number: int) -> Node | None:
        """Return the process that serves a partition, and whose events would be stored."""
        _, mark = self.engine.fences[number]
        node = self.processes.get(mark.owner) if mark else None
        if (
            node is None
            or node.dead
            or node.paused
            or node.cut
            or node.member.partitions[number].state not in ("owned", "flushing")
        ):
            return None
        return node

    def check_end(self) -> None:
        for number in range(self.partitions):
            assert self.owner(number) is not None, f"nobody owns partition {number}"
        if not self.faults.keys() - {"outage", "stall", "mute", "jump", "join"}:
            assert all(kind != "take-over" for _, _, kind in self.moves), "nobody dies, so nothing is taken over"
        late = [move for move in self.moves if move[0] > self.loop.now - STILL]
        assert not late, f"partitions still move: {late}"
        after = [move for move in self.moves if move[0] > self.fault]
        assert len(after) <= 2 * self.partitions, f"{len(after)} moves after the last fault"
        assert not [time for time in self.given if time > self.loop.now - STILL], "workers still move"
        for peer in self.captures:
            self.check_ledger(peer)
        for peer in [*self.captures, *self.workers]:
            assert peer.node is not None, f"{peer.name} is nowhere"
            assert peer.moves <= 2 * 4, f"{peer.name} was moved {peer.moves} times"
        self.check_events()
        self.check_loads()

    def check_ledger(self, peer: CapturePeer) -> None:
        owner = self.owner(peer.partition)
        assert owner is peer.node is not None, f"{peer.name} is not at its owner"
        ledger = owner.cameras[peer.name].frames.ledger()
        assert ledger.balanced(), ledger
        assert peer.captured - 4 <= ledger.captured <= peer.captured, f"{ledger} of {peer.captured}"
        assert ledger.done <= peer.done, "no frame is counted as done that is not"
        assert ledger.superseded <= peer.superseded
        if not self.faults.keys() - {"join", "leave"}:
            assert not ledger.lost_link, "a hand-over loses no frame"
            assert ledger.done == peer.done, "a hand-over counts every frame"

    def check_events(self) -> None:
        for node in self.nodes.values():
            assert not any(writer.held[20:] for writer in node.writers.values()), "events are stuck"
            open_events = {event for writer in node.writers.values() for event in writer.held}
            for number, event in self.made.get(node.me, []):
                assert event in self.engine.events or event in open_events, f"{event} of partition {number} is lost"
        for stream in self.engine.streams:
            last: dict[tuple[str, str], int] = {}
            for writer, what in stream:
                if isinstance(what, str):
                    camera, number = what.split()[1], int(what.split()[2])
                    assert last.get((writer, camera), 0) < number, f"{what} is out of order"
                    last[writer, camera] = number

    def check_workers(self) -> None:
        """No aggregator is without a worker while another one could spare several."""
        well = [node for node in self.nodes.values() if not node.dead]
        for poor in well:
            if poor.cameras and not poor.workers:
                rich = [one for one in well if (len(one.workers) - 2) * len(poor.cameras) > 2 * len(one.cameras) + 2]
                assert not rich, f"{poor.me} has no worker, {rich[0].me} has {len(rich[0].workers)}"

    def check_loads(self) -> None:
        """The loads are within 20% of the mean, or no partition is small enough to bring them nearer."""
        loads: Counter[Node] = Counter({node: 0 for node in self.nodes.values() if not node.dead})
        weights: dict[Node, list[int]] = {node: [] for node in loads}
        for number in range(self.partitions):
            owner = self.owner(number)
            assert owner is not None
            weight = 1 + sum(peer.partition == number for peer in self.captures)
            loads[owner] += weight
            weights[owner].append(weight)
        heaviest, lightest = max(loads.values()), min(loads.values())
        most = next(node for node in loads if loads[node] == heaviest)
        even = heaviest - lightest <= 0.2 * sum(loads.values()) / len(loads)
        self.check_workers()
        coarse = min(weights[most]) > 0.75 * (heaviest - lightest)
        assert even or coarse, f"loads {sorted(loads.values())} of weights {sorted(weights.values())}"
