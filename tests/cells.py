"""A cell as real processes: aggregators, workers and captures on NATS servers, and what must hold of its events."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

from nats_servers import ask
from processes import balanced, free_port, unclosed, wait_for

from fer_stream.events.cloudevents import decode
from fer_stream.fleet.partitions import partition
from fer_stream.fleet.values import decode_mark
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.transports.zeromq import ZeroMQ

if TYPE_CHECKING:
    from collections.abc import Callable

    from processes import Cli, Process

    from fer_stream.plugins import Peer

CELL = "test"


class Listener(threading.Thread):
    """Hears the events that one aggregator publishes: when, by id, and their cameras."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.heard: dict[str, tuple[float, str]] = {}
        self._peer = ZeroMQ().subscribe(address, "events", [""])
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.is_set():
            parts = self._peer.receive(0.1)
            if parts is not None and bytes(parts[0]) != b"/":
                event = json.loads(bytes(parts[1]))
                camera = event["source"].rpartition("/")[2]
                self.heard.setdefault(event["id"], (time.monotonic(), camera))
        self._peer.close()

    def close(self) -> None:
        self._ended.set()
        self.join()


class Cell:
    """The processes of one cell. ``servers`` is the address of its NATS servers."""

    def __init__(self, cli: Cli, servers: str, partitions: int = 4) -> None:
        self.cli, self.servers, self.partitions = cli, servers, partitions
        self.environment = {"FER_STREAM_FLEET__CELL": CELL, "FER_STREAM_FLEET__PARTITIONS": str(partitions)}
        self.aggregators: dict[str, Process] = {}
        """By address."""

    # Processes

    def aggregator(self, address: str = "", **environment: str) -> str:
        """Start an aggregator, and return its address."""
        address = address or f"tcp://127.0.0.1:{free_port()}"
        self.aggregators[address] = self.cli.start(
            "aggregator", "--bind", address, "--journal", self.servers, **self.environment | environment
        )
        return address

    @property
    def addresses(self) -> str:
        return ",".join(self.aggregators)

    def worker(self, at: str = "", *options: object) -> Process:
        return self.cli.start("worker", "--connect", at or self.addresses, *options)

    def capture(self, name: str, source: object = "demo", *options: object) -> Process:
        return self.cli.start("capture", source, "--camera", name, "--connect", self.addresses, *options)

    def load(self, rate: float, workers: int, *names: str) -> Process:
        """Start captures and workers in one process: see `synthetic`."""
        return self.cli.start_module("synthetic", self.addresses, rate, workers, *names)

    def log(self) -> str:
        return "\n".join(f"--- {number}\n{process.err[-30000:]}" for number, process in enumerate(self.cli.started))

    # What it says

    def status(self, address: str) -> dict[str, Any] | None:
        """Return what one aggregator says of itself; ``None`` if it does not answer."""
        peer = self.connect(address)
        try:
            peer.send(messages.json_message(Kind.STATUS, ticket=1))
            parts = peer.receive(2.0)
            return messages.unpack(parts).body() if parts else None
        finally:
            peer.close()

    def connect(self, address: str) -> Peer:
        """Open the control link of an aggregator."""
        return ZeroMQ().connect(address, "control")

    def owners(self) -> dict[int, str]:
        """Return the address of each partition's owner, as the owners say."""
        found = {}
        for address, process in self.aggregators.items():
            status = self.status(address) if process.popen.poll() is None else None
            if status:
                fleet = status["fleet"]
                found |= dict.fromkeys(fleet["aggregators"][fleet["me"]]["owns"], address)
        return found

    def cameras(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return for each camera the address of its aggregator, and its status there. Ledgers must add up."""
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        for address, process in self.aggregators.items():
            status = self.status(address) if process.popen.poll() is None else None
            for name, camera in (status or {"cameras": {}})["cameras"].items():
                assert balanced(camera["ledger"]), (name, camera)
                found[name] = address, camera
        return found

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        return wait_for(condition, what, log=self.log)

    def until_owned(self, *by: str) -> None:
        """Wait until all partitions have owners, and these are exactly those ones; by default anybody."""

        def owned() -> bool:
            owners = self.owners()
            return len(owners) == self.partitions and (not by or set(owners.values()) == set(by))

        self.until(owned, f"owners of all partitions: {by}")

    def until_processed(self, frames: int, *cameras: str) -> None:
        """Wait until so many frames of each of these cameras are done."""

        def done() -> bool:
            found = self.cameras()
            return all(name in found and found[name][1]["ledger"]["done"] >= frames for name in cameras)

        self.until(done, f"{frames} frames of {cameras}")

    def of(self, number: int, count: int = 1) -> list[str]:
        """Return names of cameras of a partition."""
        names = (f"cam-{each}" for each in range(10_000))
        return [name for name in names if partition(name, self.partitions) == number][:count]

    # Its events

    def events(self) -> dict[int, list[dict[str, Any]]]:
        """Return the events of each partition. Each is there once, in order, and after the fence of its owner."""
        return {number: self._events(number) for number in range(self.partitions)}

    def _events(self, number: int) -> list[dict[str, Any]]:
        sequences: dict[str, int] = {}
        term, seen, found = 0, set(), []
        for cursor, (subject, identity, text) in enumerate(self._messages(number), 1):
            if subject.endswith(".fence"):
                mark = decode_mark(text)
                assert mark is not None
                assert mark.term > term, f"{mark} comes after {term} in partition {number}"
                term = mark.term
                continue
            event = decode(text)
            assert partition(event.camera, self.partitions) == number, event
            assert identity not in seen, f"{identity} is stored twice"
            seen.add(identity)
            assert int(event.cursor) == cursor
            assert event.sequence == sequences.get(event.camera, 0) + 1, event
            sequences[event.camera] = event.sequence
            found.append(json.loads(text))
        return found

    def check_closed(self) -> None:
        """Check that everything that began has ended."""
        for events in self.events().values():
            assert not unclosed(events)

    def _messages(self, number: int) -> list[tuple[str, str, str]]:
        async def read(client: Any) -> list[tuple[str, str, str]]:
            stream = client.jetstream()
            info = await stream.stream_info(f"FER_EV_{number:02x}")
            if not info.state.messages:
                return []
            subscription = await stream.subscribe(f"fer.{CELL}.ev.{number:02x}.>", ordered_consumer=True)
            found = []
            while len(found) < info.state.messages:
                message = await subscription.next_msg(timeout=5)
                identity = (message.headers or {}).get("Nats-Msg-Id", "")
                found.append((message.subject, identity, message.data.decode()))
            return found

        return list(ask(self.servers, read))
