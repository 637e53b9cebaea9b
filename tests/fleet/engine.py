"""Models of time and of the engine: buckets with compare-and-set and watches, streams with fences, and their faults.

A request takes some milliseconds each way. Its answer may be lost; while a leader is away or a link is cut, the request
may be lost or be carried out later. The caller is told `Unknown` after a second, and a real answer may still follow.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.fleet.records import Conflict, Done, Mark, Unknown

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from fleet.nodes import Node

    from fer_stream.fleet.records import Outcome, Part

TIMEOUT = 1.0
"""Seconds after which a request counts as unanswered."""

GIVE_UP = 3.0
"""Seconds after which a client closes a dead connection, with what it could not send."""

LOST = 0.004
"""Share of the answers that are lost without any other fault."""


class Loop:
    """Virtual time: actions are done in order of their time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = count()

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._heap, (self.now + seconds, next(self._count), action, arguments))

    def run(self, until: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(heap)
            action(*arguments)
        self.now = until


class Entry(NamedTuple):
    """A message of a stream: a fence with its mark, or an event with its id."""

    writer: str
    what: Mark | str


@dataclass
class Watch:
    """What one node has not been given yet. Deliveries of one bucket keep their order."""

    node: Node
    ready: float = 0.0
    backlog: list[tuple[str, Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)


class Engine:
    """See the module docstring. ``complain`` is told what a correct fleet never does."""

    def __init__(self, loop: Loop, numbers: random.Random, partitions: int) -> None:
        self.loop, self.numbers = loop, numbers
        self.parts: dict[int, tuple[int, Part]] = {}
        self.streams: list[list[Entry]] = [[] for _ in range(partitions)]
        self.fences: list[tuple[int, Mark | None]] = [(0, None)] * partitions
        self.events: set[str] = set()
        self.lost = LOST
        self.losses: list[float] = []
        self._alive: dict[str, tuple[int, Any]] = {}
        self._revision = 0
        self._stale: dict[int, tuple[int, Part | None]] = {}
        self._away: dict[str, float] = {}
        self._sent: dict[str, float] = {}
        self._held: dict[str, list[Callable[[], None]]] = defaultdict(list)
        self._watches: dict[str, dict[Node, Watch]] = {"alive": {}, "parts": {}}

    # Faults

    def outage(self, group: str, seconds: float) -> None:
        """The leader of a bucket, or of the streams, dies; nobody is answered until another one is elected."""
        self._away[group] = max(self._away.get(group, 0.0), self.loop.now + seconds)
        self.loop.after(seconds, self._back, group)

    def away(self, group: str) -> bool:
        return self._away.get(group, 0.0) > self.loop.now

    def _back(self, group: str) -> None:
        if not self.away(group):
            held, self._held[group] = self._held[group], []
            for action in held:
                self.loop.after(self._delay(), action)

    def healed(self, node: Node) -> None:
        """The link of a node works again: what was held is sent, and its watches catch up with the newest values."""
        held, self._held[node.me] = self._held[node.me], []
        for action in held:
            self.loop.after(self._delay(), action)
        for watches in self._watches.values():
            if watch := watches.get(node):
                newest = {}
                for key, action, arguments in watch.backlog:
                    newest.pop(key, None)  # so that the order is that of the newest values
                    newest[key] = (action, arguments)
                watch.backlog = []
                for action, arguments in newest.values():
                    node.post(action, *arguments)

    def _delay(self) -> float:
        return self.numbers.uniform(0.001, 0.015)

    # Requests

    def request(
        self, node: Node, group: str, apply: Callable[[], Outcome], answered: Callable[[Outcome], None] | None = None
    ) -> None:
        """Carry out ``apply`` in the engine, and give its outcome to the node, or `Unknown`, or first that."""
        pending = [True]

        def expire() -> None:
            if pending[0] and answered:
                node.post(answered, Unknown())

        def answer(outcome: Outcome) -> None:
            if not node.cut and answered:
                pending[0] = False
                node.post(answered, outcome)

        def arrive() -> None:
            if self.away(group):
                if self.numbers.random() < 0.5:
                    self._held[group].append(arrive)
                return
            outcome = apply()
            if answered is None:
                return
            if self.numbers.random() < self.lost:
                self.losses.append(self.loop.now)
            else:
                self.loop.after(self._delay(), answer, outcome)

        if answered:
            self.loop.after(TIMEOUT, expire)
        if not node.cut:  # a connection keeps the order
            self._sent[node.me] = max(self._sent.get(node.me, 0.0), self.loop.now + self._delay())
            self.loop.after(self._sent[node.me] - self.loop.now, arrive)
        elif self.numbers.random() < 0.3:  # TCP may still deliver it, until the client gives the connection up
            sent = self.loop.now
            self._held[node.me].append(lambda: arrive() if self.loop.now - sent < GIVE_UP else None)

    # The bucket `alive`

    def beat(self, node: Node, number: int, status: Any) -> None:
        def apply() -> Outcome:
            self._alive[node.me] = (number, status)
            for watch in self._watches["alive"].values():
                self._deliver(watch, node.me, watch.node.alive, (node.me, number, status))
            return Done()

        self.request(node, "alive", apply, node.beaten(number))

    # The bucket `parts`

    def write(self, node: Node, partition: int, part: Part, revision: int, answered: Callable[[Outcome], None]) -> None:
        sent = self.loop.now

        def apply() -> Outcome:
            known, before = self.parts.get(partition, (0, None))
            if known != revision:
                return Conflict()
            self._revision += 1
            self._stale[partition] = (known, before)
            self.parts[partition] = (self._revision, part)
            if before is None or before.owner != part.owner:
                node.world.claimed(partition, before, part, sent)
            for watch in self._watches["parts"].values():
                self._deliver(watch, str(partition), watch.node.seen, (partition, self._revision, part))
            return Done(self._revision)

        self.request(node, "parts", apply, answered)

    def read(self, node: Node, partition: int, answered: Callable[[Outcome], None]) -> None:
        """Sometimes a replica answers that has not followed yet."""

        def apply() -> Outcome:
            late = self.numbers.random() < 0.05 and partition in self._stale
            return Done(self._stale[partition] if late else self.parts.get(partition, (0, None)))

        self.request(node, "parts", apply, answered)

    # The streams

    def look(self, node: Node, partition: int, answered: Callable[[Outcome], None]) -> None:
        self.request(node, "events", lambda: Done((len(self.streams[partition]), *self.fences[partition])), answered)

    def fence(self, node: Node, partition: int, mark: Mark, last: int, answered: Callable[[Outcome], None]) -> None:
        def apply() -> Outcome:
            stream = self.streams[partition]
            if len(stream) != last:
                return Conflict()
            before = self.fences[partition][1]
            assert before is None or before.term < mark.term, f"{mark} is appended after {before}"
            stream.append(Entry(node.me, mark))
            self.fences[partition] = (len(stream), mark)
            return Done(len(stream))

        self.request(node, "events", apply, answered)

    def append(
        self, node: Node, partition: int, events: list[str], last: int, fence: int | None,
        answered: Callable[[Outcome], None],
    ) -> None:  # fmt: skip
        """Append an atomic batch after ``last``, if the last fence is at ``fence`` (``None``: that is not checked)."""

        def apply() -> Outcome:
            stream, (at, mark) = self.streams[partition], self.fences[partition]
            if len(stream) != last or (fence is not None and fence != at):
                return Conflict()
            owner = mark.owner if mark else ""
            assert owner == node.me, f"{node.me} stores events in partition {partition} of {owner}"
            for event in events:
                assert event not in self.events, f"{event} is stored twice"
                self.events.add(event)
                stream.append(Entry(node.me, event))
            return Done(len(stream))

        self.request(node, "events", apply, answered)

    def tail(self, node: Node, partition: int, after: int, answered: Callable[[Outcome], None]) -> None:
        """Read the messages after a sequence, and the last fence's sequence."""

        def apply() -> Outcome:
            return Done((self.streams[partition][after:], self.fences[partition][0]))

        self.request(node, "events", apply, answered)

    # Watches

    def watch(self, node: Node) -> None:
        """Give a node all present values, then every change."""
        for watches in self._watches.values():
            watches[node] = Watch(node)
        for member, (number, status) in self._alive.items():
            self._deliver(self._watches["alive"][node], member, node.alive, (member, number, status))
        for partition, (revision, part) in self.parts.items():
            self._deliver(self._watches["parts"][node], str(partition), node.seen, (partition, revision, part))

    def unwatch(self, node: Node) -> None:
        for watches in self._watches.values():
            watches.pop(node, None)

    def _deliver(self, watch: Watch, key: str, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        watch.ready = max(watch.ready, self.loop.now + self._delay())
        self.loop.after(watch.ready - self.loop.now, self._arrive, watch, key, action, arguments)

    def _arrive(self, watch: Watch, key: str, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if watch.node.cut or watch.node.stalled or watch.backlog:
            watch.backlog.append((key, action, arguments))
        else:
            watch.node.post(action, *arguments)
