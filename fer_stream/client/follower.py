"""Follows a running aggregator's events without gaps: it requests published events that it missed.

`fer_stream.client.replay` decides which events are missing, and when to request how many bytes. This module uses the
links and the clock, but never waits: its caller waits until one of `Follower.descriptors` is readable or
`Follower.due_in` seconds have passed.
"""

from __future__ import annotations

import random
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.client.replay import NOW, Position, ReplayRequests
from fer_stream.client.scouts import Scouts
from fer_stream.errors import WireError
from fer_stream.events import cloudevents
from fer_stream.events.cursor import to_cursor, to_number
from fer_stream.journal import gap
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.settings.kinds import addresses
from fer_stream.types import BEGINNING, Event, EventType, GapData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.plugins import ConnectionState, Peer, Transport
    from fer_stream.types import Cursor

BEATING = 6
"""Factor by which an answer may take longer while the aggregator's events or heartbeats arrive."""

HELD = 1_000
"""Most published events held while earlier ones are requested. Beyond it, the oldest are dropped and requested, too."""

PULSE = 0.5
"""Seconds between checks of the links while nothing arrives, so that a dead one is noticed."""


SILENT = 5.0
"""Seconds without any message after which a follower that knows several aggregators looks for another one."""


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
        after: int | None,
        until_now: bool,
        timeout: float,
    ) -> None:
        """Connect. ``after`` is a cursor's number; the other arguments are those of `Subscription`."""
        self.ready: deque[tuple[Event, str]] = deque()
        """Events to return to the user next, with their texts."""
        self._transport, self._address = transport, address
        self._several = len(addresses(address)) > 1
        self._scouts: Scouts | None = None
        self._sought = 0.0
        self._connected: ConnectionState | None = None
        self._camera, self._types = camera, tuple(types)
        self._until_now, self._timeout = until_now, timeout
        self._position: Position | None = None if after is None else Position(after, camera)
        self._until: int | None = None
        self._requests = ReplayRequests(random.getrandbits(48))
        self._answer: deque[bytes] = deque()
        self._reached = self._newest = 0
        self._held: deque[tuple[Event, str] | int] = deque(maxlen=HELD)
        self._asking = True
        self._last_message = self._left = time.monotonic()
        self._away = 0.0
        self._received = 0
        self._links: _Links | None = None
        self._seek()

    def _seek(self) -> None:
        """Connect; to one of several aggregators once it has answered."""
        address = self._address
        if self._several:
            if self._scouts is None:
                self._scouts, self._sought = Scouts(self._transport, self._address), self._now()
            address = self._scouts.found()
            if not address:
                if self._now() - self._sought > self._timeout:
                    raise SilenceError(self._scouts, self._now() - self._sought)
                return
            self._end_search()
        self._links, self._asking = self._connect(address), True
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

    @property
    def cursor(self) -> Cursor:
        """The cursor up to which every event was returned: pass it as ``after`` to a `Subscription` to resume here."""
        if self.ready:
            first = self.ready[0][0]
            if isinstance(first.data, GapData):
                return first.data.from_cursor
            return to_cursor(to_number(first.cursor) - 1)
        return to_cursor(self._position.cursor) if self._position else BEGINNING

    @property
    def ended(self) -> bool:
        """Whether a subscription with ``until_now`` has returned all its events."""
        done = self._until is not None and self._position is not None and self._position.cursor >= self._until
        return self._until_now and done and not self.ready

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
        if self._links is None or not self._asking:
            return PULSE
        return min(PULSE, self._requests.due(self._now(), self._links.control.connection_state()))

    def descriptors(self) -> list[int]:
        """Return the file descriptors of the links; one of them becomes readable when a message arrives."""
        if self._scouts is not None:
            return self._scouts.descriptors()
        return [number for link in self._links or () for number in link.descriptors()]

    def step(self) -> bool:
        """Do the next step; ``False`` if there is nothing to do until a message arrives or time passes."""
        if self._links is not None and self._lost(self._links):
            self.disconnect()
        if self._links is None:  # a loop was left, or the aggregator is lost: connect, and request the events since
            self._seek()
        if self._links is None:
            return False
        if self._answer:
            self._take_line(self._answer.popleft())
            return True
        if self._held and not self._asking:
            self._take_held()
            return True
        if self._receive_answer(self._links) or self._receive_published(self._links.events):
            return True
        return self._asking and self._ask(self._links.control)

    def _ask(self, control: Peer) -> bool:
        """Send a request if one is due; return whether it did: sending may clear the signal of a received message."""
        now, state = self._now(), control.connection_state()
        if self._requests.due(now, state) > 0:
            self._check_timeout(now, control)
            return False
        after = NOW if self._position is None else self._position.cursor
        request = self._requests.ask(after, now, state)
        body = {"after": after, "camera": self._camera, "bytes": request.size}
        control.send(messages.json_message(Kind.REPLAY, body, ticket=request.ticket))
        return True

    def _check_timeout(self, now: float, control: Peer) -> None:
        received = control.connection_state().received
        if received > self._received > 0:
            self._last_message = now
        self._received = received
        silent = self._requests.silent(now)
        if silent > self._timeout and (now - self._last_message > self._timeout or silent > BEATING * self._timeout):
            raise SilenceError(control, silent)

    def _receive_answer(self, links: _Links) -> bool:
        parts = links.control.receive(0)
        if parts is None:
            return False
        message = messages.unpack(parts)
        now = self._last_message = self._now()
        request = self._requests.answered(message.ticket, len(message.payload), now)
        if message.kind is not Kind.EVENTS or request is None:
            return True
        newest = message.time
        if self._until is None:
            self._until = newest
        if self._position is None:
            self._position = Position(newest, self._camera)  # events from now on
            self._progress(newest, newest)
        elif request.after != NOW and request.after > newest:  # another journal: all its events are new
            missing = gap(self._position.cursor, 0, "another journal")
            self._position = Position(0, self._camera)
            self._requests.forget()
            self._held.clear()
            while links.events.receive(0) is not None:
                pass  # published from the old journal: their numbers would be taken for the new one's
            self._deliver(missing, cloudevents.encode(missing))
            self._progress(0, newest)
        elif request.after <= self._position.cursor and message.seq >= self._position.cursor:
            # Not splitlines: it would also split at U+2028 and others, which JSON texts may contain.
            self._answer.extend(bytes(message.payload).split(b"\n") if message.payload else ())
            self._reached, self._newest = message.seq, newest
            if not self._answer:
                self._position.replayed([], message.seq)
                self._progress(message.seq, newest)
        return True

    def _take_line(self, line: bytes) -> None:
        if self._position is None:
            raise AssertionError("an answer with events needs a position")
        event = cloudevents.decode(line)
        for new in self._position.replayed([event], 0):
            self._deliver(new, line.decode())
        if not self._answer:
            self._position.replayed([], self._reached)
            self._progress(self._reached, self._newest)

    def _progress(self, reached: int, newest: int) -> None:
        """Record that all events up to ``reached`` are known, and check whether the held ones continue from there."""
        self._requests.settle()
        self._asking = reached < newest
        while self._asking and self._held and self._position is not None:
            first = self._held[0]
            if not isinstance(first, int) and to_number(first[0].cursor) > self._position.cursor:
                self._asking = not self._position.follows(first[0])
                break
            self._held.popleft()

    def _receive_published(self, events: Peer) -> bool:
        parts = events.receive(0)
        if parts is None:
            return False
        self._last_message = self._now()
        topic, text = bytes(parts[0]), bytes(parts[1])
        if topic != b"/":
            self._held.append((cloudevents.decode(text), text.decode()))
            return True
        try:
            newest = to_number(text.decode())
        except ValueError as error:
            raise WireError(f"a heartbeat without a cursor: {error}") from error
        if self._held and isinstance(self._held[-1], int):
            self._held.pop()  # the newer heartbeat replaces the older one
        self._held.append(newest)
        return True

    def _take_held(self) -> None:
        if self._position is None:
            raise AssertionError("published events are taken only once there is a position")
        held = self._held.popleft()
        if isinstance(held, int):
            self._asking = held != self._position.cursor
            return
        event, text = held
        if self._position.published(event):
            self._deliver(event, text)
        elif to_number(event.cursor) > self._position.cursor:
            self._held.appendleft(held)
            self._asking = True

    def _deliver(self, event: Event, text: str) -> None:
        if wanted(event, self._types):
            self.ready.append((event, text))

    def disconnect(self) -> None:
        """Close the links; the next `step` connects again, and requests the events since."""
        self._end_search()
        links, self._links = self._links, None
        for link in links or ():
            link.close()
        self._requests.forget()
        self._held.clear()


def wanted(event: Event, types: Sequence[str]) -> bool:
    """Return whether an event has one of these types or families. Without types every event does; a gap always does."""
    if event.type is EventType.STREAM_GAP:
        return True
    family = event.type.partition(".")[0]
    return not types or event.type in types or family in types
