"""Follows the events of one partition without a gap. On one machine there is only one partition.

`fer_stream.client.replay` decides which events are missing, and when to request how many bytes. This module uses
neither sockets nor clocks: `fer_stream.client.follower` sends what `PartitionFollower.ask` returns, passes on what
arrives, and calls `PartitionFollower.step` until it returns ``False``.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.client.replay import FIRST, NOW, Position, ReplayRequests
from fer_stream.errors import ConfigError, WireError
from fer_stream.events import cloudevents
from fer_stream.events.cursor import to_cursor, to_number
from fer_stream.journal import another_journal
from fer_stream.types import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_stream.plugins import ConnectionState
    from fer_stream.protocol.messages import Message
    from fer_stream.types import Event

HELD = 1_000
"""Most published events held while earlier ones are requested. Beyond it, the oldest are dropped and requested, too."""


class _Published(NamedTuple):
    number: int
    event: Event
    text: str


class PartitionFollower:
    """Puts the answers to requests and the published events of a partition in order; each event is delivered once."""

    def __init__(
        self,
        after: int | None,
        camera: str | None,
        deliver: Callable[[Event, str], None],
        tickets: Iterator[int],
        size: int = FIRST,
        doubt: float = 0.0,
    ) -> None:
        """Begin after the event with a number; ``None``: with the next one.

        Args:
            after: the number.
            camera: only this camera's events.
            deliver: called with each event and its text, in their order; ``position`` is at the event then.
            tickets: the numbers of the requests.
            size: bytes of events to request at first.
            doubt: seconds during which answers must say that the events are another journal's until that is believed.
        """
        self.newest: int | None = None
        """The number of the latest event when the first answer came."""
        self._camera, self._deliver = camera, deliver
        self._position = None if after is None else Position(after, camera)
        self._requests = ReplayRequests(tickets, size)
        self._asking = True
        self._answer: deque[bytes] = deque()
        self._reached = self._latest = 0
        self._held: deque[_Published | int] = deque(maxlen=HELD)
        self._lower: int | None = None
        self._doubt, self._doubted = doubt, math.inf

    @property
    def position(self) -> int | None:
        """The number up to which every event was delivered; ``None`` until the first answer, if none was given."""
        return self._position.cursor if self._position else None

    # Requests

    def due(self, now: float, state: ConnectionState) -> float:
        """Return the seconds until a request is due; infinity if none is needed."""
        return self._requests.due(now, state) if self._asking else math.inf

    def ask(self, now: float, state: ConnectionState) -> tuple[int, dict[str, object]]:
        """Return the ticket and the body of the REPLAY to send now."""
        after = NOW if self._position is None else self._position.cursor
        request = self._requests.ask(after, now, state)
        return request.ticket, {"after": after, "camera": self._camera, "bytes": request.size}

    def expects(self, ticket: int) -> bool:
        """Return whether a request with this ticket may still be answered."""
        return self._requests.expects(ticket)

    def silent(self, now: float) -> float:
        """Return for how many seconds a request has waited without any part of an answer."""
        return self._requests.silent(now)

    def answered(self, message: Message, now: float) -> bool:
        """Take an EVENTS that `expects`; return whether the events are another journal's, so all of them are new.

        Then what was published before is of the old journal, and must not be passed on.
        """
        request = self._requests.answered(message.ticket, len(message.payload), now)
        if request is None:
            return False
        latest = message.time
        if self._position is not None and NOW != request.after > latest:
            self._doubted = min(self._doubted, now)
            if now - self._doubted < self._doubt:
                return False  # the request counts as unanswered, and is repeated later
            self._begin_another_journal(latest)
            return True
        self._doubted = math.inf
        if self.newest is None:
            self.newest = latest
        if self._position is None:
            self._position = Position(latest, self._camera)  # events from now on
            self._progress(latest, latest)
        elif request.after <= self._position.cursor and message.seq >= self._position.cursor:
            # Not splitlines: it would also split at U+2028 and others, which JSON texts may contain.
            self._answer.extend(bytes(message.payload).split(b"\n") if message.payload else ())
            self._reached, self._latest = message.seq, latest
            if not self._answer:
                self._finish_answer(self._position)
        return False

    def opened(self, latest: int, *, complete: bool) -> None:
        """Take the number of the latest event from a CURSOR, instead of an answer: is a request needed at all?

        It is if events are missing, and if ``newest`` is to be known (``complete``), which only an answer says.
        """
        self._requests.settle()
        self._asking = (
            (complete and self.newest is None) or self._position is None or self._news(self._position, latest)
        )

    def _begin_another_journal(self, latest: int) -> None:
        old, self._position = self.position or 0, Position(0, self._camera)
        missing, text = another_journal(to_cursor(old), BEGINNING)
        self._requests.forget()
        self._answer.clear()
        self._held.clear()
        self._lower, self._doubted = None, math.inf
        self.newest = latest if self.newest is None else self.newest
        self._deliver(missing, text)
        self._progress(0, latest)

    def disconnected(self) -> None:
        """Take that the connection has ended: no request will be answered, and published events may be missed."""
        self._requests.forget()
        self._held.clear()
        self._lower, self._asking = None, True

    # What is published

    def published(self, event: Event, text: str) -> None:
        """Take a published event and its text.

        Raises:
            WireError: its cursor is not a number.
        """
        self._held.append(_Published(_number(event), event, text))

    def beat(self, newest: int) -> bool:
        """Take the number of the latest event, as far as the aggregator knows it; another one wrote it, perhaps.

        Returns:
            Whether `step` has anything to do.
        """
        if self._held and isinstance(self._held[-1], int):
            self._held.pop()  # the newer heartbeat replaces the older one
        self._held.append(newest)
        return not self._asking

    # Steps

    def step(self) -> bool:
        """Do the next step, which delivers one event at most; ``False`` if nothing is to be done."""
        if self._position is None:
            return False
        if self._answer:
            self._take_line(self._position, self._answer.popleft())
        elif self._held and not self._asking:
            self._take_held(self._position, self._held.popleft())
        else:
            return False
        return True

    def _take_line(self, position: Position, line: bytes) -> None:
        event = cloudevents.decode(line)
        try:
            new = position.replayed([event], 0)
        except ValueError as error:
            raise _cell_s_cursor(error) from error
        if new:
            self._deliver(event, line.decode())
        if not self._answer:
            self._finish_answer(position)

    def _finish_answer(self, position: Position) -> None:
        position.replayed([], self._reached)
        self._progress(self._reached, self._latest)

    def _progress(self, reached: int, latest: int) -> None:
        """Record that all events up to ``reached`` are known, and check whether the held ones continue from there."""
        self._requests.settle()
        self._asking = reached < latest
        while self._asking and self._held and self._position is not None:
            first = self._held[0]
            if not isinstance(first, int) and first.number > self._position.cursor:
                self._asking = not self._position.follows(first.event)
                break
            self._held.popleft()

    def _take_held(self, position: Position, held: _Published | int) -> None:
        if isinstance(held, int):
            self._asking = self._news(position, held)
        elif position.published(held.event):
            self._deliver(held.event, held.text)
        elif held.number > position.cursor:
            self._held.appendleft(held)
            self._asking = True

    def _news(self, position: Position, latest: int) -> bool:
        """Return whether the number of the latest event, as far as the aggregator knows it, is a reason to ask.

        The aggregator may know less than this process of what another aggregator writes. An answer decides whether the
        events are another journal's; the same number again is no reason to ask again.
        """
        lower, self._lower = self._lower, latest if latest < position.cursor else None
        return latest not in (position.cursor, lower)


def starts(after: tuple[int, ...], count: int, where: str) -> tuple[int, ...]:
    """Return the number to begin after in each of ``count`` partitions; a single number stands for all of them.

    Raises:
        ConfigError: the cursor is of another number of partitions.
    """
    if len(after) not in (1, count):
        raise ConfigError(
            f"the cursor to resume after is of {len(after)} partitions, and the events at {where} are in {count}: give "
            "a cursor of theirs, or 0 for the beginning"
        )
    return after if len(after) == count else after * count


def _number(event: Event) -> int:
    try:
        return to_number(event.cursor)
    except ValueError as error:
        raise _cell_s_cursor(error) from error


def _cell_s_cursor(error: ValueError) -> WireError:
    return WireError(f"an event of a partition with the cursor of a cell: {error}")
