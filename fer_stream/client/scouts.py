"""Finds out which of several aggregators answers first."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from fer_stream.client.replay import NOW
from fer_stream.errors import TransportError
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.settings.kinds import addresses

if TYPE_CHECKING:
    from fer_stream.plugins import Peer, Transport


class NoAnswerError(TransportError):
    """No aggregator answers in time. Trying again may help; after a refusal, another `TransportError`, it does not."""


class Scouts:
    """Connections to several aggregators, each of which is asked for its latest cursor. It never waits."""

    def __init__(self, transport: Transport, address: str) -> None:
        """Connect to each address in a list, and ask there.

        Raises:
            ConfigError: an address is invalid.
        """
        self._peers: dict[str, Peer] = {}
        try:
            for each in addresses(address):
                self._peers[each] = transport.connect(each, "control")
        except BaseException:
            self.close()
            raise
        for peer in self._peers.values():
            peer.send(messages.json_message(Kind.REPLAY, {"after": NOW}))

    def found(self) -> str:
        """Return the address of an aggregator that has answered, or an empty text.

        Raises:
            TransportError: an aggregator refuses this process.
            WireError: an answer is not that of an aggregator of this version.
        """
        for address, peer in self._peers.items():
            while (parts := peer.receive(0)) is not None:
                if messages.unpack(parts).kind is Kind.EVENTS:
                    return address
        return ""

    def descriptors(self) -> list[int]:
        """Return file descriptors; one of them becomes readable when an answer comes."""
        return [number for peer in self._peers.values() for number in peer.descriptors()]

    def diagnose(self) -> str:
        """Return why no answer comes, for each address."""
        return "; ".join(f"{address}: {peer.diagnose()}" for address, peer in self._peers.items())

    def close(self) -> None:
        """Close all connections."""
        for peer in self._peers.values():
            peer.close()


def first(transport: Transport, address: str, timeout: float) -> str:
    """Return the address in a list at which an aggregator answers first. A single address is not asked.

    Raises:
        NoAnswerError: none answers within ``timeout`` seconds.
        TransportError: an aggregator refuses this process.
        ConfigError: an address is invalid.
    """
    if len(addresses(address)) == 1:
        return address
    scouts = Scouts(transport, address)
    try:
        deadline = time.monotonic() + timeout
        while not (found := scouts.found()):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise no_answer(address, scouts.diagnose(), timeout)
            poller = select.poll()
            for descriptor in scouts.descriptors():
                poller.register(descriptor, select.POLLIN)
            poller.poll(1000 * min(remaining, 0.5))
        return found
    finally:
        scouts.close()


def no_answer(address: str, cause: str, seconds: float) -> NoAnswerError:
    """Return the error that no aggregator answered for so many seconds, with the known cause."""
    return NoAnswerError(
        f"no aggregator answers at {address} within {seconds:.3g} s: {cause}; "
        "start one, or give its address with --connect"
    )
