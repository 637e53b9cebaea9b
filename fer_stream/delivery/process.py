"""The process of ``fer-stream deliver``: a thread for each sink, one lag for each, and the metrics."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from fer_stream.delivery.courier import Courier
from fer_stream.delivery.followers import Events
from fer_stream.delivery.lag import Lag
from fer_stream.delivery.state import DeliveryState, claimed, path_of
from fer_stream.errors import DeliveryError
from fer_stream.operations import metrics
from fer_stream.operations.process import Report, install_stop, leave_behind, parent_gone, supervised

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fer_stream.delivery.sink import Order
    from fer_stream.operations.process import Stop
    from fer_stream.settings.tree import Settings
    from fer_stream.types import Cursor

TICK = 2.0
"""Seconds between two looks at the latest cursor."""

SOON = 0.2
"""The same, until it is known."""

PURGE = 3600.0
"""Seconds between two purges of old dead letters."""

GRACE = 2.0
"""Seconds that the sinks have to return from their present call when the process ends."""

REST = 2.0
"""Seconds without progress after which the sinks get no more, when the aggregator has ended."""

LOOK = 0.2
"""Seconds between two looks at that progress."""

STUCK = 10.0
"""Seconds without progress after which a sink that is behind and has not failed counts as stuck."""

LATE = 3.0
"""Seconds after which the log says that it is not known yet where new sinks begin."""

OUTCOMES = ("delivered", "rejected", "skipped", "filtered")

_log = logging.getLogger(__name__)


class _Watch:
    """The latest cursor, and the metrics that follow from it."""

    def __init__(self, events: Events, state: DeliveryState) -> None:
        self.newest: Cursor | None = None
        self._events, self._state = events, state
        self._lags: dict[str, Lag] = {}
        self._moved: dict[str, tuple[Cursor | None, float]] = {}
        self._stuck: set[str] = set()
        self._late = time.monotonic() + LATE
        self._gone = False
        self._report = Report()

    def try_to_look(self, couriers: Sequence[Courier]) -> bool:
        """Look; log if the record of deliveries cannot be used now. The sinks try to record their progress again."""
        try:
            self._look(couriers)
        except DeliveryError as error:
            _log.warning("%s", error)
            return False
        return True

    def _look(self, couriers: Sequence[Courier]) -> None:
        """Ask for the latest cursor, set the metrics, and report to a supervisor."""
        found = self._events.newest()
        self.newest = found or self.newest
        now = time.monotonic()
        self._tell_if_late(couriers, now)
        sinks = {}
        for courier in couriers:
            behind, seconds = 0, 0.0
            if self.newest is not None and courier.cursor is not None:
                lag = self._lags.setdefault(courier.name, Lag())
                lag.look(self.newest, now)
                behind, seconds = lag.behind(courier.cursor, now)
                metrics.delivery_lag_events.labels(courier.name).set(behind)
                metrics.delivery_lag_seconds.labels(courier.name).set(seconds)
                courier.lag = None if not found else seconds if lag.caught_up else math.inf
            self._find_stuck(courier, behind, seconds, now)
            sinks[courier.name] = {"state": "new", "delivered": 0, "undelivered": 0, "behind": behind, "error": ""}
        if self._state.gone() and not self._gone:
            self._gone = True
            _log.error(
                "the record of deliveries %s was moved or deleted: what is delivered from now on is not recorded; stop "
                "this process, put the record back, and start again",
                self._state.path,
            )
        dead = self._state.count_dead_letters()
        for known in self._state.sinks():
            if known.name in sinks:
                count = dead.get(known.name, 0)
                metrics.delivery_dead_letters.labels(known.name).set(count)
                told = {"state": known.state, "delivered": known.delivered, "undelivered": count, "error": known.error}
                sinks[known.name] |= told
                if known.name in self._stuck and known.state == "ok":
                    sinks[known.name] |= {"state": "stuck", "error": f"it has taken no event for {STUCK:g} s"}
        self._report.tell(now=True, sinks=sinks)

    def _tell_if_late(self, couriers: Sequence[Courier], now: float) -> None:
        """Log, once, that a new sink waits, and what for: it cannot say that itself. A supervisor knows."""
        waiting = [courier.name for courier in couriers if courier.cursor is None]
        if self.newest is None and waiting and now >= self._late and not supervised():
            self._late = math.inf
            _log.warning("%s cannot begin yet: %s; this process keeps trying", ", ".join(waiting), self._events.error)

    def _find_stuck(self, courier: Courier, behind: int, seconds: float, now: float) -> None:
        """Notice, and log once, that a sink neither takes events nor fails."""
        cursor, since = self._moved.setdefault(courier.name, (courier.cursor, now))
        if cursor != courier.cursor:
            self._moved[courier.name], since = (courier.cursor, now), now
        if courier.error or not behind or min(seconds, now - since) < STUCK:
            self._stuck.discard(courier.name)
        elif courier.name not in self._stuck:
            self._stuck.add(courier.name)
            _log.warning("the sink %s has taken no event for %g s; %d wait", courier.name, STUCK, behind)


def run(
    settings: Settings,
    orders: Sequence[Order],
    *,
    from_journal: bool = False,
    begin: Cursor | None = None,
    find: Callable[[], str] | None = None,
    stop: Stop | None = None,
) -> None:
    """Deliver until ``stop`` is set or the parent process has ended.

    The child of a `run` is told to end when the aggregator has ended; it then delivers the rest of the journal, until
    no sink has taken anything for `REST` seconds.

    Args:
        settings: the whole tree, with the address of the aggregator.
        orders: the sinks.
        from_journal: follow the journal, not the aggregator.
        begin: where new sinks begin that begin now; by default after the latest event.
        find: returns the aggregator's address if that may change (`Events`).
        stop: ends the process when it is set; by default SIGINT and SIGTERM set it.

    Raises:
        FerStreamError: a sink cannot be opened, or the record of deliveries cannot be used.
    """
    stop = stop or install_stop()
    path = path_of(settings)
    with claimed(path):
        state = DeliveryState(path, create=True)
        health = metrics.serve(settings, lambda: "")
        couriers: list[Courier] = []
        try:
            events = Events(settings, from_journal=from_journal, find=find)
            watch = _Watch(events, state)
            watch.newest = begin
            sinks = [order.open() for order in orders]
            state.rest({order.name for order in orders})
            for order, sink in zip(orders, sinks, strict=True):
                for outcome in OUTCOMES:  # the series exist up front, so that rate() sees the first increment
                    metrics.deliveries.labels(order.name, outcome)
                metrics.delivery_retries.labels(order.name)
                couriers.append(Courier(order, sink, events, state, lambda: watch.newest))
            for courier in couriers:
                courier.start()
            _log.info("delivers to %s", ", ".join(order.name for order in orders))
            purge = 0.0
            while not (stop.wait(TICK if watch.newest else SOON) or parent_gone()):
                if watch.try_to_look(couriers) and (now := time.monotonic()) >= purge:
                    purge = now + PURGE
                    state.purge(time.time() - 86_400 * settings.journal.retention_days)
            if supervised() and not parent_gone():
                events.aggregator_ended()
                _finish(couriers, watch)
        finally:
            for courier in couriers:
                courier.end()
            deadline = time.monotonic() + GRACE
            for courier in couriers:
                if courier.ident is not None:
                    leave_behind(courier, max(0.0, deadline - time.monotonic()))
            if health:
                health.close()
            state.close()


def _finish(couriers: Sequence[Courier], watch: _Watch) -> None:
    """Let the sinks deliver the rest of the journal, as long as one of them makes progress."""
    for courier in couriers:
        courier.finish()
    cursors, progress = [courier.cursor for courier in couriers], time.monotonic()
    while any(courier.is_alive() for courier in couriers) and time.monotonic() - progress < REST:
        for courier in couriers:
            courier.join(LOOK / len(couriers))
        watch.try_to_look(couriers)
        if (now := [courier.cursor for courier in couriers]) != cursors:
            cursors, progress = now, time.monotonic()
    watch.try_to_look(couriers)
