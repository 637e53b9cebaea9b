"""Simulated captures and workers: a `Seeker` each, and a link to one process at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

from fer_stream.fleet.partitions import partition
from fer_stream.fleet.records import Moved, Welcome
from fer_stream.fleet.seeker import Connect, Hello, Seeker
from fer_stream.protocol.messages import Totals

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet.nodes import Node
    from fleet.world import World

    from fer_stream.fleet.records import Answer, Place

TICK = 0.2


class PeerProcess(ABC):
    """What captures and workers have in common."""

    def __init__(self, world: World, name: str, places: list[Place]) -> None:
        self.world, self.name = world, name
        self.seeker = Seeker(places, Random(world.numbers.random()))
        self.link = 0
        self.node: Node | None = None  # where it is welcome
        self.moves = 0  # MOVED that it followed since the last fault
        self.offset = world.numbers.uniform(0, 1e6)
        self.ready = [0.0, 0.0]  # when the latest message from and to it arrives: a link keeps the order
        world.loop.after(world.numbers.uniform(0, TICK), self.tick)

    def clock(self) -> float:
        return self.offset + self.world.loop.now

    def tick(self) -> None:
        self.act(self.seeker.tick(self.clock()))
        self.world.loop.after(TICK, self.tick)

    def act(self, command: Connect | Hello | None) -> None:
        if command is None:
            return
        if isinstance(command, Connect):
            self.link += 1
            self.node = None
        if self.seeker.place is not None:
            self.knock(self.seeker.place)

    def later(self, outgoing: bool, action: Callable[..., None], *arguments: Any) -> None:
        """Do this when a message from or to this peer arrives."""
        loop = self.world.loop
        self.ready[outgoing] = max(self.ready[outgoing], loop.now + self.world.delay())
        loop.after(self.ready[outgoing] - loop.now, action, *arguments)

    @abstractmethod
    def knock(self, place: Place) -> None:
        """Say HELLO or READY."""

    def hear(self, node: Node, answer: Answer | None) -> None:
        """Take an answer, or any other message (``None``)."""
        if isinstance(answer, Welcome):
            self.seeker.welcome(answer.others, self.clock())
            self.node = node
        elif isinstance(answer, Moved):
            self.node = None
            command = self.seeker.moved(answer.place, answer.wait, answer.others, self.clock())
            self.moves += command is not None
            self.act(command)
        else:
            self.seeker.heard(self.clock())

    def broken(self, link: int) -> None:
        if link == self.link:
            self.node = None
            self.act(self.seeker.broken(self.clock()))


class CapturePeer(PeerProcess):
    """A capture: its totals, and the outcomes that aggregators told it."""

    def __init__(self, world: World, name: str, places: list[Place]) -> None:
        super().__init__(world, name, places)
        self.partition = partition(name, world.partitions)
        self.captured = self.superseded = self.sent = 0
        self.told: dict[str, int] = {}
        self.done = 0
        self._frames = count(1)

    def totals(self) -> Totals:
        return Totals(self.captured, self.superseded, 0, self.sent)

    def knock(self, place: Place) -> None:
        link, totals, told = self.link, self.totals(), dict(self.told)
        self.world.to(place, self, lambda node: node.hello(self, link, totals, told), link)

    def send(self, node: Node, link: int, kind: str, told: dict[str, int], answer: Answer | None) -> None:
        """Send from a node to this capture."""
        if not node.deaf:
            self.later(False, self.receive, node, link, kind, told, answer)

    def receive(self, node: Node, link: int, kind: str, told: dict[str, int], answer: Answer | None) -> None:
        if link != self.link or node.deaf:
            return
        if kind in ("next", "ping") or (kind == "moved" and self.node is not None):
            self.told = told
        self.hear(node, answer)
        if kind == "next" and self.node is not None:
            skipped = self.world.numbers.randint(0, 3)
            self.captured += skipped + 1
            self.superseded += skipped
            self.sent += 1
            number, totals = self.sent, self.totals()
            self.later(True, node.post, node.frame, self, link, number, totals)


class WorkerPeer(PeerProcess):
    """A worker."""

    def knock(self, place: Place) -> None:
        self.world.to(place, self, lambda node: node.ready(self), self.link)

    def send(self, node: Node, answer: Answer | None) -> None:
        """Send from a node to this worker."""
        if not node.deaf:
            self.later(False, self.receive, node, self.link, answer)

    def receive(self, node: Node, link: int, answer: Answer | None) -> None:
        if link == self.link and not node.deaf and (answer is not None or node is self.node):
            self.hear(node, answer)
