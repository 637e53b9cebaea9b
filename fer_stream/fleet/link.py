"""The link of a capture or a worker to its aggregator, wherever that is: it carries out the commands of a `Seeker`.

It knows several addresses, or one. With one, and until an aggregator names others, it does what a single `Peer` does:
it waits for that aggregator for ever.
"""

from __future__ import annotations

import logging
import threading
import time
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ConfigError
from fer_stream.fleet import answers
from fer_stream.fleet.records import Place
from fer_stream.fleet.seeker import Connect, Seeker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fer_stream.plugins import Peer, Transport

PATIENCE = 5.0
"""Seconds without a welcome after which a warning is logged."""

_log = logging.getLogger(__name__)


class Link:
    """See the module docstring. Pass it the answers by `welcome` and `moved`, and call `turn` often.

    All methods belong to one thread, except `wake`.
    """

    def __init__(
        self, transport: Transport, addresses: Sequence[str], link: str, numbers: Random | None = None
    ) -> None:
        """Connect to the first of these addresses that ``numbers`` chooses.

        Args:
            transport: makes the connections.
            addresses: of aggregators; the public half of an aggregator's key may follow, after ``#``.
            link: ``frames`` or ``work``.
            numbers: random numbers, for tests.

        Raises:
            ConfigError: the chosen address is invalid.
        """
        self._transport, self._name = transport, link
        self._given = [_parse(text) for text in addresses]
        # A place is known by its address alone. So it is the same with and without its key.
        self._keys = {place.address: place.key for place in self._given}
        self._seeker = Seeker([Place(place.address) for place in self._given], numbers or SystemRandom())
        self._peer: Peer | None = None
        self._up, self._number = False, 0
        self._speaks = False  # whether the aggregator sends something once a second
        self._hello = False
        self._sought, self._warned = time.monotonic(), False
        self._do(self._seeker.tick(self._sought), self._sought)

    # Messages

    def send(self, parts: Sequence[Any]) -> bool:
        """See `fer_stream.plugins.Peer.send`."""
        return self.peer.send(parts)

    def receive(self, timeout: float) -> list[Any] | None:
        """See `fer_stream.plugins.Peer.receive`."""
        parts = self.peer.receive(timeout)
        if parts is not None:
            self._seeker.heard(time.monotonic())
        return parts

    def wake(self) -> None:
        """See `fer_stream.plugins.Peer.wake`."""
        if self._peer is not None:
            self._peer.wake()

    def close(self) -> None:
        """See `fer_stream.plugins.Peer.close`."""
        self.peer.close()

    @property
    def peer(self) -> Peer:
        """The connection to the present place."""
        if self._peer is None:
            raise AssertionError("a link always has a peer")
        return self._peer

    @property
    def address(self) -> str:
        """The address of the present place."""
        return self._seeker.place.address if self._seeker.place else self._given[0].address

    @property
    def resting(self) -> bool:
        """Whether it is not the time to say HELLO or READY: it was answered, and the answer says to come later."""
        return self._seeker.state == "resting"

    # Answers

    def welcome(self, body: dict[str, Any]) -> None:
        """Take the body of WELCOME.

        Raises:
            WireError: it is invalid.
        """
        answer, now = answers.welcome(body), time.monotonic()
        self._speaks = answer is not None
        state = self.peer.connection_state()
        self._up, self._number = state.up, state.number
        self._seeker.welcome(self._known(answer.others) if answer else self._seeker.places, now)
        if self._warned:
            _log.warning("the aggregator at %s is reached after %.0f s", self.address, now - self._sought)
        self._warned = False

    def moved(self, body: dict[str, Any]) -> None:
        """Take the body of MOVED; `turn` says what follows.

        Raises:
            WireError: it is invalid.
        """
        answer, now = answers.moved(body), time.monotonic()
        (place,) = self._known([answer.place]) if answer.place else (None,)
        self._sought = now
        self._do(self._seeker.moved(place, answer.wait, self._known(answer.others), now), now)

    # Time

    def turn(self) -> bool:
        """Do what is due: connect elsewhere, for example. Return whether to say HELLO or READY now.

        Raises:
            ConfigError: an address in the settings is invalid.
        """
        now, seeker = time.monotonic(), self._seeker
        if seeker.state == "resting":
            self._do(seeker.tick(now), now)
        elif not self._alone:
            if seeker.state == "welcome" and not self._speaks:
                seeker.heard(now)  # an older aggregator may be silent for long
            self._do(seeker.broken(now) if self._broke() else seeker.tick(now), now)
            self._report(now)
        said, self._hello = self._hello, False
        return said

    @property
    def _alone(self) -> bool:
        """Whether there is no other place than the present one."""
        return all(place == self._seeker.place for place in self._seeker.places)

    def _broke(self) -> bool:
        state, was_up = self.peer.connection_state(), self._up
        self._up = state.up
        changed, self._number = state.number != self._number, state.number
        return changed or (was_up and not state.up)

    def _do(self, command: object, now: float) -> None:
        """Carry out a command of the seeker."""
        if command is None:
            return
        self._hello = True
        if isinstance(command, Connect):
            self._connect(command.place, now)

    def _connect(self, place: Place, now: float) -> None:
        key = self._keys.get(place.address, "")
        given = any(place.address == known.address for known in self._given)
        try:
            peer = self._transport.connect(f"{place.address}#{key}" if key else place.address, self._name)
        except ConfigError as error:
            if given:
                raise
            _log.warning("the aggregator sends this process to a place that it cannot connect to: %s", error)
            self._seeker.broken(now)
            self._hello = False
            return
        before, self._peer = self._peer, peer
        self._up, self._number, self._speaks = False, 0, False
        if before is not None:
            _log.info("connecting to the aggregator at %s", place.address)
            # Closing waits up to a second for what is queued, and that place may be dead: the search must not wait.
            threading.Thread(target=before.close, name="leaving", daemon=True).start()

    def _known(self, places: Sequence[Place]) -> list[Place]:
        """Remember the keys of these places, and return them without."""
        self._keys |= {place.address: place.key for place in places if place.key}
        return [Place(place.address) for place in places]

    def _report(self, now: float) -> None:
        if self._seeker.state == "welcome":
            self._sought = now
        elif now - self._sought > PATIENCE and not self._warned:
            self._warned = True
            everywhere = ", ".join(place.address for place in self._seeker.places)
            _log.warning("none of the aggregators at %s welcomes this process yet: it tries on", everywhere)


def _parse(text: str) -> Place:
    address, _, key = text.partition("#") if text.startswith("tcp://") else (text, "", "")
    return Place(address, key)
