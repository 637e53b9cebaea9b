"""One sink's thread: reads events after the sink's cursor, writes them in batches, and records the progress.

A batch is written until the receiver has taken it, or has refused its events one by one; so each camera's events arrive
in order. Then the new cursor and the refused events are recorded in one transaction. If this process is killed before
that, the batch comes again after the restart, with the same ids.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.delivery.filters import Filter
from fer_stream.delivery.state import DeadLetter
from fer_stream.errors import (
    ConfigError,
    DeliveryError,
    FatalError,
    FerStreamError,
    RejectedError,
    RetryError,
)
from fer_stream.events import cloudevents
from fer_stream.operations import metrics
from fer_stream.plugins import Delivery, FollowingSink
from fer_stream.settings.redaction import redact
from fer_stream.types import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fer_stream.delivery.followers import Events, Follower
    from fer_stream.delivery.sink import Order
    from fer_stream.delivery.state import DeliveryState, Request
    from fer_stream.plugins import BatchSink
    from fer_stream.types import Cursor

FIRST, LONGEST = 0.5, 60.0
"""Seconds: the longest pause after the first failure, which doubles with each one, and the longest of all."""

PATIENCE = 3600.0
"""Most seconds that a receiver may ask for before the next attempt."""

BYTES = 1_000_000
"""Bytes of text after which a batch is full."""

LINGER = 0.01
"""Seconds to wait for another event of a batch."""

TURN = 0.25
"""Seconds after which a thread that waits looks whether it is to end."""

LOOK = 1.0
"""Seconds between two looks at what the operator asks for."""

RECORD = 1.0
"""Least seconds between two records of the cursor if the events in between were only left out."""

LEFT_OUT = 10_000
"""Events that may be left out before the cursor is recorded."""

LOG = 60.0
"""Least seconds between two log messages about the same failing sink."""


_log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Events to write, the cursor after them, and how many events before it were left out."""

    deliveries: list[Delivery]
    cursor: Cursor
    filtered: int


class StoppedError(Exception):
    """This process is to end."""


def pause(attempt: int, after: float = 0.0) -> float:
    """Return how many seconds to wait after a failed attempt: at random, so that many do not come at once.

    Args:
        attempt: the number of failed attempts before this one.
        after: what the receiver asks for, at least.
    """
    longest = min(LONGEST, FIRST * 2.0 ** min(attempt, 16))
    return max(random.uniform(0.0, longest), min(after, PATIENCE))  # noqa: S311  (nobody gains by guessing it)


class Courier(threading.Thread):
    """Serves one sink until `end`. Whatever the sink does, other sinks are not delayed."""

    def __init__(
        self, order: Order, sink: BatchSink, events: Events, state: DeliveryState, newest: Callable[[], Cursor | None]
    ) -> None:
        """Prepare the thread.

        Args:
            order: the sink's name and settings.
            sink: the open sink.
            events: what it follows.
            state: the record.
            newest: returns the latest known cursor, where a new sink begins.
        """
        super().__init__(name=order.name, daemon=True)
        self.error = ""
        """Why nothing is delivered now; empty if something could be."""
        self.lag: float | None = None
        """Seconds for which the oldest event has waited; ``None`` while that is not known. The process sets it."""
        self._order, self._sink, self._events, self._state = order, sink, events, state
        self._newest, self._filter = newest, Filter(order.settings)
        self._left_out = 0
        """Events that the filters left out since the cursor was recorded."""
        self._ending, self._finishing = threading.Event(), threading.Event()
        self._looked = self._recorded = self._logged = self._followed = 0.0
        self._told = ""
        self._seen: set[Request] = set()
        recorded = state.sink(order.name)
        self._continued = recorded is not None
        """Whether this sink has delivered before, so that its events follow those."""
        self.cursor: Cursor | None = recorded.cursor if recorded else None
        """Up to where everything is done; ``None`` until it is known where a new sink begins."""

    def end(self) -> None:
        """Let the thread end after the present call of the sink."""
        self._ending.set()

    def finish(self) -> None:
        """Let the thread deliver what is in the journal, and then end; the aggregator has ended."""
        self._finishing.set()

    # In this thread

    def run(self) -> None:
        """Serve the sink; every exception is logged, recorded and overcome."""
        attempt = 0
        try:
            while True:
                try:
                    self._begin()
                    self._left_out = 0  # they come again
                    with self._events.after(self._known()) as follower:
                        moves = self._events.moves
                        while not self._finishing.is_set() and moves == self._events.moves:
                            self._turn(follower)
                            self._recover()
                            attempt = 0
                    if self._finishing.is_set():
                        self._finish()
                except StoppedError:
                    raise
                except (FatalError, ConfigError) as error:
                    self._await_operator(error)
                except Exception as error:
                    self._fail("failing", error)
                    self._wait(pause(attempt))
                    attempt += 1
        except StoppedError:
            pass
        finally:
            self._close()

    def _known(self) -> Cursor:
        if self.cursor is None:
            raise DeliveryError("it is not known where to begin")
        return self.cursor

    def _begin(self) -> None:
        """Find out where a new sink begins, and record it, so that it misses nothing from then on."""
        while self.cursor is None:
            if self._finishing.is_set():
                raise StoppedError
            beginning = self._order.settings.begin == "beginning"
            found = BEGINNING if beginning else self._newest()
            if found is None:
                self._wait(TURN)
                continue
            self._state.begin(self._order.name, found)
            where = "with the oldest event in the journal" if found == BEGINNING else f"after the cursor {found}"
            _log.info("the sink %s has delivered nothing yet, and begins %s", self.name, where)
            self.cursor = found

    def _turn(self, follower: Follower) -> bool:
        """Deliver what there is, a batch at most; return whether there was something."""
        if self._ending.is_set():
            raise StoppedError
        for request in self._requests():
            self._answer(request)
        self._follow()
        batch = self._collect(follower)
        if batch is None:
            return False
        dead = self._write(batch.deliveries) if batch.deliveries else []
        self._advance(batch, dead)
        return True

    def _follow(self) -> None:
        """Tell the sink how current it is, if it wants to know."""
        now = time.monotonic()
        if now >= self._followed + LOOK and isinstance(self._sink, FollowingSink):
            self._sink.follow(self.lag, continued=self._continued)
            self._followed = now  # only now: after a failure it is called again before anything counts as well

    def _finish(self) -> None:
        """Deliver the rest of the journal."""
        self._left_out = 0
        with self._events.rest(self._known()) as follower:
            while self._turn(follower):
                pass
        raise StoppedError

    def _collect(self, follower: Follower) -> Batch | None:
        """Return the next events, as many as there are and fit into a batch; ``None`` if nothing is to be done."""
        deliveries: list[Delivery] = []
        filtered = size = 0
        found = follower.receive(TURN)
        while found is not None:
            event, text = found
            if self._filter.passes(event):
                deliveries.append(Delivery(cloudevents.identity(text), event, text))
                size += len(text)
            else:
                filtered += 1
            if len(deliveries) >= self._sink.most or size >= BYTES or filtered >= LEFT_OUT:
                break
            found = follower.receive(LINGER)
        self._left_out += filtered
        due = self._left_out and time.monotonic() >= self._recorded + RECORD
        if not deliveries and not due and filtered < LEFT_OUT:
            return None
        batch = Batch(deliveries, follower.cursor, self._left_out)
        self._left_out = 0
        return batch

    def _write(self, deliveries: Sequence[Delivery]) -> list[DeadLetter]:
        """Write events until the receiver has taken or refused each of them; return those that become dead letters."""
        pending, dead, attempt = list(deliveries), [], 0
        while pending:
            failure: DeliveryError
            try:
                self._sink.write(pending)
            except RejectedError as error:
                refused = self._bury(pending, error.reasons)
                if refused:
                    dead += refused
                    pending = [delivery for delivery in pending if delivery.id not in error.reasons]
                    continue
                failure = RetryError(f"it refuses events that it was not given: {error}")
            except FatalError:
                raise
            except RetryError as error:
                failure = error
            except Exception as error:  # a plug-in may raise anything
                failure = RetryError(_why(error))
            else:
                break
            metrics.delivery_retries.labels(self.name).inc()
            self._fail("failing", failure)
            skipped = self._back_off(pause(attempt, getattr(failure, "after", 0.0)), pending)
            dead += skipped
            pending = [delivery for delivery in pending if delivery.id not in {letter.id for letter in skipped}]
            attempt += 1
        return dead

    def _bury(self, pending: Sequence[Delivery], reasons: dict[str, str]) -> list[DeadLetter]:
        refused = [DeadLetter(one.id, one.text, redact(reasons[one.id])) for one in pending if one.id in reasons]
        if refused:
            count, first = len(refused), refused[0]
            _log.error(
                "the receiver of the sink %s refuses events for good (%d), such as %s: %s; they are dead letters now",
                *(self.name, count, first.id, first.reason),
            )
            metrics.deliveries.labels(self.name, "rejected").inc(len(refused))
        return refused

    def _back_off(self, seconds: float, pending: Sequence[Delivery]) -> list[DeadLetter]:
        """Wait until the next attempt is due or asked for; return the events that the operator skips."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._wait(min(left, TURN))
            skipped: list[DeadLetter] = []
            for request in self._requests():
                if request.action == "skip":
                    reason = f"skipped by the operator; before: {self.error}"
                    skipped += [DeadLetter(one.id, one.text, reason) for one in pending if request.id in ("", one.id)]
                    self._state.answered(request)
                elif request not in self._seen:  # it is carried out after this batch, which is tried now
                    self._seen.add(request)
                    return skipped
            if skipped:
                metrics.deliveries.labels(self.name, "skipped").inc(len(skipped))
                return skipped
        return []

    def _advance(self, batch: Batch, dead: Sequence[DeadLetter]) -> None:
        """Record that a batch is done. The receiver has it already, so only the record is tried again."""
        delivered = len(batch.deliveries) - len(dead)
        attempt = 0
        while True:
            try:
                self._state.advance(self.name, batch.cursor, delivered=delivered, filtered=batch.filtered, dead=dead)
                break
            except DeliveryError as error:
                self._fail("failing", error)
                self._wait(pause(attempt))
                attempt += 1
        self.cursor, self._recorded, self._continued = batch.cursor, time.monotonic(), True
        metrics.deliveries.labels(self.name, "delivered").inc(delivered)
        metrics.deliveries.labels(self.name, "filtered").inc(batch.filtered)

    # The operator

    def _requests(self) -> list[Request]:
        """Return what the operator asks for; look at most every `LOOK` seconds."""
        now = time.monotonic()
        if now < self._looked + LOOK:
            return []
        self._looked = now
        return self._state.asked(self.name)

    def _answer(self, request: Request) -> None:
        """Carry out a request between two batches, when there is nothing to skip."""
        if request.action == "retry":
            after = 0
            while found := self._state.dead_letters(self.name, request.id, after, self._sink.most):
                after = found[-1][0]
                deliveries = [Delivery(one.id, cloudevents.decode(one.text), one.text) for _, one in found]
                dead = self._write(deliveries)
                gone = {delivery.id for delivery in deliveries} - {letter.id for letter in dead}
                self._state.revived(self.name, gone, dead)
                metrics.deliveries.labels(self.name, "delivered").inc(len(gone))
        self._state.answered(request)
        self._seen.discard(request)

    def _await_operator(self, error: FerStreamError) -> None:
        """Wait until the operator asks to go on, and open the sink again."""
        self._fail("stopped", error)
        self._close()
        while True:
            self._wait(TURN)
            if any(request.action == "retry" for request in self._requests()):
                try:
                    self._sink = self._order.open()
                except FerStreamError as again:
                    self._fail("stopped", again)
                    for request in self._state.asked(self.name):
                        self._state.answered(request)
                    continue
                return

    # Reports

    def _fail(self, state: str, error: Exception) -> None:
        """Record and log that nothing is delivered now, and why."""
        self.error = redact(_why(error))
        if state == "stopped":
            advice = f"then run fer-stream deliver retry '{self.name}'"
            _log.error("the sink %s has stopped; nothing is lost: %s; %s", self.name, self.error, advice)
        elif (now := time.monotonic()) >= self._logged + LOG or not self._told:
            self._logged = now
            _log.warning("the sink %s takes no events and is tried again: %s", self.name, self.error)
        if self.cursor is not None and self._told != f"{state} {self.error}":
            try:
                self._state.tell(self.name, state, self.error)
                self._told = f"{state} {self.error}"
            except DeliveryError as failure:
                _log.warning("the state of the sink %s cannot be recorded: %s", self.name, failure)

    def _recover(self) -> None:
        """Record that nothing is wrong."""
        if self.error:
            _log.warning("the sink %s takes events again", self.name)
        self.error = ""
        if self._told != "ok":
            self._state.tell(self.name, "ok", "")
            self._told = "ok"

    def _wait(self, seconds: float) -> None:
        if self._ending.wait(seconds):
            raise StoppedError

    def _close(self) -> None:
        try:
            self._sink.close()
        except Exception as error:
            _log.warning("the sink %s cannot be closed: %s", self.name, _why(error))


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, FerStreamError) else f"{type(error).__name__}: {error}"
