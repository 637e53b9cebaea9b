"""An address on one of the transports, and helpers to send and receive there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fer_stream import plugins

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_stream.plugins import Hub, Peer, Transport

PATIENCE = 20.0
"""Seconds after which a test fails; everything takes less."""


class Network:
    """A transport and an address. `close` closes all hubs and peers that were opened."""

    def __init__(self, kind: str, address: str) -> None:
        self.kind = kind
        self.address = address
        self.transport: Transport = plugins.load("transports", kind)()
        self._open: list[Hub | Peer] = []

    def hub(self) -> Hub:
        return self._add(self.transport.bind(self.address))

    def peer(self, link: str = "frames") -> Peer:
        return self._add(self.transport.connect(self.address, link))

    def listener(self, *topics: str, link: str = "events") -> Peer:
        return self._add(self.transport.subscribe(self.address, link, list(topics)))

    def _add(self, end: Any) -> Any:
        self._open.append(end)
        return end

    def close(self) -> None:
        for end in reversed(self._open):  # peers first: without a hub, closing one waits for a second
            end.close()


def plain(parts: list[Any]) -> list[bytes]:
    return [bytes(part) for part in parts]


def until(ask: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = ask()
        if found:
            return found
    raise AssertionError("the result did not come in time")


def arrive(hub: Hub, count: int) -> list[tuple[str, bytes, list[bytes]]]:
    """Return the next ``count`` messages that a hub receives."""
    got: list[tuple[str, bytes, list[bytes]]] = []
    until(lambda: got.extend((link, peer, plain(parts)) for link, peer, parts in hub.receive(0.2)) or len(got) >= count)
    assert len(got) == count
    return got


def heard(peer: Peer) -> list[bytes]:
    return plain(until(lambda: peer.receive(0.2)))
