"""The library user's side: `subscribe` to events, sync or async, and ask for an aggregator's `status`.

A subscription is gapless however it is cut off and resumed: events come live, and whatever may be missing is asked for
from the journal. `Position` decides what is missing; it knows neither sockets nor clocks.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from fer_stream import cloudevents, instances, plugins, wire
from fer_stream.errors import ConfigError, JournalError, TransportError, WireError
from fer_stream.journal import Reader, gap
from fer_stream.types import Event, EventType, GapData
from fer_stream.wire import Kind, Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from fer_stream.config import Settings
    from fer_stream.plugins import Peer

MAX_DIGITS = 19
"""Of a cursor, which SQLite holds in 64 bits."""

ANSWER = 1.0
"""Seconds after which a question is asked again."""


class NoAnswerError(TransportError):
    """Nobody answers, at least not in time; asking again may help, other than after a refusal."""


class Position:
    """What a subscriber has seen: which events are new to it, and whether some may be missing in between.

    ``cursor`` is the point up to which nothing is missing. Of one ``camera`` alone, cursors are left out and its own
    sequence tells; of all cameras it does not, for what is missing may be another one's.
    """

    def __init__(self, cursor: int, camera: str | None = None) -> None:
        self.cursor = cursor
        self._camera = camera
        self._sequence: int | None = None

    def live(self, event: Event) -> bool:
        """Take an event as it is published; ``True`` if it directly follows what was seen and counts as seen now.

        ``False`` means that it was seen before (``event.cursor <= cursor``) or that something may be missing.
        """
        if event.cursor <= self.cursor:
            return False
        follows = event.cursor == self.cursor + 1 or (self._camera and self._sequence == event.sequence - 1)
        if follows:
            self._see(event)
        return bool(follows)

    def replayed(self, events: Sequence[Event], reached: int) -> list[Event]:
        """Take an answer from the journal, which is whole up to ``reached``; return the events that are new."""
        new = [event for event in events if event.cursor > self.cursor]
        for event in new:
            self._see(event)
        self.cursor = max(self.cursor, reached)
        return new

    def _see(self, event: Event) -> None:
        self.cursor = event.cursor
        if event.sequence:
            self._sequence = event.sequence


class Subscription:
    """Events of a running aggregator, in order and without a gap. Iterate over it, with ``for`` or ``async for``.

    It waits for an aggregator that is not there (yet, or for a while) and resumes where it was. ``cursor`` is where to
    resume from another time. Not thread-safe.
    """

    def __init__(
        self,
        address: str,
        *,
        camera: str | None = None,
        types: Sequence[str] = (),
        after: int | None = None,
        until_now: bool = False,
        transport: str = "zeromq",
        key: Path | None = None,
        keys: Path | None = None,
    ) -> None:
        """Subscribe.

        Args:
            address: the aggregator's.
            camera: this camera's events only.
            types: these types only, each whole (``emotion.started``) or a family (``emotion``); empty: all.
            after: the cursor to begin after: 0 for all there is, ``None`` for what happens from now on.
            until_now: end once everything is told that had happened when this began.
            transport: the transport plug-in.
            key: this process's key file, for an aggregator on another machine.
            keys: the aggregator's folder of keys, where this is its machine.

        Raises:
            ConfigError: not an address, or not a cursor.
        """
        if after is not None and after < 0:
            raise ConfigError(f"{after} is not a cursor: give 0 for all events, or the cursor to resume after")
        made = plugins.load("transports", transport)(key, keys)
        self._events: Peer = made.subscribe(address, "events", ["/", f"{camera}/"] if camera else [""])
        self._control: Peer = made.connect(address, "control")
        self._address = address
        self._camera = camera
        self._types = tuple(types)
        self._until_now = until_now
        self._until: int | None = None
        self._position: Position | None = None if after is None else Position(after, camera)
        self._ready: deque[tuple[Event, str]] = deque()
        self._asking = True
        self._asked = 0.0
        self._ticket = random.getrandbits(48)

    @property
    def cursor(self) -> int:
        """Everything up to here has been told; give it as ``after`` to resume."""
        if self._ready:
            first = self._ready[0][0]
            return first.data.from_cursor if isinstance(first.data, GapData) else first.cursor - 1
        return self._position.cursor if self._position else 0

    @property
    def ended(self) -> bool:
        """Whether ``until_now`` is reached and everything is told."""
        done = self._until is not None and self._position is not None and self._position.cursor >= self._until
        return self._until_now and done and not self._ready

    def receive(self, timeout: float) -> tuple[Event, str] | None:
        """Return the next event and its text as journaled, or ``None`` after ``timeout`` seconds or at the end."""
        deadline = time.monotonic() + timeout
        while not self._ready and not self.ended:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._ask_if_due()
            if self._asking:
                self._hear_answer(min(left, 0.1))
            else:
                self._hear_event(min(left, 0.25))
        return self._ready.popleft() if self._ready else None

    def _ask_if_due(self) -> None:
        now = time.monotonic()
        if not self._asking or now - self._asked < ANSWER:
            return
        self._asked = now
        self._ticket += 1
        # Asked with no position, the answer tells where "now" is.
        after = self._position.cursor if self._position else 2**62
        body = {"after": after, "camera": self._camera}
        self._control.send(wire.json_message(Kind.REPLAY, body, ticket=self._ticket))

    def _hear_answer(self, timeout: float) -> None:
        parts = self._control.receive(timeout)
        if parts is None:
            return
        message = wire.unpack(parts)
        if message.kind is not Kind.EVENTS or message.ticket != self._ticket:
            return
        newest = message.time
        if self._until is None:
            self._until = newest
        if self._position is None:
            self._position = Position(newest, self._camera)  # from now on
            self._asking = False
        elif self._position.cursor > newest:  # of another journal: what is new in this one is all of it
            told = gap(self._position.cursor, 0, "another journal")
            self._position = Position(0, self._camera)
            self._tell(told, cloudevents.encode(told))
            self._asking = newest > 0
        else:
            texts = {event.cursor: (event, text) for event, text in _parse(bytes(message.payload))}
            for event in self._position.replayed([event for event, _ in texts.values()], message.seq):
                self._tell(*texts[event.cursor])
            self._asking = message.seq < newest
        self._asked = 0.0

    def _hear_event(self, timeout: float) -> None:
        if self._position is None:
            return
        parts = self._events.receive(timeout)
        if parts is None:
            return
        topic, text = bytes(parts[0]), bytes(parts[1])
        if topic == b"/":
            if not text.isdigit() or len(text) > MAX_DIGITS:
                raise WireError("a cursor that is no number")
            self._asking = int(text) != self._position.cursor
            return
        event = cloudevents.decode(text)
        if self._position.live(event):
            self._tell(event, text.decode())
        elif event.cursor > self._position.cursor:
            self._asking = True

    def _tell(self, event: Event, text: str) -> None:
        if wanted(event, self._types):
            self._ready.append((event, text))

    def __iter__(self) -> Iterator[Event]:
        while not self.ended:
            found = self.receive(1.0)
            if found is not None:
                yield found[0]

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Give way to the event loop while there is nothing."""
        while not self.ended:
            found = self.receive(0.001)
            if found is not None:
                yield found[0]
            else:
                await asyncio.sleep(0.01)

    def close(self) -> None:
        """Unsubscribe; a second call does nothing."""
        self._events.close()
        self._control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parse(payload: bytes) -> Iterator[tuple[Event, str]]:
    # Not splitlines: a text may hold U+2028 and other characters that end a line for Python, though not for JSON.
    for line in payload.split(b"\n") if payload else ():
        yield cloudevents.decode(line), line.decode()


def wanted(event: Event, types: Sequence[str]) -> bool:
    """Return whether an event is of one of these types or families; all are where none is named, and a gap always."""
    if event.type is EventType.STREAM_GAP:
        return True
    family = event.type.partition(".")[0]
    return not types or event.type in types or family in types


def subscribe(
    address: str | None = None,
    *,
    camera: str | None = None,
    types: Sequence[str] = (),
    after: int | None = None,
    until_now: bool = False,
    settings: Settings | None = None,
) -> Subscription:
    """Return a `Subscription` to the aggregator at ``address``.

    By default it is the one that the settings name, or else the one service of this user that runs on this machine.

    ::

        with fer_stream.subscribe(camera="door", types=["emotion.started"]) as events:
            for event in events:
                if event.type == "emotion.started":  # a stream.gap may come too
                    print(event.time, event.track, event.data.label)

    Raises:
        TransportError: no address is given, and no service runs.
        ConfigError: no address is given, and several services run.
    """
    if settings is None:
        from fer_stream.config import load  # noqa: PLC0415  (slow to import, not always needed)

        settings = load()
    return Subscription(
        address or instances.find(settings),
        camera=camera,
        types=types,
        after=after,
        until_now=until_now,
        transport=settings.transport,
        key=settings.key,
        keys=settings.keys,
    )


def read_journal(
    path: Path, *, after: int = 0, camera: str | None = None, types: Sequence[str] = ()
) -> Iterator[tuple[Event, str]]:
    """Return the events in a journal file, with their texts, whether or not an aggregator runs.

    Raises:
        JournalError: there is no readable journal at ``path``.
    """
    with Reader(path) as reader:
        while after < reader.cursor():
            texts, reached = reader.read(after, camera=camera)
            for text in texts:
                try:
                    event = cloudevents.decode(text)
                except WireError as error:
                    raise JournalError(f"the journal {path} holds what is not an event: {error}") from error
                if wanted(event, types):
                    yield event, text
            after = reached


def status(settings: Settings | None = None, timeout: float = 3.0) -> dict[str, Any]:
    """Return how things stand with a running aggregator: see `fer_stream.aggregator.Aggregator.status`.

    Args:
        settings: the whole tree, by default as loaded; without an address in it, the one service of this user that
            runs on this machine is asked.
        timeout: seconds to wait for an answer.

    Raises:
        TransportError: none answers in time, or none runs.
        ConfigError: no address is given, and several services run.
    """
    if settings is None:
        from fer_stream.config import load  # noqa: PLC0415  (slow to import, not always needed)

        settings = load()
    address = instances.find(settings)
    peer = plugins.transport(settings).connect(address, "control")
    try:
        return ask_status(peer, address, timeout)
    finally:
        peer.close()


def ask_status(peer: Peer, address: str, timeout: float) -> dict[str, Any]:
    """As `status`, over a control link that is there already."""
    ticket = random.getrandbits(48)
    deadline = time.monotonic() + timeout
    peer.send(wire.json_message(Kind.STATUS, ticket=ticket))
    while (left := deadline - time.monotonic()) > 0:
        parts = peer.receive(left)
        if parts is None:
            continue
        message: Message = wire.unpack(parts)
        if message.kind is Kind.STATUS and message.ticket == ticket:
            return message.body()
    raise NoAnswerError(f"no aggregator answers at {address}: start one, or give its address with --connect")
