"""The interfaces of transports, which carry messages between the processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


LINKS = ("control", "frames", "work")
"""Links with answers from the aggregator: control for clients, frames for captures, work for workers."""


BROADCASTS = ("events", "observations", "preview")
"""Links on which the aggregator publishes to all subscribers."""


class Hub(Protocol):
    """The aggregator's end of a transport: many peers, each with an opaque id."""

    key: str
    """The public half of this aggregator's key, which peers need to connect; empty if they need none."""

    def receive(self, timeout: float) -> list[tuple[str, bytes, list[Any]]]:
        """Wait up to ``timeout`` seconds, then return all received messages as ``(link, peer, parts)``.

        A part is a bytes-like object. A message of a broadcast link has one part, a byte followed by a topic: 1 for
        each new subscription to it, 0 when the last one ends.
        """
        ...

    def send(self, link: str, peer: bytes, parts: Sequence[Any]) -> bool:
        """Send to one peer without waiting; ``False`` if the peer is gone or its queue is full."""
        ...

    def objection(self, peer: bytes, camera: str) -> str:
        """Return why a peer may not send frames for a camera, or an empty text.

        The latest `receive` must have returned a message from this peer on the link ``frames``.
        """
        ...

    def may_read(self, peer: bytes) -> bool:
        """Return whether a peer may read the status and stored events.

        The latest `receive` must have returned a message from this peer on the link ``control``.
        """
        ...

    def annotator(self, peer: bytes) -> str | None:
        """Return the only name under which a peer may annotate; empty: under any; ``None``: it may not.

        The latest `receive` must have returned a message from this peer on the link ``control``.
        """
        ...

    def publish(self, link: str, topic: str, parts: Sequence[Any]) -> None:
        """Send to all subscribers of a prefix of ``topic`` without waiting. A full queue drops the message."""
        ...

    def wake(self) -> None:
        """Make the waiting `receive`, or the next one, return at once. The only method that other threads may call."""
        ...

    def close(self) -> None:
        """Close all links; queued messages have up to a second to be sent."""
        ...


class ConnectionState(NamedTuple):
    """The state of a link's connection, as far as its transport knows it."""

    up: bool
    """Whether there is a connection. Until there is one, messages that are sent wait in a queue."""
    number: int
    """A number that changes when the connection breaks: messages sent before may be lost."""
    received: int
    """Bytes received on this connection, including an incomplete message; 0 if unknown."""


class Peer(Protocol):
    """The other end of one link: a capture, a worker, a client. It reconnects by itself, without limit."""

    def send(self, parts: Sequence[Any]) -> bool:
        """Send without waiting; ``False`` if the queue is full."""
        ...

    def receive(self, timeout: float) -> list[Any] | None:
        """Return the next message's parts, or ``None`` after ``timeout`` seconds or a `wake`.

        Raises:
            TransportError: the aggregator refuses this peer. A missing aggregator is no error: the peer waits for it.
        """
        ...

    def wake(self) -> None:
        """Make the waiting `receive`, or the next one, return at once. The only method that other threads may call."""
        ...

    def descriptors(self) -> tuple[int, ...]:
        """Return file descriptors to wait on in an event loop.

        One of them becomes readable when `receive` has a message. Call ``receive(0)`` until it returns ``None`` before
        waiting: descriptors do not signal earlier messages again.
        """
        ...

    def connection_state(self) -> ConnectionState:
        """Return the state of this link at the latest `receive`."""
        ...

    def diagnose(self) -> str:
        """Return why no answer comes, as words that follow the address: "nothing listens there". May take a second."""
        ...

    def close(self) -> None:
        """Close; queued messages have up to a second to be sent."""
        ...


class Allowed(Protocol):
    """The keys that a transport lets in. Asked for each new connection, and for each camera."""

    def may(self, public: str, link: str) -> bool:
        """Return whether the key with this public half opens a link."""
        ...

    def objection(self, public: str, camera: str) -> str:
        """Return why a key may not send frames for a camera, or an empty text."""
        ...

    def may_read(self, public: str) -> bool:
        """Return whether a key may read the status and stored events on the link ``control``."""
        ...

    def annotator(self, public: str) -> str | None:
        """Return the only name under which a key may annotate; empty: under any; ``None``: it may not."""
        ...


class Transport(Protocol):
    """Connects the roles. One address names an aggregator with all its links (`LINKS`, `BROADCASTS`).

    Its factory gets the process's key file, and the aggregator's folder of keys (`fer_stream.transports.keys`); each is
    ``None`` if the settings name none.
    """

    def bind(self, address: str, allowed: Allowed | None = None) -> Hub:
        """Open every link of an aggregator.

        Args:
            address: where it listens.
            allowed: the keys that are allowed, in a cell; by default those in the folder of keys.

        Raises:
            TransportError: the address is in use, or cannot be bound.
            ConfigError: this is not an address.
        """
        ...

    def connect(self, address: str, link: str) -> Peer:
        """Open one link to the aggregator at ``address``, which may start later.

        The public half of that aggregator's key may follow the address, after ``#``.
        """
        ...

    def subscribe(self, address: str, link: str, topics: Sequence[str]) -> Peer:
        """Subscribe to a broadcast link: messages arrive as ``[topic, *parts]``. An empty topic stands for all."""
        ...
