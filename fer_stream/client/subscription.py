"""Events of a running aggregator, without a gap: they are published, and what may be missing is asked for.

`fer_stream.client.replay` decides what is missing, how much to ask for and when to ask again. This module has the
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
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.types import BEGINNING, Event, EventType, GapData

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from fer_stream.plugins import Peer
    from fer_stream.types import Cursor

TIMEOUT = 10.0
"""Seconds without an answer after which a subscription to all events until now fails."""

BEATING = 6
"""So many times longer an answer may take where the aggregator's events or heartbeats arrive."""

HELD = 1_000
"""Published events held while earlier ones are asked for. Of more, the oldest are dropped and asked for too."""

PULSE = 0.5
"""Seconds between looks at the links while nothing comes, so that a dead one is noticed."""

TURN = 0.005
"""Seconds of work after which an event loop gets its turn, however many events wait."""


class NoAnswerError(TransportError):
    """Nobody answers, at least not in time; asking again may help, other than after a refusal."""


class _SilenceError(Exception):
    """No answer came for so many seconds; why remains to be found out, which may take a second."""

    def __init__(self, control: Peer, seconds: float) -> None:
        self.control, self.seconds = control, seconds


class _Links(NamedTuple):
    events: Peer
    control: Peer


class Subscription:
    """Events of a running aggregator, in order and without a gap. Iterate over it, with ``for`` or ``async for``.

    It waits for an aggregator that is not there (yet, or for a while) and resumes where it was. ``cursor`` is where to
    resume from another time. Leaving a loop closes the sockets; the next loop goes on where that one ended.

    For one thread or event loop at a time. In an event loop it waits on its sockets and needs no thread.
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
            address: the aggregator's.
            camera: this camera's events only.
            types: these types only, each whole (``emotion.started``) or a family (``emotion``); empty: all.
            after: the cursor to resume after, as an event or ``cursor`` gave it; 0 for all there is; ``None`` for what
                happens from now on.
            until_now: end after the last event that had happened when this began.
            timeout: seconds without an answer after which waiting for one is an error; ``math.inf``: never. ``None``:
                10 with ``until_now``, never without.
            transport: the transport plug-in.
            key: this process's key file, for an aggregator on another machine.
            keys: the aggregator's folder of keys, where this is its machine.

        Raises:
            ConfigError: not an address, not a cursor, or not a time.
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
        """Where to resume, as ``after`` of a `Subscription`: every event up to here was returned."""
        if self._ready:
            first = self._ready[0][0]
            if isinstance(first.data, GapData):
                return first.data.from_cursor
            return to_cursor(to_number(first.cursor) - 1)
        return to_cursor(self._position.cursor) if self._position else BEGINNING

    @property
    def ended(self) -> bool:
        """Whether every event until now was returned (see ``until_now``)."""
        done = self._until is not None and self._position is not None and self._position.cursor >= self._until
        return self._until_now and done and not self._ready

    def receive(self, timeout: float) -> tuple[Event, str] | None:
        """Return the next event and its text as journaled, or ``None`` after ``timeout`` seconds or at the end.

        Raises:
            TransportError: the aggregator refuses this process, does not answer in time (see ``timeout`` of
                `Subscription`), or the subscription is closed.
            WireError: what answers is no aggregator of this version.
        """
        if self._closed:
            raise TransportError("this subscription is closed: subscribe again")
        deadline = time.monotonic() + timeout
        self._return()
        try:
            while not self._ready and not self.ended:
                if self._step():
                    continue
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                poller = select.poll()
                for descriptor in self._descriptors():
                    poller.register(descriptor, select.POLLIN)
                poller.poll(1000 * min(left, self._pause()))
            return self._ready.popleft() if self._ready else None
        except _SilenceError as error:
            raise no_answer(self._address, error.control, error.seconds) from None
        finally:
            self._left = time.monotonic()

    # Time that its user spends elsewhere is nobody's silence: only a part of it counts.

    def _return(self) -> None:
        self._away += max(0.0, time.monotonic() - self._left - PULSE)

    def _now(self) -> float:
        return time.monotonic() - self._away

    def _pause(self) -> float:
        """Return the seconds until there is something to do though nothing came."""
        if self._links is None or not self._asking:
            return PULSE
        return min(PULSE, self._questions.due(self._now(), self._links.control.standing()))

    def _descriptors(self) -> list[int]:
        return [number for link in self._links or () for number in link.descriptors()]

    # One step after the other

    def _step(self) -> bool:
        """Do the next thing; ``False`` where there is nothing until more comes or time passes."""
        if self._links is None:  # a loop was left: what is missing since is asked for
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
        """Ask if it is time; ``True`` if so: sending may have taken the news of what arrives from a descriptor."""
        now, standing = self._now(), control.standing()
        if self._questions.due(now, standing) > 0:
            self._check_patience(now, control)
            return False
        after = NOW if self._position is None else self._position.cursor
        question = self._questions.ask(after, now, standing)
        body = {"after": after, "camera": self._camera, "bytes": question.size}
        control.send(messages.json_message(Kind.REPLAY, body, ticket=question.ticket))
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
        message = messages.unpack(parts)
        now = self._heard = self._now()
        question = self._questions.answered(message.ticket, len(message.payload), now)
        if message.kind is not Kind.EVENTS or question is None:
            return True
        newest = message.time
        if self._until is None:
            self._until = newest
        if self._position is None:
            self._position = Position(newest, self._camera)  # from now on
            self._progress(newest, newest)
        elif question.after != NOW and question.after > newest:  # of another journal: what is in this one is new
            lost = gap(self._position.cursor, 0, "another journal")
            self._position = Position(0, self._camera)
            self._questions.forget()
            self._held.clear()
            while links.events.receive(0) is not None:
                pass  # the old journal's, whose numbers come again
            self._deliver(lost, cloudevents.encode(lost))
            self._progress(0, newest)
        elif question.after <= self._position.cursor and message.seq >= self._position.cursor:
            # Not splitlines: a text may hold U+2028 and others that end a line for Python, though not for JSON.
            self._answer.extend(bytes(message.payload).split(b"\n") if message.payload else ())
            self._reached, self._newest = message.seq, newest
            if not self._answer:
                self._position.replayed([], message.seq)
                self._progress(message.seq, newest)
        return True

    def _take_line(self, line: bytes) -> None:
        if self._position is None:
            raise AssertionError("an answer is of events after a position")
        event = cloudevents.decode(line)
        for new in self._position.replayed([event], 0):
            self._deliver(new, line.decode())
        if not self._answer:
            self._position.replayed([], self._reached)
            self._progress(self._reached, self._newest)

    def _progress(self, reached: int, newest: int) -> None:
        """Take that all up to ``reached`` is known, and see whether published events continue from there."""
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
            self._held.pop()  # an older one says nothing more
        self._held.append(newest)
        return True

    def _take_held(self) -> None:
        if self._position is None:
            raise AssertionError("no published event is taken before there is a position")
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
        mine = self._enter_loop()
        try:
            while not (self.ended or self._closed):
                found = self.receive(1.0)
                if found is not None:
                    yield found[0]
        finally:
            self._leave_loop(mine)

    def __aiter__(self) -> AsyncIterator[Event]:
        return _AsyncLoop(self, self._enter_loop())

    async def _next(self, begun: float) -> tuple[Event | None, float]:
        """Return the next event, ``None`` at the end, and since when the event loop waits for its turn."""
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
        """Wait until something comes, for so many seconds at most."""
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

    def _leave_loop(self, which: object) -> None:
        """Close the sockets, unless this loop was left already."""
        if which is self._loop:
            self._loop = None
            self._disconnect()

    def _disconnect(self) -> None:
        links, self._links = self._links, None
        for link in links or ():
            link.close()
        self._questions.forget()
        self._held.clear()

    def close(self) -> None:
        """Unsubscribe; a second call does nothing. A loop over it ends."""
        self._closed = True
        self._wake()
        self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _AsyncLoop:
    """One ``async for``. It is left as soon as nobody holds it; an async generator would be left some turns later."""

    def __init__(self, subscription: Subscription, mine: object) -> None:
        self._subscription, self._mine = subscription, mine
        self._begun = time.monotonic()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = None
        try:
            if self._subscription._loop is self._mine:
                event, self._begun = await self._subscription._next(self._begun)
        finally:
            if event is None:
                self._subscription._leave_loop(self._mine)
        if event is None:
            raise StopAsyncIteration
        return event

    def __del__(self) -> None:
        self._subscription._leave_loop(self._mine)


def number_after(after: str | Literal[0]) -> int:
    """Return the number of the cursor to resume after.

    Raises:
        ConfigError: neither a cursor nor 0.
    """
    try:
        if not isinstance(after, str) and (type(after) is not int or after != 0):
            raise ValueError(f"{after!r} is not a cursor: give the cursor of an event as text, or 0 for the beginning")
        return to_number(str(after))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def wanted(event: Event, types: Sequence[str]) -> bool:
    """Return whether an event is of one of these types or families; all are where none is named, and a gap always."""
    if event.type is EventType.STREAM_GAP:
        return True
    family = event.type.partition(".")[0]
    return not types or event.type in types or family in types


def no_answer(address: str, control: Peer, seconds: float) -> NoAnswerError:
    """Return the error that no aggregator answered for so many seconds, with what is known of the reason."""
    return NoAnswerError(
        f"no aggregator answers at {address} within {seconds:.3g} s: {control.trouble()}; "
        "start one, or give its address with --connect"
    )
