"""A cell as its readers see it: scripted aggregators on real links, over events that all of them share.

What real aggregators do is simulated, so that a test can cause what seldom happens: one knows less than another, an
event is not passed on, a journal does not answer.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from house import event

from fer_stream import plugins
from fer_stream.client import Subscription
from fer_stream.events.cloudevents import encode
from fer_stream.events.cursor import to_cursor
from fer_stream.fleet.partitions import partition
from fer_stream.journal import gap
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind, Message
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from fer_stream.types import Event

BEAT = 0.05


def camera_of(number: int, count: int, nth: int = 0) -> str:
    """Return the name of a camera of a partition."""
    names = (name for name in (f"cam-{n}" for n in itertools.count()) if partition(name, count) == number)
    return next(itertools.islice(names, nth, None))


class Cell:
    """The events of all partitions, and the aggregators that serve them."""

    def __init__(self, addresses: list[str], partitions: int, transport: str = "zeromq") -> None:
        self.partitions, self.transport = partitions, transport
        self.lock = threading.Lock()
        self.streams: list[dict[int, str]] = [{} for _ in range(partitions)]
        """By partition, the texts by number. Numbers may be missing, as those of fences are."""
        self.ends = [0] * partitions
        self.purged = [0] * partitions
        self.stored: list[Event] = []
        """All events that were ever stored, in this order."""
        self._sequences: dict[str, int] = {}
        self.all = [Scripted(self, address, f"agg-{n}") for n, address in enumerate(addresses)]

    @property
    def address(self) -> str:
        return ",".join(each.address for each in self.all)

    @property
    def settings(self) -> Settings:
        return Settings(transport=self.transport, address=self.address)

    @property
    def latest(self) -> list[int]:
        return list(self.ends)

    def store(self, *cameras: str, deaf: bool = False) -> None:
        """Store an event of each camera, and let the running aggregators publish it; ``deaf``: none hears of it."""
        for camera in cameras:
            number = partition(camera, self.partitions)
            with self.lock:
                at = self.ends[number] = self.ends[number] + 1
                sequence = self._sequences[camera] = self._sequences.get(camera, 0) + 1
                made = replace(event(at, camera, sequence), time=len(self.stored) * 1_000_000_000)  # type: ignore[arg-type]
                text = self.streams[number][at] = encode(made)
                self.stored.append(made)
            for each in self.all if not deaf else ():
                each.publish(number, at, camera, text)

    def fence(self, number: int) -> None:
        """Take one number of a partition, without an event."""
        with self.lock:
            self.ends[number] += 1

    def purge(self, number: int) -> None:
        """Delete all events of a partition; its numbers go on."""
        with self.lock:
            self.streams[number].clear()
            self.purged[number] = self.ends[number]

    def begin_anew(self, number: int) -> None:
        """Replace a partition's journal by an empty one."""
        with self.lock:
            self.streams[number].clear()
            self.ends[number] = self.purged[number] = 0

    def read(self, number: int, after: int, camera: str | None, size: int) -> tuple[list[str], int, int]:
        """Return texts, the number up to which they are complete, and the latest number."""
        with self.lock:
            latest, purged = self.ends[number], self.purged[number]
            texts = [encode(gap(after, purged, "retention"))] if after < purged else []
            reached, taken = max(after, purged), 0
            for at, text in self.streams[number].items():
                if at <= reached or (camera is not None and f'"/cameras/{camera}"' not in text):
                    continue
                if taken and taken + len(text) > size:
                    return texts, reached, latest
                texts.append(text)
                taken += len(text)
                reached = at
            return texts, latest if after <= latest else min(after, latest), latest

    def listen(self, **how: Any) -> Subscription:
        return Subscription(self.address, transport=self.transport, **how)

    def close(self) -> None:
        for each in self.all:
            each.end()


class Scripted:
    """One aggregator of a cell, in a thread that owns its links."""

    def __init__(self, cell: Cell, address: str, name: str) -> None:
        self.cell, self.address, self.name = cell, address, name
        self.knows: dict[int, int] = {}
        """By partition, the latest number that it knows of, where it is not the latest one."""
        self.forgets = False
        """Whether its answers to REPLAY know no more than that, either."""
        self.beats = 1
        """How many heartbeats it publishes at once."""
        self.silent: set[int] = set()
        """Partitions whose journals it cannot read."""
        self.state: dict[str, Any] = {}
        """Replaces parts of its status."""
        self.requests: list[dict[str, Any]] = []
        """The bodies of all REPLAYs."""
        self._published: queue.Queue[tuple[int, int, str, str]] = queue.Queue()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> Scripted:
        self._ends.clear()
        hub = plugins.load("transports", self.cell.transport)().bind(self.address)
        self._thread = threading.Thread(target=self._run, args=(hub,))
        self._thread.start()
        return self

    @property
    def runs(self) -> bool:
        return self._thread is not None

    def publish(self, number: int, at: int, camera: str, text: str) -> None:
        if self.runs and number not in self.knows:
            self._published.put((number, at, camera, text))

    def end(self) -> None:
        """End it as a killed process would: without a word."""
        thread, self._thread = self._thread, None
        self._ends.set()
        if thread is not None:
            thread.join()

    def _run(self, hub: plugins.Hub) -> None:
        beat = 0.0
        while not self._ends.is_set():
            for link, peer, parts in hub.receive(0.01):
                if link == "control":
                    message = messages.unpack(parts)
                    answer = self._status(message) if message.kind is Kind.STATUS else self._replay(message)
                    if answer is not None:
                        hub.send(link, peer, answer)
            while not self._published.empty():
                _, _, camera, text = self._published.get()
                hub.publish("events", f"{camera}/", [text.encode()])
            if time.monotonic() >= beat:
                beat = time.monotonic() + BEAT
                for _ in range(self.beats):
                    hub.publish("events", "/", [self._latest().encode()])
        hub.close()

    def _latest(self) -> str:
        return to_cursor(*(self.knows.get(number, latest) for number, latest in enumerate(self.cell.latest)))

    def _replay(self, message: Message) -> list[Any] | None:
        body = message.body()
        self.requests.append(body)
        number = body.get("partition", 0 if self.cell.partitions == 1 else None)
        if number is None:
            return messages.json_message(Kind.CURSOR, {"cursor": self._latest()}, ticket=message.ticket)
        if number in self.silent:
            return None
        texts, reached, latest = self.cell.read(number, body["after"], body.get("camera"), body.get("bytes", 256_000))
        if self.forgets and (known := self.knows.get(number, latest)) < latest:
            texts, reached, latest = [], min(reached, known), known
        answer = Message(Kind.EVENTS, "\n".join(texts).encode(), seq=reached, time=latest, ticket=message.ticket)
        return messages.pack(answer)

    def _status(self, message: Message) -> list[Any]:
        each = {"key": "", "load": 1.0, "cameras": 0, "workers": 1, "idle": 0, "leaving": False, "silent_s": 0.1}
        owns = {a.name: list(range(n, self.cell.partitions, len(self.cell.all))) for n, a in enumerate(self.cell.all)}
        aggregators = {a.name: {"address": a.address, **each, "owns": owns[a.name]} for a in self.cell.all}
        fleet = {"cell": "site", "partitions": self.cell.partitions, "me": self.name, "aggregators": aggregators}
        state = {
            "pid": 1, "uptime_s": 1.0, "cursor": self._latest(), "events_held": 0, "labels": ["happy"], "memory": "",
            "cameras": {}, "workers": {}, "events": {}, "sinks": {}, "fleet": fleet | {"unowned": []},
        }  # fmt: skip
        return messages.json_message(Kind.STATUS, state | self.state, ticket=message.ticket)
