"""One ZeroMQ link: its endpoint, its socket options and limits, and how messages are sent and received."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import zmq

from fer_stream.errors import ConfigError, TransportError
from fer_stream.plugins import BROADCASTS, LINKS
from fer_stream.protocol import messages
from fer_stream.system import local

if TYPE_CHECKING:
    from collections.abc import Sequence

ALL = LINKS + BROADCASTS
HIGH_WATER = {"control": 1000, "frames": 1000, "work": 16, "events": 10_000, "observations": 100, "preview": 8}
"""Most messages queued for one peer. The protocol keeps frames few; a slow subscriber gets lost events by REPLAY."""

WITH_PICTURES = ("frames", "work", "preview")
"""Links with long messages. These are sent in pieces (`fer_stream.protocol.messages.split`)."""

ZERO_COPY_FROM = 65_536
"""Bytes from which passing a buffer by reference is cheaper than copying it."""

FOR_CLIENTS = ("control", "events")
"""Links of clients, whose network may be slow: over TCP, a long message or a retransmission may take seconds."""

KEEPALIVE = 1
"""Seconds without a packet until TCP sends a keepalive probe, and between two probes."""

MAX_SILENCE = {"frames": 10_000, "work": 10_000}
"""Milliseconds after which the kernel ends a connection whose peer acknowledges nothing or reads nothing, by link."""

MAX_CLIENT_SILENCE = 60_000
"""The same in milliseconds for the other links: a client may read nothing for a while."""

KEY = 40
"""Characters of the public half of an aggregator's key, which may follow its address after ``#``."""

MAX_IPC_PATH = 100
"""Most bytes of a socket's path: a little less than ``sockaddr_un`` holds on any system."""


def endpoint(address: str, link: str) -> str:
    """Return the ZeroMQ endpoint of one link of the aggregator at an address.

    Raises:
        ConfigError: this is not an address.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "ipc" and rest:
        if local.UNIX is None or not zmq.has("ipc"):
            raise ConfigError(f"{address}: this system has no ipc; give tcp://{local.HOST}:PORT")
        path = str(Path(rest).absolute() / link)
        if len(path.encode()) > MAX_IPC_PATH:
            raise ConfigError(f"the address {address} is too long for a socket: choose a folder with a shorter path")
        return f"ipc://{path}"
    if scheme == "tcp":
        try:
            parts = urlsplit(address)
            whole = not (parts.path or parts.query) and (not parts.fragment or len(parts.fragment) == KEY)
            if parts.hostname and parts.port and parts.port + len(ALL) <= 65_536 and whole:
                host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
                return f"tcp://{host}:{parts.port + ALL.index(link)}"
        except ValueError:
            pass
    raise ConfigError(f"{address!r} is not an address: give ipc://FOLDER or tcp://HOST:PORT")


def set_options(sock: zmq.Socket[bytes], link: str, where: str) -> None:
    """Set limits that libzmq leaves open by default: queue and message sizes, linger, keepalive, handshake."""
    slow = link in FOR_CLIENTS and where.startswith("tcp://")
    sock.set(zmq.SNDHWM, HIGH_WATER[link])
    sock.set(zmq.RCVHWM, HIGH_WATER[link])
    sock.set(zmq.MAXMSGSIZE, messages.MAX_PAYLOAD)
    sock.set(zmq.LINGER, 1000)
    sock.set(zmq.TCP_KEEPALIVE, 1)
    sock.set(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE)
    sock.set(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE)
    sock.set(zmq.TCP_MAXRT, MAX_SILENCE.get(link, MAX_CLIENT_SILENCE))
    sock.set(zmq.HANDSHAKE_IVL, 30_000 if slow else 5000)
    sock.set(zmq.IPV6, 1)


def send(sock: zmq.Socket[bytes], parts: Sequence[Any]) -> bool:
    """Send without waiting; ``False`` if the queue is full or a ROUTER does not know the peer.

    Raises:
        TransportError: the socket fails otherwise.
    """
    try:
        sock.send_multipart(parts, zmq.DONTWAIT, copy=sum(map(_size, parts)) < ZERO_COPY_FROM)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            return False
        raise TransportError(f"a message cannot be sent: {error.strerror}") from error
    return True


def _size(part: Any) -> int:
    return len(part) if isinstance(part, bytes) else memoryview(part).nbytes


def receive(sock: zmq.Socket[bytes]) -> list[zmq.Frame] | None:
    """Return the next message without waiting, or ``None``."""
    try:
        return sock.recv_multipart(zmq.DONTWAIT, copy=False)
    except zmq.Again:
        return None


def pieces(link: str, parts: Sequence[Any]) -> Sequence[Any]:
    """Return a message's parts as they are sent: split on the links `WITH_PICTURES`."""
    return messages.split(parts) if link in WITH_PICTURES else parts


def contents(link: str, frames: list[zmq.Frame], before: int = 0) -> list[Any]:
    """Return a received message's parts. The first ``before`` frames, a ROUTER's peer id or a topic, are not joined."""
    parts: list[Any] = [frame.bytes if len(frame) < ZERO_COPY_FROM else frame.buffer for frame in frames]
    return [*parts[:before], *messages.joined(parts[before:])] if link in WITH_PICTURES else parts
