"""What a run prints: events on standard output, by a thread of its own.

The thread subscribes to events like any other client and writes them. A slow reader delays nothing else: the view falls
behind, and continues from the journal where it was. Events that are to arrive for certain go to a sink of
``fer-stream deliver``.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from fer_stream.client import Subscription, read_journal
from fer_stream.errors import FerStreamError, WireError
from fer_stream.events.cursor import to_cursor, to_number
from fer_stream.operations.process import leave_behind

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_stream.operations.process import Stop
    from fer_stream.plugins import Sink
    from fer_stream.settings.tree import Settings
    from fer_stream.types import Event

STUCK = 10.0
"""Seconds without a printed event after which a view that is behind counts as stuck."""

LOG_INTERVAL = 10.0
"""Minimum seconds between two log messages about a failing view."""

GRACE = 0.3
"""Minimum seconds that the view has after the run was told to end."""

LINGER = 1.0
"""Seconds that its subscription has to close."""

_log = logging.getLogger(__name__)


class View(threading.Thread):
    """Prints the events of the aggregator in the settings."""

    def __init__(self, title: str, sink: Sink, settings: Settings, after: int) -> None:
        """Prepare the thread; `start` starts it.

        Args:
            title: its name in status, metrics, log and summary.
            sink: writes to standard output.
            settings: the whole tree.
            after: the cursor number after which its events begin.
        """
        self.title = title
        super().__init__(name=title, daemon=True)
        self._sink = sink
        self._settings = settings
        self.cursor = after
        self.delivered = self.undelivered = 0
        self.error = ""
        """Why the last event was not printed; empty if it was."""
        self.closed = False
        """Whether the reader has gone (``| head``)."""
        self.finished = threading.Event()
        """Set when it prints no more."""
        self._newest = after
        self._rest_begins, self._given_up = threading.Event(), threading.Event()
        self._progress = time.monotonic()
        self._logged = -LOG_INTERVAL
        self._was_stuck = False

    # Called from other threads

    def state(self, newest: int) -> dict[str, Any]:
        """Return the state, as JSON, and log when the view becomes stuck.

        Args:
            newest: the cursor number of the latest event.
        """
        behind = 0 if self.closed else max(0, newest - self.cursor)
        stuck = behind > 0 and time.monotonic() - self._progress > STUCK
        if stuck and not self._was_stuck:
            _log.warning("nobody has read %s for %g s; %d events wait, and the run goes on", self.title, STUCK, behind)
        self._was_stuck = stuck
        return {
            "state": "closed" if self.closed else "failing" if self.error else "stuck" if stuck else "ok",
            "delivered": self.delivered,
            "undelivered": self.undelivered,
            "behind": behind,
            "error": self.error,
        }

    def finish(self, stop: Stop, newest: int, deadline: float) -> None:
        """Print the journal's events up to the cursor number ``newest``, then end. The aggregator has ended.

        If the run was told to end, this takes until ``deadline`` (monotonic seconds) at most; otherwise as long as it
        takes, because somebody may be reading the output page by page.
        """
        self._newest = newest
        self._rest_begins.set()
        while not (self.finished.is_set() or stop.wait(0.05)):
            pass
        self.finished.wait(max(GRACE, deadline - time.monotonic()))
        self._abandon()
        if not self.closed and (left := self._newest - self.cursor) > 0:
            self.undelivered += left
            self.error = self.error or "its reader did not take them in time"

    def close(self) -> None:
        """End without the remaining events, and wait up to `LINGER` seconds for the thread."""
        self._abandon()
        leave_behind(self, LINGER if self.finished.wait(GRACE) else 0.0)

    def _abandon(self) -> None:
        self._given_up.set()
        self._rest_begins.set()

    # Called in this thread

    def run(self) -> None:
        """Print the events; log and count every exception."""
        with ExitStack() as last:  # close the subscription after `finished` is set, because closing it takes time
            self._guarded("gets no events for now", lambda: self._follow(last))
            self._rest_begins.wait()
            self._guarded("gets no events", self._read_rest)
            self._guarded("cannot be closed", self._sink.close)
            self.finished.set()

    def _guarded(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._log_failure(what, error)

    def _follow(self, last: ExitStack) -> None:
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
                self._print(*found)
            self.cursor = to_number(subscription.cursor)

    def _read_rest(self) -> None:
        if self.cursor >= self._newest:
            return
        for event, text in read_journal(self._settings.journal, after=to_cursor(self.cursor)):
            if self._given_up.is_set() or self.closed:
                return
            self._print(event, text)
            self.cursor = max(self.cursor, to_number(event.cursor))
        self.cursor = self._newest

    def _print(self, event: Event, text: str) -> None:
        try:
            self._sink.write(event, text)
        except Exception as error:
            self.undelivered += 1
            self._log_failure("did not take an event", error)
        else:
            self.closed = bool(getattr(self._sink, "closed", False))
            self.delivered += not self.closed
            if self.error:
                _log.warning("%s takes events again; %d were not printed", self.title, self.undelivered)
            self.error = ""
        self._progress = time.monotonic()

    def _log_failure(self, what: str, error: Exception) -> None:
        self.error = str(error) if isinstance(error, FerStreamError) else f"{type(error).__name__}: {error}"
        if (now := time.monotonic()) >= self._logged + LOG_INTERVAL:
            self._logged = now
            _log.error("%s %s, and the run goes on: %s", self.title, what, self.error)
