"""Asking for events from the journal: where a subscriber stands, how much it asks for, and when it asks again.

Knows neither sockets nor clocks: times are given, in seconds on a clock that only goes forward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fer_stream.events.cursor import to_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.plugins import Standing
    from fer_stream.types import Event

LEAST, FIRST, MOST = 4_000, 16_000, 256_000
"""Bytes of events to ask for at a time."""

QUICK, SLOW = 2.5, 5.0
"""Seconds in which an answer comes: below, the next question asks for twice as much; above, for half."""

PATIENCE, LONGEST = 2.0, 60.0
"""Seconds of silence until a question is asked again, at first and at most."""

TRICKLE = 2_000
"""Bytes that arrive in a time of silence; more are part of an answer."""

OPEN = 16
"""Questions whose late answers count."""

NOW = 2**62
"""The number to ask after where only the latest cursor is wanted."""


class Position:
    """What a subscriber has seen: which events are new to it, and whether some may be missing in between.

    ``cursor`` is the number of the cursor up to which nothing is missing. With one ``camera``, its cursors have gaps,
    so its sequence decides; with all cameras it cannot, because what is missing may be of another camera.
    """

    def __init__(self, cursor: int, camera: str | None = None) -> None:
        self.cursor = cursor
        self._camera = camera
        self._sequence: int | None = None

    def published(self, event: Event) -> bool:
        """Take an event as it is published; ``True`` if it directly follows what was seen and counts as seen now.

        ``False`` means that it was seen before (``event.cursor <= cursor``) or that something may be missing.
        """
        if not self.follows(event):
            return False
        self._see(event)
        return True

    def follows(self, event: Event) -> bool:
        """Return whether nothing is missing between what was seen and this event, which is new."""
        number = to_number(event.cursor)
        if number <= self.cursor:
            return False
        return number == self.cursor + 1 or bool(self._camera and self._sequence == event.sequence - 1)

    def replayed(self, events: Sequence[Event], reached: int) -> list[Event]:
        """Take an answer from the journal, which is whole up to ``reached``; return the events that are new."""
        new = [event for event in events if to_number(event.cursor) > self.cursor]
        for event in new:
            self._see(event)
        self.cursor = max(self.cursor, reached)
        return new

    def _see(self, event: Event) -> None:
        self.cursor = to_number(event.cursor)
        if event.sequence:
            self._sequence = event.sequence


class Question(NamedTuple):
    """A REPLAY: the events after a cursor, this many bytes of them."""

    ticket: int
    after: int
    size: int
    asked: float


class Questions:
    """The questions of one subscriber, of which one waits for its answer and older ones were asked again too early.

    Their answers count, however late. A question is asked again after a time of silence, which grows with each that
    stays unanswered, or once the connection that it was sent on is gone. How much it asks for follows from how fast
    answers come.
    """

    def __init__(self, ticket: int) -> None:
        """Begin with this ticket; two subscribers should not have the same."""
        self._ticket = ticket
        self._open: dict[int, Question] = {}
        self._size = FIRST
        self._patience = PATIENCE
        self._waiting = False
        self._since = self._stirred = 0.0
        self._standing: Standing | None = None

    def due(self, now: float, standing: Standing) -> float:
        """Return the seconds until there is something to ask, 0 where it is now."""
        if not self._waiting or self._standing is None or self._standing.life != standing.life:
            return 0.0
        if not standing.up:  # it is sent when there is a connection
            self._since = now
        elif not 0 <= standing.received - self._standing.received < TRICKLE:  # an answer is on its way
            self._since = self._stirred = now
            self._standing = standing
        return max(0.0, self._since + self._patience - now)

    def ask(self, after: int, now: float, standing: Standing) -> Question:
        """Return the question to send now."""
        if not self._waiting:
            self._stirred = now
        elif self._standing is not None and self._standing.life == standing.life:
            self._patience = min(2 * self._patience, LONGEST)
            self._size = max(self._size // 2, LEAST)
        self._waiting, self._since, self._standing = True, now, standing
        self._ticket += 1
        question = self._open[self._ticket] = Question(self._ticket, after, self._size, now)
        if len(self._open) > OPEN:
            del self._open[min(self._open)]
        return question

    def answered(self, ticket: int, size: int, now: float) -> Question | None:
        """Take an answer of this many bytes, and return its question, or ``None`` where it was not asked."""
        question = self._open.pop(ticket, None)
        if question is None:
            return None
        took = now - question.asked
        if took < QUICK and size > question.size // 2:
            self._size = min(2 * question.size, MOST)
        elif took > SLOW:
            self._size = max(min(self._size, size // 2), LEAST)
        self._patience = min(max(PATIENCE, 2 * took), LONGEST)
        self._since = self._stirred = now
        return question

    def settle(self) -> None:
        """Take that nothing more is waited for; late answers count nevertheless."""
        self._waiting = False

    def forget(self) -> None:
        """Take that no question will be answered, or no answer means anything any more."""
        self._open.clear()
        self._waiting = False

    def silent(self, now: float) -> float:
        """Return for how many seconds a question has waited without any sign of its answer."""
        return now - self._stirred if self._waiting else 0.0
