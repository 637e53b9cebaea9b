"""Follows a running aggregator's events without gaps: it requests published events that it missed.

On one machine all events are in one journal. In a cell each partition has a journal, and every aggregator passes on the
events of all of them. `fer_stream.client.partition` follows each of these journals; this module passes messages between
them and the links of one aggregator, and puts their cursors together. It uses the clock, but never waits: its caller
waits until one of `Follower.descriptors` is readable or `Follower.due_in` seconds have passed.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.client.partition import PartitionFollower, starts
from fer_stream.client.replay import FIRST
from fer_stream.client.scouts import Scouts
from fer_stream.client.state import places
from fer_stream.errors import ConfigError, WireError
from fer_stream.events import cloudevents
from fer_stream.events.cursor import CellCursor, to_cursor, to_number, to_numbers
from fer_stream.fleet.partitions import partition
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.settings.kinds import addresses
from fer_stream.types import BEGINNING, Event, EventType, GapData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.plugins import ConnectionState, Peer, Transport
    from fer_stream.protocol.messages import Message
    from fer_stream.types import Cursor

BEATING = 6
"""Factor by which an answer may take longer while the aggregator's events or heartbeats arrive."""

PULSE = 0.5
"""Seconds between checks of the links while nothing arrives, so that a dead one is noticed."""


SILENT = 5.0
"""Seconds without any message after which a follower that knows several aggregators looks for another one."""

OTHERS = 300.0
"""Seconds between two questions to a cell's aggregator where the others are. They are asked when no events are."""


DOUBT = 10.0
"""Seconds during which a cell's aggregator must say that a partition begins anew. For some seconds after a fault it may
not know yet what is stored, although another one has published it already."""


class SilenceError(Exception):
    """No answer came for ``seconds`` seconds. The caller looks up the cause, which may take a second."""

    def __init__(self, silent: Peer | Scouts, seconds: float) -> None:
        self.silent, self.seconds = silent, seconds


class _Links(NamedTuple):
    events: Peer
    control: Peer


class Follower:
    """Follows one aggregator's events. Call `step` until it returns ``False``, then wait.

    `step` raises `SilenceError` after ``timeout`` seconds without an answer, and the errors of the links.
    """

    def __init__(
        self,
        transport: Transport,
        address: str,
        *,
        camera: str | None,
        types: Sequence[str],
        after: tuple[int, ...] | None,
        until_now: bool,
        timeout: float,
    ) -> None:
        """Connect. ``after`` has a cursor's numbers; the other arguments are those of `Subscription`."""
        self.ready: deque[tuple[Event, str]] = deque()
        """Events to return to the user next, with their texts."""
        self._transport, self._given = transport, addresses(address)
        self._others: tuple[str, ...] = ()
        self._scouts: Scouts | None = None
        self._sought = 0.0
        self._connected: ConnectionState | None = None
        self._camera, self._types = camera, tuple(types)
        self._after, self._until_now, self._timeout = after, until_now, timeout
        self._tickets = itertools.count(random.getrandbits(48))
        # The first request of each connection finds out how many partitions there are. One stands for all until then.
        self._count: int | None = None
        self._opened = False
        self._parts = {0: self._part(0, after[0] if after is not None and len(after) == 1 else None)}
        self._active: deque[int] = deque()
        self._delivered: CellCursor | None = None
        self._last_message = self._left = time.monotonic()
        self._others_due = 0.0
        self._ask_due = 0.0
        self._away = 0.0
        self._received = 0
        self._links: _Links | None = None
        self._seek()

    def _part(self, number: int, after: int | None, **how: Any) -> PartitionFollower:
        return PartitionFollower(after, self._camera, partial(self._deliver, number), self._tickets, **how)

    # Connections

    @property
    def _where(self) -> str:
        return ",".join(self._given)

    @property
    def _several(self) -> bool:
        return len(self._given) + len(self._others) > 1

    def _seek(self) -> None:
        """Connect; to one of several aggregators once it has answered."""
        address = self._given[0]
        if self._several:
            if self._scouts is None:
                self._scouts, self._sought = Scouts(self._transport, self._given, self._others), self._now()
            address = self._scouts.found()
            if not address:
                if self._now() - self._sought > self._timeout:
                    raise SilenceError(self._scouts, self._now() - self._sought)
                return
            self._end_search()
        self._links = self._connect(address)
        self._connected, self._last_message = None, self._now()

    def _end_search(self) -> None:
        scouts, self._scouts = self._scouts, None
        if scouts is not None:
            scouts.close()

    def _lost(self, links: _Links) -> bool:
        """Return whether one of several aggregators is lost, so that another one is sought."""
        if not self._several:
            return False
        before, self._connected = self._connected, links.control.connection_state()
        broken = (
            before is not None and before.up and not (self._connected.up and before.number == self._connected.number)
        )
        return broken or self._now() - self._last_message > SILENT

    def _connect(self, address: str) -> _Links:
        events = self._transport.subscribe(address, "events", ["/", f"{self._camera}/"] if self._camera else [""])
        try:
            return _Links(events, self._transport.connect(address, "control"))
        except BaseException:
            events.close()
            raise

    def disconnect(self) -> None:
        """Close the links; the next `step` connects again, and requests the events since."""
        self._end_search()
        links, self._links = self._links, None
        for link in links or ():
            link.close()
        self._opened = False
        for part in self._parts.values():
            part.disconnected()

    # What the user sees

    @property
    def cursor(self) -> Cursor:
        """The cursor up to which every event was returned: pass it as ``after`` to a `Subscription` to resume here."""
        if self.ready:
            first = self.ready[0][0]
            if isinstance(first.data, GapData):
                return first.data.from_cursor
            numbers = list(to_numbers(first.cursor))
            numbers[partition(first.camera, len(numbers))] -= 1
            return to_cursor(*numbers)
        if self._count is None:
            return BEGINNING if self._after is None else to_cursor(*self._after)
        return to_cursor(*[part.position or 0 for part in self._parts.values()])

    @property
    def ended(self) -> bool:
        """Whether a subscription with ``until_now`` has returned all its events."""
        return self._until_now and not self.ready and all(map(_done, self._parts.values()))

    # Time in the user's code, between `leave` and `enter`, does not count towards timeouts beyond `PULSE` seconds.

    def enter(self) -> None:
        """Count time again: the user asks for events."""
        self._away += max(0.0, time.monotonic() - self._left - PULSE)

    def leave(self) -> None:
        """Stop counting time: control returns to the user."""
        self._left = time.monotonic()

    def _now(self) -> float:
        return time.monotonic() - self._away

    def due_in(self) -> float:
        """Return the seconds until a check or request is due, even if nothing arrives."""
        if self._links is None:
            return PULSE
        now, state = self._now(), self._links.control.connection_state()
        return min(PULSE, *(part.due(now, state) for _, part in self._asking()))

    def descriptors(self) -> list[int]:
        """Return the file descriptors of the links; one of them becomes readable when a message arrives."""
        if self._scouts is not None:
            return self._scouts.descriptors()
        return [number for link in self._links or () for number in link.descriptors()]

    # Steps

    def step(self) -> bool:
        """Do the next step; ``False`` if there is nothing to do until a message arrives or time passes."""
        if self._links is not None and self._lost(self._links):
            self.disconnect()
        if self._links is None:  # a loop was left, or the aggregator is lost: connect, and request the events since
            self._seek()
        if self._links is None:
            return False
        if self._active:
            self._go_on(self._active[0])
            return True
        return (
            self._receive_answer(self._links)
            or self._ask_in_time(self._links)
            or self._receive_published(self._links)
            or self._ask(self._links)
        )

    def _ask_in_time(self, links: _Links) -> bool:
        """Send the requests that are due, every `PULSE` seconds: more may be published than this process can read."""
        now = self._now()
        if now < self._ask_due:
            return False
        if self._ask(links):
            return True
        self._ask_due = now + PULSE
        return False

    def _go_on(self, number: int) -> None:
        """Do the next step of a partition for which something has arrived."""
        part = self._parts[number]
        if not part.step():
            self._active.popleft()
            if self._delivered is not None and part.position is not None:
                self._delivered.at(number, part.position)

    def _asking(self) -> list[tuple[int, PartitionFollower]]:
        """Return the partitions that may send requests: until one answer has opened the connection, only the first."""
        return list(self._parts.items() if self._opened else itertools.islice(self._parts.items(), 1))

    def _ask(self, links: _Links) -> bool:
        """Send a request if one is due; return whether it did: sending may clear the signal of a received message."""
        now, state = self._now(), links.control.connection_state()
        soonest = math.inf
        for number, part in self._asking():
            due = part.due(now, state)
            if due <= 0:
                ticket, body = part.ask(now, state)
                if self._opened and self._count != 1:
                    body["partition"] = number
                links.control.send(messages.json_message(Kind.REPLAY, body, ticket=ticket))
                return True
            soonest = min(soonest, due)
        if soonest < math.inf:
            self._check_timeout(now, links.control)
        elif self._count != 1 and now >= self._others_due:
            self._others_due = now + OTHERS
            links.control.send(messages.json_message(Kind.STATUS))
            return True
        return False

    def _check_timeout(self, now: float, control: Peer) -> None:
        received = control.connection_state().received
        if received > self._received > 0:
            self._last_message = now
        self._received = received
        silent = max(part.silent(now) for part in self._parts.values())
        if silent > self._timeout and (now - self._last_message > self._timeout or silent > BEATING * self._timeout):
            raise SilenceError(control, silent)

    def _receive_answer(self, links: _Links) -> bool:
        parts = links.control.receive(0)
        if parts is None:
            return False
        message = messages.unpack(parts)
        now = self._last_message = self._now()
        if message.kind is Kind.STATUS:
            self._take_others(message)
            return True
        number = next((number for number, part in self._parts.items() if part.expects(message.ticket)), None)
        if number is not None and message.kind is Kind.CURSOR and not self._opened:
            self._open(_numbers(message.body().get("cursor")))
        elif number is not None and message.kind is Kind.EVENTS:
            if not self._opened:
                starts(self._after or (0,), 1, self._where)
                self._check_count(1)
            if self._parts[number].answered(message, now):
                while links.events.receive(0) is not None:
                    pass  # published from the old journal: their numbers would be taken for the new one's
            self._active.append(number)
        return True

    def _receive_published(self, links: _Links) -> bool:
        parts = links.events.receive(0)
        if parts is None:
            return False
        self._last_message = self._now()
        topic, text = bytes(parts[0]), bytes(parts[1])
        if topic != b"/":
            event = cloudevents.decode(text)
            number = partition(event.camera, self._count or 1)
            if number in self._parts:
                self._parts[number].published(event, text.decode())
                self._active.append(number)
            return True
        numbers = _numbers(text.decode(errors="replace"))
        if len(numbers) == (self._count or 1):
            for number, part in self._parts.items():
                if part.beat(numbers[number]):
                    self._active.append(number)
        return True  # of other partitions only before the connection is opened: see `_check_count`

    # Partitions

    def _check_count(self, count: int) -> None:
        """Take how many partitions the aggregator has, which opens the connection. It never changes.

        Raises:
            ConfigError: it has changed.
        """
        if self._count not in (None, count):
            raise ConfigError(
                f"the number of partitions at {self._where} has changed from {self._count} to {count}, so these are "
                "other events: give addresses of one cell, and subscribe again"
            )
        self._count, self._opened = count, True

    def _open(self, latest: tuple[int, ...]) -> None:
        """Take the latest cursor of a cell: it says how many partitions there are, and which of them to ask."""
        count = len(latest)
        if self._count is None:
            after = starts(latest if self._after is None else self._after, count, self._where)
            followed = [partition(self._camera, count)] if self._camera else range(count)
            how = {"size": FIRST // len(followed), "doubt": DOUBT}
            self._parts = {number: self._part(number, after[number], **how) for number in followed}
            self._active.clear()
            self._delivered = CellCursor(after) if len(followed) > 1 else None
        self._check_count(count)
        for number, part in self._parts.items():
            part.opened(latest[number], complete=self._until_now)

    def _take_others(self, status: Message) -> None:
        """Take the addresses of a cell's other aggregators, which are tried when this one is lost."""
        known = {address.partition("#")[0] for address in self._given}
        found = places(status.body()).values()
        self._others = tuple(place for place in found if place.partition("#")[0] not in known)

    def _deliver(self, number: int, event: Event, text: str) -> None:
        """Take the next event of a partition; one of a whole cell gets the cell's cursor at this event."""
        if not wanted(event, self._types):
            return
        if (cell := self._delivered) is not None:  # all events up to its numbers have been delivered
            event, text = cloudevents.with_cursors(event, text, lambda cursor: cell.at(number, to_number(cursor)))
        self.ready.append((event, text))


def _done(part: PartitionFollower) -> bool:
    return part.newest is not None and part.position is not None and part.position >= part.newest


def _numbers(cursor: object) -> tuple[int, ...]:
    """Return the numbers of a cursor that an aggregator has sent.

    Raises:
        WireError: it is not a cursor.
    """
    try:
        return to_numbers(cursor if isinstance(cursor, str) else "")
    except ValueError as error:
        raise WireError(f"an aggregator's message without a cursor: {error}") from error


def wanted(event: Event, types: Sequence[str]) -> bool:
    """Return whether an event has one of these types or families. Without types every event does; a gap always does."""
    if event.type is EventType.STREAM_GAP:
        return True
    family = event.type.partition(".")[0]
    return not types or event.type in types or family in types
