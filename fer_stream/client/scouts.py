"""Finds out which of several aggregators answers first."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fer_stream.client.replay import NOW
from fer_stream.errors import ConfigError, TransportError
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.settings.kinds import addresses
from fer_stream.system.waiting import wait_readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.plugins import Peer, Transport


class NoAnswerError(TransportError):
    """No aggregator answers in time. Trying again may help; after a refusal, another `TransportError`, it does not."""


class Scouts:
    """Connections to several aggregators, each of which is asked for its latest cursor. It never waits."""

    def __init__(self, transport: Transport, addresses: Sequence[str], others: Sequence[str] = ()) -> None:
        """Connect to each address, and ask there; also to ``others``, of which those that are invalid are left out.

        Raises:
            ConfigError: an address is invalid.
        """
        self._peers: dict[str, Peer] = {}
        self._refused: dict[str, TransportError] = {}
        try:
            for each in addresses:
                self._peers[each] = transport.connect(each, "control")
            for each in others:
                with suppress(ConfigError):
                    self._peers[each] = transport.connect(each, "control")
        except BaseException:
            self.close()
            raise
        for peer in self._peers.values():
            peer.send(messages.json_message(Kind.REPLAY, {"after": NOW}))

    def found(self) -> str:
        """Return the address of an aggregator that has answered, or an empty text.

        Raises:
            TransportError: all aggregators refuse this process.
            WireError: an answer is not that of an aggregator of this version.
        """
        for address, peer in self._peers.items():
            try:
                while (parts := peer.receive(0)) is not None:
                    if messages.unpack(parts).kind in (Kind.EVENTS, Kind.CURSOR):
                        return address
            except TransportError as error:
                self._refused[address] = error
        if len(self._refused) == len(self._peers):
            raise next(iter(self._refused.values()))
        return ""

    def descriptors(self) -> list[int]:
        """Return file descriptors; one of them becomes readable when an answer comes."""
        return [number for peer in self._peers.values() for number in peer.descriptors()]

    def diagnose(self) -> str:
        """Return why no answer comes, for each address."""
        causes = {address: self._refused.get(address) or peer.diagnose() for address, peer in self._peers.items()}
        return "; ".join(f"{address}: {cause}" for address, cause in causes.items())

    def close(self) -> None:
        """Close all connections."""
        for peer in self._peers.values():
            peer.close()


def first(transport: Transport, address: str, timeout: float, others: Sequence[str] = ()) -> str:
    """Return the address in a list, or of ``others``, at which an aggregator answers first. A single one is not asked.

    Raises:
        NoAnswerError: none answers within ``timeout`` seconds.
        TransportError: all aggregators refuse this process.
        ConfigError: an address is invalid.
    """
    several = addresses(address)
    if len(several) == 1 and not others:
        return address
    scouts = Scouts(transport, several, others)
    try:
        deadline = time.monotonic() + timeout
        while not (found := scouts.found()):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise no_answer(address, scouts.diagnose(), timeout)
            wait_readable(scouts.descriptors(), min(remaining, 0.5))
        return found
    finally:
        scouts.close()


def no_answer(address: str, cause: str, seconds: float) -> NoAnswerError:
    """Return the error that no aggregator answered for so many seconds, with the known cause."""
    return NoAnswerError(
        f"no aggregator answers at {address} within {seconds:.3g} s: {cause}; "
        "start one, or give its address with --connect"
    )
