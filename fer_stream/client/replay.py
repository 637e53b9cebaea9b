"""Replay requests: what a subscriber has seen, how much it requests from the journal, and when it repeats a request.

This module uses neither sockets nor clocks: the caller gives the time, in seconds of a monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fer_stream.events.cursor import to_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fer_stream.plugins import ConnectionState
    from fer_stream.types import Event

LEAST, FIRST, MOST = 4_000, 16_000, 256_000
"""Least, first and most bytes of events to request at a time."""

QUICK, SLOW = 2.5, 5.0
"""In seconds: an answer faster than `QUICK` doubles the next request's size, one slower than `SLOW` halves it."""

PATIENCE, LONGEST = 2.0, 60.0
"""First and longest timeout, in seconds, after which an unanswered request is repeated."""

TRICKLE = 2_000
"""Bytes. Once this many have arrived during a wait, an answer is taken to be on its way."""

OPEN = 16
"""Most requests that are remembered, so that their late answers can be used."""

NOW = 2**62
"""Cursor number that requests no events, only the latest cursor."""


class Position:
    """What a subscriber has seen. It decides which events are new, and whether some may be missing in between.

    ``cursor`` is the number of the cursor up to which no event is missing. The cursors of one ``camera`` have gaps, so
    its sequence numbers decide. With all cameras they cannot: a missing event may be of another camera.
    """

    def __init__(self, cursor: int, camera: str | None = None) -> None:
        self.cursor = cursor
        self._camera = camera
        self._sequence: int | None = None

    def published(self, event: Event) -> bool:
        """Take a published event; ``True`` if it directly follows the last one seen, and is now recorded as seen.

        ``False`` means that it was seen before (``event.cursor <= cursor``) or that events may be missing before it.
        """
        if not self.follows(event):
            return False
        self._see(event)
        return True

    def follows(self, event: Event) -> bool:
        """Return whether this event is new and no event is missing before it."""
        number = to_number(event.cursor)
        if number <= self.cursor:
            return False
        return number == self.cursor + 1 or bool(self._camera and self._sequence == event.sequence - 1)

    def replayed(self, events: Sequence[Event], reached: int) -> list[Event]:
        """Take events from the journal, which are complete up to ``reached``; return the new ones."""
        new = [event for event in events if to_number(event.cursor) > self.cursor]
        for event in new:
            self._see(event)
        self.cursor = max(self.cursor, reached)
        return new

    def _see(self, event: Event) -> None:
        self.cursor = to_number(event.cursor)
        if event.sequence:
            self._sequence = event.sequence


class ReplayRequest(NamedTuple):
    """A REPLAY request for up to ``size`` bytes of events after a cursor; ``asked`` is the time (s) it was sent."""

    ticket: int
    after: int
    size: int
    asked: float


class ReplayRequests:
    """The replay requests of one subscriber. Only the latest is waited for; older ones were repeated before an answer.

    Late answers to older ones are used, too. A request is repeated after a timeout, which doubles with each unanswered
    request, or when the connection that it was sent on broke. Its size follows from how fast answers arrive.
    """

    def __init__(self, tickets: Iterator[int], size: int = FIRST) -> None:
        """Take tickets from an ascending iterator, and begin with requests of this many bytes, or `LEAST`."""
        self._tickets = tickets
        self._open: dict[int, ReplayRequest] = {}
        self._size = max(size, LEAST)
        self._patience = PATIENCE
        self._waiting = False
        self._since = self._last_sign = 0.0
        self._state: ConnectionState | None = None

    def due(self, now: float, state: ConnectionState) -> float:
        """Return the seconds until a request is due, 0 if it is due now."""
        if not self._waiting or self._state is None or self._state.number != state.number:
            return 0.0
        if not state.up:  # the request is sent when there is a connection
            self._since = now
        elif not 0 <= state.received - self._state.received < TRICKLE:  # an answer is on its way
            self._since = self._last_sign = now
            self._state = state
        return max(0.0, self._since + self._patience - now)

    def ask(self, after: int, now: float, state: ConnectionState) -> ReplayRequest:
        """Return the request to send now."""
        if not self._waiting:
            self._last_sign = now
        elif self._state is not None and self._state.number == state.number:
            self._patience = min(2 * self._patience, LONGEST)
            self._size = max(self._size // 2, LEAST)
        self._waiting, self._since, self._state = True, now, state
        ticket = next(self._tickets)
        request = self._open[ticket] = ReplayRequest(ticket, after, self._size, now)
        if len(self._open) > OPEN:
            del self._open[min(self._open)]
        return request

    def expects(self, ticket: int) -> bool:
        """Return whether a request with this ticket may still be answered."""
        return ticket in self._open

    def answered(self, ticket: int, size: int, now: float) -> ReplayRequest | None:
        """Take an answer of this many bytes; return its request, or ``None`` if there is none with this ticket."""
        request = self._open.pop(ticket, None)
        if request is None:
            return None
        took = now - request.asked
        if took < QUICK and size > request.size // 2:
            self._size = min(2 * request.size, MOST)
        elif took > SLOW:
            self._size = max(min(self._size, size // 2), LEAST)
        self._patience = min(max(PATIENCE, 2 * took), LONGEST)
        self._since = self._last_sign = now
        return request

    def settle(self) -> None:
        """Stop waiting for an answer; late answers are still used."""
        self._waiting = False

    def forget(self) -> None:
        """Discard all requests: none will be answered, or their answers are of no use any more."""
        self._open.clear()
        self._waiting = False

    def silent(self, now: float) -> float:
        """Return for how many seconds a request has waited without any part of an answer."""
        return now - self._last_sign if self._waiting else 0.0
