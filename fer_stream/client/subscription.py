"""Subscriptions to the events of a running aggregator, without gaps: missing published events are requested again.

`fer_stream.client.replay` decides which events are missing, and how many bytes to request when. This module has the
sockets and the clock.
"""

from __future__ import annotations

import asyncio
import math
import random
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from fer_stream import plugins
from fer_stream.client.replay import NOW, Position, Questions
from fer_stream.errors import ConfigError, TransportError, WireError
from fer_stream.events import cloudevents
from fer_stream.events.cursor import to_cursor, to_number
from fer_stream.journal import gap
from fer_stream.protocol import wire
from fer_stream.protocol.wire import Kind
from fer_stream.types import BEGINNING, Event, EventType, GapData

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from fer_stream.plugins import Peer
    from fer_stream.types import Cursor

TIMEOUT = 10.0
"""Seconds without an answer after which a subscription to all events until now fails."""

BEATING = 6
"""Factor by which an answer may take longer while the aggregator's events or heartbeats arrive."""

HELD = 1_000
"""Most published events held while earlier ones are requested. Beyond it the oldest are dropped, and requested, too."""

PULSE = 0.5
"""Seconds between checks of the links while nothing arrives, so that a dead one is noticed."""

TURN = 0.005
"""Seconds of work after which a subscription yields to the event loop, even if more events are ready."""


class NoAnswerError(TransportError):
    """No aggregator answers in time. Trying again may help; after a refusal, another `TransportError`, it does not."""


class _SilenceError(Exception):
    """No answer came for so many seconds. Looking up the cause may take a second, and is left to the caller."""

    def __init__(self, control: Peer, seconds: float) -> None:
        self.control, self.seconds = control, seconds


class _Links(NamedTuple):
    events: Peer
    control: Peer


class Subscription:
    """Events of a running aggregator, in order and without a gap. Iterate over it, with ``for`` or ``async for``.

    It waits for an aggregator that is not running, and resumes where it was. Save ``cursor`` to resume in a later
    process. Leaving a loop closes the sockets; the next loop continues from there.

    Use it in one thread or event loop at a time. In an event loop it waits on its sockets and needs no thread.
    """

    def __init__(
        self,
        address: str,
        *,
        camera: str | None = None,
        types: Sequence[str] = (),
        after: str | Literal[0] | None = None,
        until_now: bool = False,
        timeout: float | None = None,
        transport: str = "zeromq",
        key: Path | None = None,
        keys: Path | None = None,
    ) -> None:
        """Subscribe.

        Args:
            address: the aggregator's address.
            camera: only this camera's events.
            types: only these types, each in full (``emotion.started``) or a family (``emotion``); empty: all types.
            after: the cursor to resume after, from an event or ``cursor``; 0: all journaled events; ``None``: only
                events from now on.
            until_now: end after the latest event that was journaled when the subscription began.
            timeout: seconds without an answer until `NoAnswerError` is raised; ``math.inf``: never. ``None``: 10 with
                ``until_now``, never without.
            transport: name of the transport plug-in.
            key: this process's key file, needed for an aggregator on another machine.
            keys: the aggregator's folder of keys, if it runs on this machine.

        Raises:
            ConfigError: the address, the cursor or the timeout is invalid.
        """
        self._position: Position | None = None if after is None else Position(number_after(after), camera)
        if timeout is not None and not timeout > 0:
            raise ConfigError(f"{timeout} is not a timeout: give seconds, or math.inf to wait for ever")
        self._transport: plugins.Transport = plugins.load("transports", transport)(key, keys)
        self._address = address
        self._camera = camera
        self._types = tuple(types)
        self._until_now = until_now
        self._timeout = timeout if timeout is not None else TIMEOUT if until_now else math.inf
        self._until: int | None = None
        self._questions = Questions(random.getrandbits(48))
        self._ready: deque[tuple[Event, str]] = deque()
        self._answer: deque[bytes] = deque()
        self._reached = self._newest = 0
        self._held: deque[tuple[Event, str] | int] = deque(maxlen=HELD)
        self._asking = True
        self._heard = self._left = time.monotonic()
        self._away = 0.0
        self._received = 0
        self._closed = False
        self._loop: object | None = None
        self._woken: asyncio.Future[None] | None = None
        self._links: _Links | None = self._connect()

    def _connect(self) -> _Links:
        events = self._transport.subscribe(self._address, "events", ["/", f"{self._camera}/"] if self._camera else [""])
        try:
            return _Links(events, self._transport.connect(self._address, "control"))
        except BaseException:
            events.close()
            raise

    @property
    def cursor(self) -> Cursor:
        """The cursor up to which every event was returned: ``after`` of a `Subscription` that resumes here."""
        if self._ready:
            first = self._ready[0][0]
            if isinstance(first.data, GapData):
                return first.data.from_cursor
            return to_cursor(to_number(first.cursor) - 1)
        return to_cursor(self._position.cursor) if self._position else BEGINNING

    @property
    def ended(self) -> bool:
        """Whether a subscription with ``until_now`` has returned all its events."""
        done = self._until is not None and self._position is not None and self._position.cursor >= self._until
        return self._until_now and done and not self._ready

    def receive(self, timeout: float) -> tuple[Event, str] | None:
        """Return the next event and its text as journaled, or ``None`` after ``timeout`` seconds or at the end.

        Raises:
            TransportError: the aggregator refuses this process, does not answer in time (see ``timeout`` of
                `Subscription`), or the subscription is closed.
            WireError: the answer is not that of an aggregator of this version.
        """
        if self._closed:
            raise TransportError("this subscription is closed: subscribe again")
        deadline = time.monotonic() + timeout
        self._return()
        try:
            while not self._ready and not self.ended:
                if self._step():
                    continue
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return None
                poller = select.poll()
                for descriptor in self._descriptors():
                    poller.register(descriptor, select.POLLIN)
                poller.poll(1000 * min(remaining, self._pause()))
            return self._ready.popleft() if self._ready else None
        except _SilenceError as error:
            raise no_answer(self._address, error.control, error.seconds) from None
        finally:
            self._left = time.monotonic()

    # Time that the caller spends outside does not count towards timeouts, except for up to PULSE per call.

    def _return(self) -> None:
        self._away += max(0.0, time.monotonic() - self._left - PULSE)

    def _now(self) -> float:
        return time.monotonic() - self._away

    def _pause(self) -> float:
        """Return the seconds until a check or request is due, even if nothing arrives."""
        if self._links is None or not self._asking:
            return PULSE
        return min(PULSE, self._questions.due(self._now(), self._links.control.standing()))

    def _descriptors(self) -> list[int]:
        return [number for link in self._links or () for number in link.descriptors()]

    # Steps, none of which waits

    def _step(self) -> bool:
        """Do the next step; ``False`` if there is nothing to do until a message arrives or time passes."""
        if self._links is None:  # a loop was left: reconnect, and request the events since
            self._links, self._asking = self._connect(), True
        if self._answer:
            self._take_line(self._answer.popleft())
            return True
        if self._held and not self._asking:
            self._take_held()
            return True
        if self._hear_control(self._links) or self._hear_events(self._links.events):
            return True
        return self._asking and self._ask(self._links.control)

    def _ask(self, control: Peer) -> bool:
        """Send a request if it is due; return whether it was: sending may have cleared a descriptor's signal."""
        now, standing = self._now(), control.standing()
        if self._questions.due(now, standing) > 0:
            self._check_patience(now, control)
            return False
        after = NOW if self._position is None else self._position.cursor
        question = self._questions.ask(after, now, standing)
        body = {"after": after, "camera": self._camera, "bytes": question.size}
        control.send(wire.json_message(Kind.REPLAY, body, ticket=question.ticket))
        return True

    def _check_patience(self, now: float, control: Peer) -> None:
        received = control.standing().received
        if received > self._received > 0:
            self._heard = now
        self._received = received
        silent = self._questions.silent(now)
        if silent > self._timeout and (now - self._heard > self._timeout or silent > BEATING * self._timeout):
            raise _SilenceError(control, silent)

    def _hear_control(self, links: _Links) -> bool:
        parts = links.control.receive(0)
        if parts is None:
            return False
        message = wire.unpack(parts)
        now = self._heard = self._now()
        question = self._questions.answered(message.ticket, len(message.payload), now)
        if message.kind is not Kind.EVENTS or question is None:
            return True
        newest = message.time
        if self._until is None:
            self._until = newest
        if self._position is None:
            self._position = Position(newest, self._camera)  # events from now on
            self._progress(newest, newest)
        elif question.after != NOW and question.after > newest:  # another journal: all its events are new
            missing = gap(self._position.cursor, 0, "another journal")
            self._position = Position(0, self._camera)
            self._questions.forget()
            self._held.clear()
            while links.events.receive(0) is not None:
                pass  # published from the old journal: their numbers would be taken for the new one's
            self._deliver(missing, cloudevents.encode(missing))
            self._progress(0, newest)
        elif question.after <= self._position.cursor and message.seq >= self._position.cursor:
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
        self._questions.settle()
        self._asking = reached < newest
        while self._asking and self._held and self._position is not None:
            first = self._held[0]
            if not isinstance(first, int) and to_number(first[0].cursor) > self._position.cursor:
                self._asking = not self._position.follows(first[0])
                break
            self._held.popleft()

    def _hear_events(self, events: Peer) -> bool:
        parts = events.receive(0)
        if parts is None:
            return False
        self._heard = self._now()
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
            self._ready.append((event, text))

    # Loops

    def __iter__(self) -> Iterator[Event]:
        token = self._enter_loop()
        try:
            while not (self.ended or self._closed):
                found = self.receive(1.0)
                if found is not None:
                    yield found[0]
        finally:
            self._leave_loop(token)

    def __aiter__(self) -> AsyncIterator[Event]:
        return _AsyncLoop(self, self._enter_loop())

    async def _next(self, begun: float) -> tuple[Event | None, float]:
        """Return the next event, ``None`` at the end, and the time since which the event loop has not run."""
        self._return()
        try:
            while not (self.ended or self._closed):
                if time.monotonic() - begun > TURN:
                    await asyncio.sleep(0)
                    begun = time.monotonic()
                elif self._ready:
                    return self._ready.popleft()[0], begun
                elif not self._step():
                    await self._readable(self._pause())
                    begun = time.monotonic()
        except _SilenceError as error:
            raise await asyncio.to_thread(no_answer, self._address, error.control, error.seconds) from None
        finally:
            self._left = time.monotonic()
        return None, begun

    async def _readable(self, timeout: float) -> None:
        """Wait until a descriptor is readable, for ``timeout`` seconds at most."""
        loop = asyncio.get_running_loop()
        self._woken = loop.create_future()
        descriptors = self._descriptors()
        for number in descriptors:
            loop.add_reader(number, self._wake)
        timer = loop.call_later(timeout, self._wake)
        try:
            await self._woken
        finally:
            timer.cancel()
            for number in descriptors:
                loop.remove_reader(number)
            self._woken = None

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def _enter_loop(self) -> object:
        if self._loop is not None:
            raise ConfigError("a subscription serves one loop at a time: subscribe once for each")
        self._loop = object()
        return self._loop

    def _leave_loop(self, token: object) -> None:
        """Close the sockets, unless this loop has been left already."""
        if token is self._loop:
            self._loop = None
            self._disconnect()

    def _disconnect(self) -> None:
        links, self._links = self._links, None
        for link in links or ():
            link.close()
        self._questions.forget()
        self._held.clear()

    def close(self) -> None:
        """Unsubscribe; a second call does nothing. A loop over the subscription ends."""
        self._closed = True
        self._wake()
        self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _AsyncLoop:
    """One ``async for``. Dropping it closes the sockets at once; an async generator would do so later."""

    def __init__(self, subscription: Subscription, token: object) -> None:
        self._subscription, self._token = subscription, token
        self._begun = time.monotonic()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = None
        try:
            if self._subscription._loop is self._token:
                event, self._begun = await self._subscription._next(self._begun)
        finally:
            if event is None:
                self._subscription._leave_loop(self._token)
        if event is None:
            raise StopAsyncIteration
        return event

    def __del__(self) -> None:
        self._subscription._leave_loop(self._token)


def number_after(after: str | Literal[0]) -> int:
    """Return the number of the cursor to resume after.

    Raises:
        ConfigError: ``after`` is neither a cursor nor 0.
    """
    try:
        if not isinstance(after, str) and (type(after) is not int or after != 0):
            raise ValueError(f"{after!r} is not a cursor: give the cursor of an event as text, or 0 for the beginning")
        return to_number(str(after))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def wanted(event: Event, types: Sequence[str]) -> bool:
    """Return whether an event has one of these types or families. Without types every event does; a gap always does."""
    if event.type is EventType.STREAM_GAP:
        return True
    family = event.type.partition(".")[0]
    return not types or event.type in types or family in types


def no_answer(address: str, control: Peer, seconds: float) -> NoAnswerError:
    """Return the error that no aggregator answered for so many seconds, with the known cause."""
    return NoAnswerError(
        f"no aggregator answers at {address} within {seconds:.3g} s: {control.trouble()}; "
        "start one, or give its address with --connect"
    )
