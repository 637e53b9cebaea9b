"""The events of one journal on their way out: recorded, stored, then published. `record` collects, `flush` goes on.

Nothing waits for the journal: while it stores one batch, further events are collected.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from fer_stream.errors import JournalError, RivalError
from fer_stream.events.cursor import to_number
from fer_stream.operations import metrics
from fer_stream.plugins import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from fer_stream.plugins import Hub, JournalWriter
    from fer_stream.plugins.journals import Stored
    from fer_stream.types import Event

_log = logging.getLogger(__name__)


class EventLog:
    """See the module docstring.

    Args:
        hub: is woken when the journal has an answer.
        journal: stores the events.
        publish: called with each stored event and its text, in order; a gap is one, too.
    """

    def __init__(self, hub: Hub, journal: JournalWriter, publish: Callable[[Event, str], None]) -> None:
        self.journal = journal
        self.cursor = journal.cursor
        """The number of the cursor of the latest published event."""
        self.given = False
        """Whether the journal is being given to another aggregator, with all events in it: a rival is no error then."""
        self._hub, self._publish = hub, publish
        self._recorded: list[Event] = []
        self._writing: tuple[int, float, Future[list[Stored]]] | None = None  # events in the batch, when, the batch
        self._lost = 0
        self._total = 0
        self._purge: Future[int] | None = None
        self._purge_at = 0.0
        self._failing_since: float | None = None

    @property
    def failing(self) -> bool:
        """Whether the journal cannot be written at present."""
        return bool(self.journal.trouble)

    @property
    def held(self) -> int:
        """The number of events that wait to be journaled."""
        return len(self._recorded) + (self._writing[0] if self._writing else 0)

    @property
    def unstored(self) -> int:
        """The number of recorded events that are not in the journal, with those that were given up."""
        return self.held + self._lost

    def mark(self) -> int:
        """Return a mark for the events recorded so far, for `passed`."""
        return self._total

    def passed(self, mark: int) -> bool:
        """Return whether all events that were recorded before a mark are published."""
        return self._total - self.unstored >= mark

    def record(self, events: list[Event]) -> None:
        """Take events to be journaled and published by the next `flush`."""
        self._recorded += events
        self._total += len(events)

    def drop(self, count: int) -> int:
        """Give up as many of the latest recorded events, and return how many these were. A gap will report them."""
        count = min(count, len(self._recorded))
        if count:
            del self._recorded[-count:]
            self._lost += count
            metrics.events_lost.inc(count)
        return count

    def flush(self) -> None:
        """Hand the recorded events to the journal, and publish those that it has stored.

        Events that cannot be written are held, not published, and tried again.

        Raises:
            RivalError: another process writes the journal.
        """
        if self.given:
            return
        try:
            self.journal.check()
            while self._publish_stored() and (self._recorded or self._lost):
                batch, self._recorded = self._recorded[:BATCH], self._recorded[BATCH:]
                lost = 0 if self._recorded else self._lost  # a replay then contains the gap
                self._lost -= lost
                future = self.journal.append(batch, lost)
                self._writing = len(batch) + lost, time.monotonic(), future
                wake_when_done(self._hub, future)
        except RivalError as error:
            lost_text = f"; {self.unstored} events of this aggregator are not in the journal" if self.unstored else ""
            raise type(error)(f"{error}{lost_text}") from error
        self._report_state()
        if self._purge is not None and self._purge.done():
            self._end_purge(self._purge)

    def _publish_stored(self) -> bool:
        """Publish the batch that the journal has stored; return whether the next one may be handed over."""
        if self._writing is None:
            return True
        _, began, future = self._writing
        if not future.done():
            return False
        stored = future.result()
        self._writing = None
        metrics.stage.labels("journal").observe(time.monotonic() - began)
        for event, text in stored:
            self.cursor = to_number(event.cursor)
            self._publish(event, text)
        return True

    def _report_state(self) -> None:
        trouble, now = self.journal.trouble, time.monotonic()
        if trouble and self._failing_since is None:
            self._failing_since = now
            _log.error("%s; events are held until the journal can be written", trouble)
        elif not trouble and self._failing_since is not None:
            _log.warning("the journal can be written again, after %.1f s", now - self._failing_since)
            self._failing_since = None

    def purge(self, now: float, retention: float) -> None:
        """Once an hour, delete the events journaled more than ``retention`` seconds ago."""
        if now >= self._purge_at and self._purge is None:
            self._purge_at = now + 3600
            self._purge = self.journal.purge(time.time() - retention)
            wake_when_done(self._hub, self._purge)

    def _end_purge(self, purge: Future[int]) -> None:
        self._purge = None
        try:
            purge.result()
        except RivalError:
            raise
        except JournalError as error:
            _log.warning("old events stay for another hour: %s", error)


def wake_when_done(hub: Hub, future: Future[Any]) -> None:
    """Let the hub's `receive` return when a future is done. One that is done already has no need of it."""
    if not future.done():
        future.add_done_callback(lambda _: hub.wake())
