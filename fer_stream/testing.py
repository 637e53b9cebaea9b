"""For tests of plug-ins: a transport within one process, without sockets and keys.

It implements `fer_stream.plugins.Transport`. Addresses are ``memory://NAME``. Messages are lists of parts in queues
between threads, encoded as over ZeroMQ.
"""

from __future__ import annotations

import queue
import secrets
import socket
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ConfigError, TransportError
from fer_stream.plugins import BROADCASTS, ConnectionState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fer_stream.plugins import Allowed

QUEUE = 1000
"""Most messages in a queue. When it is full, `send` returns ``False``, and a subscriber loses the broadcast."""

_Parts = list[Any]


class _Exchange:
    """Connects the hubs and peers of all memory links in this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.hubs: dict[str, MemoryHub] = {}
        self.peers: dict[str, list[MemoryPeer]] = {}


_exchange = _Exchange()


def _check(address: str) -> str:
    if not address.startswith("memory://") or address == "memory://":
        raise ConfigError(f"{address!r} is not an address: give memory://NAME")
    return address


class Memory:
    """The `Transport` within one process. It ignores keys."""

    def __init__(self, key: Path | None = None, keys: Path | None = None) -> None:
        pass

    def bind(self, address: str, allowed: Allowed | None = None) -> MemoryHub:  # noqa: ARG002
        """See `fer_stream.plugins.Transport.bind`."""
        return MemoryHub(_check(address))

    def connect(self, address: str, link: str) -> MemoryPeer:
        """See `fer_stream.plugins.Transport.connect`."""
        return MemoryPeer(_check(address), link, None)

    def subscribe(self, address: str, link: str, topics: Sequence[str]) -> MemoryPeer:
        """See `fer_stream.plugins.Transport.subscribe`."""
        return MemoryPeer(_check(address), link, tuple(topics))


class MemoryHub:
    """All links of one aggregator."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._inbox: queue.Queue[tuple[str, bytes, _Parts] | None] = queue.Queue()
        with _exchange.lock:
            if address in _exchange.hubs:
                raise TransportError(f"{address} is in use by another aggregator: choose another name")
            _exchange.hubs[address] = self
            for peer in _exchange.peers.get(address, []):
                self._add(peer)

    def _add(self, peer: MemoryPeer) -> None:
        """Add a peer, with the messages it sent before there was a hub."""
        peer.hubs += 1
        for topic in peer.topics or ():
            self._inbox.put((peer.link, b"", [b"\x01" + topic.encode()]))
        while peer.early:
            self._inbox.put((peer.link, peer.name, peer.early.popleft()))

    def receive(self, timeout: float) -> list[tuple[str, bytes, _Parts]]:
        """See `fer_stream.plugins.Hub.receive`."""
        messages = []
        with suppress(queue.Empty):
            messages.append(self._inbox.get(timeout=max(timeout, 1e-6)))
            while True:
                messages.append(self._inbox.get_nowait())
        return [message for message in messages if message is not None]  # None: woken

    def send(self, link: str, peer: bytes, parts: Sequence[Any]) -> bool:
        """See `fer_stream.plugins.Hub.send`."""
        with _exchange.lock:
            for known in _exchange.peers.get(self._address, []):
                if known.name == peer and known.link == link:
                    return known.put(parts)
        return False

    @property
    def key(self) -> str:
        """See `fer_stream.plugins.Hub.key`: none is needed."""
        return ""

    def objection(self, peer: bytes, camera: str) -> str:  # noqa: ARG002  (as the Protocol has it)
        """See `fer_stream.plugins.Hub.objection`: peers of this process may send for every camera."""
        return ""

    def may_read(self, peer: bytes) -> bool:  # noqa: ARG002  (as the Protocol has it)
        """See `fer_stream.plugins.Hub.may_read`: peers of this process may."""
        return True

    def annotator(self, peer: bytes) -> str | None:  # noqa: ARG002  (as the Protocol has it)
        """See `fer_stream.plugins.Hub.annotator`: peers of this process may annotate under any name."""
        return ""

    def publish(self, link: str, topic: str, parts: Sequence[Any]) -> None:
        """See `fer_stream.plugins.Hub.publish`."""
        with _exchange.lock:
            for known in _exchange.peers.get(self._address, []):
                if known.link == link and any(topic.startswith(prefix) for prefix in known.topics or ()):
                    known.put([topic.encode(), *parts])

    def wake(self) -> None:
        """See `fer_stream.plugins.Hub.wake`."""
        self._inbox.put(None)

    def close(self) -> None:
        """See `fer_stream.plugins.Hub.close`."""
        with _exchange.lock:
            if _exchange.hubs.get(self._address) is self:
                del _exchange.hubs[self._address]


class MemoryPeer:
    """One link to an aggregator."""

    def __init__(self, address: str, link: str, topics: tuple[str, ...] | None) -> None:
        self.name = secrets.token_bytes(8)
        self.link = link
        self.topics = topics
        self.early: deque[_Parts] = deque()
        self.hubs = 0
        """Number of hubs that this peer was connected to."""
        self._signal: tuple[socket.socket, socket.socket] | None = None
        self._address = address
        self._queue: queue.Queue[_Parts | None] = queue.Queue(QUEUE)
        self._woken = False
        with _exchange.lock:
            _exchange.peers.setdefault(address, []).append(self)
            hub = _exchange.hubs.get(address)
            if hub is not None:
                hub._add(self)

    def put(self, parts: Sequence[Any]) -> bool:
        """Queue a message from the hub; ``False`` if the queue is full."""
        try:
            self._queue.put_nowait([bytes(part) for part in parts])
        except queue.Full:
            return False
        self._notify()
        return True

    def _notify(self) -> None:
        if self._signal is not None:
            with suppress(OSError):  # full: a signal is pending; closed: nothing waits
                self._signal[1].send(b"\0")

    def descriptors(self) -> tuple[int, ...]:
        """See `fer_stream.plugins.Peer.descriptors`."""
        if self._signal is None:
            self._signal = socket.socketpair()
            for end in self._signal:
                end.setblocking(False)
            self._notify()  # for messages that came before
        return (self._signal[0].fileno(),)

    def connection_state(self) -> ConnectionState:
        """See `fer_stream.plugins.Peer.connection_state`."""
        with _exchange.lock:
            there = self._address in _exchange.hubs
        return ConnectionState(there, max(0, self.hubs - 1), 0)

    def diagnose(self) -> str:
        """See `fer_stream.plugins.Peer.diagnose`."""
        with _exchange.lock:
            there = self._address in _exchange.hubs
        return "the aggregator is there, but does not answer" if there else "nothing listens there"

    def send(self, parts: Sequence[Any]) -> bool:
        """See `fer_stream.plugins.Peer.send`."""
        if self.link in BROADCASTS:
            raise TransportError(f"nothing can be sent on {self.link}: it only receives")
        # Copy, as a socket would: the sender may reuse its buffer.
        message = [bytes(part) for part in parts]
        with _exchange.lock:
            hub = _exchange.hubs.get(self._address)
            if (len(self.early) if hub is None else hub._inbox.qsize()) >= QUEUE:
                return False
            if hub is None:
                self.early.append(message)
            else:
                hub._inbox.put((self.link, self.name, message))
        return True

    def receive(self, timeout: float) -> _Parts | None:
        """See `fer_stream.plugins.Peer.receive`."""
        if self._signal is not None:
            with suppress(OSError):
                self._signal[0].recv(4096)  # before reading the queue, so that no signal is lost
        with suppress(queue.Empty):
            parts = self._queue.get(timeout=max(timeout, 1e-6))
            if parts is None:
                self._woken = False
            return parts
        return None

    def wake(self) -> None:
        """See `fer_stream.plugins.Peer.wake`."""
        if self._woken:  # one marker is enough, and more would use up the queue
            return
        self._woken = True
        try:
            self._queue.put_nowait(None)
        except queue.Full:  # a full queue: no receive is waiting
            self._woken = False
        self._notify()

    def close(self) -> None:
        """See `fer_stream.plugins.Peer.close`."""
        with _exchange.lock:
            peers = _exchange.peers.get(self._address, [])
            if self not in peers:
                return
            peers.remove(self)
            for end in self._signal or ():
                end.close()
            hub = _exchange.hubs.get(self._address)
            for topic in self.topics or ():
                if hub and not any(topic in (p.topics or ()) for p in peers if p.link == self.link):
                    hub._inbox.put((self.link, b"", [b"\x00" + topic.encode()]))
