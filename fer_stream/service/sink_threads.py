"""Sinks, each in its own thread, and counts of delivered and undelivered events.

The thread opens the sink, subscribes to events like any other client, writes them to the sink, and closes it. A slow
sink delays nothing else: it falls behind, and continues from the journal where it was.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.client import Subscription, read_journal
from fer_stream.errors import FerStreamError, WireError
from fer_stream.events.cursor import to_cursor, to_number
from fer_stream.operations.process import DELIVERIES, leave_behind, leave_note
from fer_stream.settings.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fer_stream.operations.process import Stop
    from fer_stream.plugins import Sink
    from fer_stream.settings.tree import Settings
    from fer_stream.types import Event

    Export = Callable[[str, int, int], None]
    """Takes a sink's title, the number of undelivered events, and the number of events still to be delivered."""

STUCK = 10.0
"""Seconds without a delivered event after which a sink that is behind counts as stuck."""

LOG_INTERVAL = 10.0
"""Minimum seconds between two log messages about a failing sink."""

OPENING = 5.0
"""Seconds that a run waits for its sinks to open; a sink that opens later gets its events then."""

PATIENCE = 10.0
"""Seconds without a delivered event after which a run that ends by itself stops waiting for a sink. It waits for
standard output until it is told to end, because somebody may be reading the output page by page."""

GRACE = 0.3
"""Minimum seconds that sinks have after the run has ended or was told to end."""

LINGER = 1.0
"""Seconds that the sinks' subscriptions have to close."""

_log = logging.getLogger(__name__)


class SinkThread(threading.Thread):
    """One sink and its thread. ``title`` is the sink's NAME:ARGUMENT without passwords."""

    def __init__(self, sink: str, settings: Settings, after: int) -> None:
        """Prepare the thread; `start` starts it.

        Args:
            sink: the sink, as NAME:ARGUMENT.
            settings: the whole tree; the sink gets the events of the aggregator at its address.
            after: the cursor number after which its events begin.

        Raises:
            PluginError: there is no such sink.
        """
        kind, _, self._argument = sink.partition(":")
        self.title = redact(sink)
        super().__init__(name=self.title, daemon=True)
        self._factory = plugins.load("sinks", kind)
        self._settings = settings
        self.cursor = after
        self.delivered = self.undelivered = 0
        self.error = ""
        """Why the last event was not delivered; empty if it was."""
        self.closed = False
        """Whether the sink's reader has gone."""
        self.finished = threading.Event()
        """Set when the sink is closed and gets no more events."""
        self._opened = threading.Event()
        self._newest = after
        self._failure: Exception | None = None
        self._rest_begins, self._given_up = threading.Event(), threading.Event()
        self._progress = time.monotonic()
        self._logged = -LOG_INTERVAL

    # Called from other threads

    def await_open(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the sink to open, and return whether it is open.

        Raises:
            FerStreamError: the sink cannot be opened.
        """
        opened = self._opened.wait(timeout)
        if isinstance(self._failure, FerStreamError):
            raise self._failure
        if self._failure is not None:
            raise FerStreamError(f"the sink {self.title} cannot be opened: {_why(self._failure)}") from self._failure
        return opened

    def state(self, newest: int) -> dict[str, Any]:
        """Return the sink's state, as JSON; ``newest`` is the cursor number of the latest event."""
        behind = 0 if self.closed else max(0, newest - self.cursor)
        stuck = behind and time.monotonic() - self._progress > STUCK
        return {
            "state": "closed" if self.closed else "failing" if self.error else "stuck" if stuck else "ok",
            "delivered": self.delivered,
            "undelivered": self.undelivered,
            "behind": behind,
            "error": self.error,
        }

    def idle(self) -> float:
        """Return the seconds since the last event was delivered or refused."""
        return time.monotonic() - self._progress

    def finish(self, newest: int) -> None:
        """Deliver the journal's events up to the cursor number ``newest``, then end. The aggregator has ended."""
        self._progress = time.monotonic()
        self._newest = newest
        self._rest_begins.set()

    def abandon(self) -> None:
        """End as soon as the sink's present call returns, without the remaining events."""
        self._given_up.set()
        self._rest_begins.set()

    def give_up(self, grace: float) -> None:
        """End within ``grace`` seconds after `finish`; events that are not delivered by then count as undelivered."""
        self.finished.wait(grace)
        self.abandon()
        if not self.closed and (left := self._newest - self.cursor) > 0:
            self.undelivered += left
            self.error = self.error or "it did not take them in time"

    # Called in this thread

    def run(self) -> None:
        """Open the sink, write the events to it, and close it; log and count every exception that it raises."""
        try:
            sink: Sink = self._factory(self._argument)
        except Exception as error:  # a plug-in may raise anything
            self._failure = error
            self.finished.set()
            return
        finally:
            self._opened.set()
        self._progress = time.monotonic()
        with ExitStack() as last:  # close the subscription after `finished` is set, because closing it takes time
            self._guarded("gets no events for now", lambda: self._follow(sink, last))
            self._rest_begins.wait()
            self._guarded("gets no events", lambda: self._read_rest(sink))
            self._guarded("cannot be closed", sink.close)
            self.finished.set()

    def _guarded(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._log_failure(what, error)

    def _follow(self, sink: Sink, last: ExitStack) -> None:
        how = self._settings
        subscription = last.enter_context(
            Subscription(how.address, after=to_cursor(self.cursor), transport=how.transport, key=how.key, keys=how.keys)
        )
        while not (self._rest_begins.is_set() or self.closed):
            try:
                found = subscription.receive(0.1)
            except WireError as error:
                self._log_failure("missed a message", error)
                continue
            if found is not None:
                self._deliver(sink, *found)
            self.cursor = to_number(subscription.cursor)

    def _read_rest(self, sink: Sink) -> None:
        if self.cursor >= self._newest:
            return
        for event, text in read_journal(self._settings.journal, after=to_cursor(self.cursor)):
            if self._given_up.is_set() or self.closed:
                return
            self._deliver(sink, event, text)
            self.cursor = max(self.cursor, to_number(event.cursor))
        self.cursor = self._newest

    def _deliver(self, sink: Sink, event: Event, text: str) -> None:
        try:
            sink.write(event, text)
        except Exception as error:
            self.undelivered += 1
            self._log_failure("did not take an event", error)
        else:
            self.closed = bool(getattr(sink, "closed", False))
            self.delivered += not self.closed
            if self.error:
                _log.warning("the sink %s takes events again; %d were not delivered", self.title, self.undelivered)
            self.error = ""
        self._progress = time.monotonic()

    def _log_failure(self, what: str, error: Exception) -> None:
        self.error = redact(_why(error))
        if (now := time.monotonic()) >= self._logged + LOG_INTERVAL:
            self._logged = now
            _log.error("the sink %s %s, and the run goes on: %s", self.title, what, self.error)


class SinkThreads:
    """All sinks of a run. They open before the roles start; status, metrics and summary contain their states."""

    def __init__(self, sinks: Sequence[str], settings: Settings, begin: int) -> None:
        self.all = [SinkThread(sink, settings, begin) for sink in sinks]
        self._last_states: dict[str, Any] = {}

    def open(self, stop: Stop) -> None:
        """Open all sinks; wait at most `OPENING` seconds.

        Raises:
            FerStreamError: a sink cannot be opened.
        """
        for thread in self.all:
            thread.start()
        deadline = time.monotonic() + OPENING
        for thread in self.all:
            while not (thread.await_open(0.02) or stop.is_set() or time.monotonic() > deadline):
                pass

    def states(self, newest: int) -> dict[str, Any]:
        """Return each sink's state, by its title; ``newest`` is the cursor number of the latest event."""
        return {thread.title: thread.state(newest) for thread in self.all}

    def tell(self, folder: Path, newest: int, export: Export | None) -> None:
        """Publish the states: in a note in ``folder``, which the aggregator reads for its status, and by ``export``.

        A sink that becomes stuck is logged. If the note cannot be written, the next change of a state writes it again.
        """
        states = self.states(newest)
        for title, state in states.items():
            if state["state"] == "stuck" != self._last_states.get(title, {}).get("state"):
                waiting = state["behind"]
                _log.warning(
                    "the sink %s has taken no event for %g s; %d wait, and the run goes on", title, STUCK, waiting
                )
        if states != self._last_states:
            with suppress(OSError):  # for example a full disk
                leave_note(folder, DELIVERIES, states)
            self._last_states = states
        if export:
            for title, state in states.items():
                export(title, state["undelivered"], state["behind"])

    @property
    def closed(self) -> bool:
        """Whether the reader of a sink has gone, such as stdout's (``| head``)."""
        return any(thread.closed for thread in self.all)

    def finish(self, stop: Stop, newest: int, deadline: float) -> None:
        """Let the sinks take the remaining events, up to the cursor number ``newest``, and close them.

        If the run was told to end, they have until ``deadline`` (monotonic seconds), otherwise as long as they take
        events.
        """
        for thread in self.all:
            thread.finish(newest)
        while any(map(self._waits, self.all)) and not stop.wait(0.05):
            pass
        deadline = max(deadline, time.monotonic() + GRACE)
        for thread in self.all:
            thread.give_up(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """End all sinks without their remaining events, and wait up to `LINGER` seconds for their threads."""
        deadline = time.monotonic() + LINGER
        for thread in self.all:
            thread.abandon()
        for thread in self.all:
            left = max(0.0, deadline - time.monotonic())
            leave_behind(thread, left if thread.finished.wait(min(left, GRACE)) else 0.0)

    @staticmethod
    def _waits(thread: SinkThread) -> bool:
        return not thread.finished.is_set() and (thread.title.startswith("stdout:") or thread.idle() < PATIENCE)


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, FerStreamError) else f"{type(error).__name__}: {error}"
