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
from fer_stream.operations.process import install_stop, leave_behind, parent_gone, supervised

if TYPE_CHECKING:
    from collections.abc import Sequence

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
"""Seconds that they have to deliver the rest of the journal when the aggregator has ended."""

_log = logging.getLogger(__name__)

OUTCOMES = ("delivered", "rejected", "skipped", "filtered")


class _Watch:
    """The latest cursor, and the metrics that follow from it."""

    def __init__(self, events: Events, state: DeliveryState) -> None:
        self.newest: Cursor | None = None
        self._events, self._state = events, state
        self._lags: dict[str, Lag] = {}

    def look(self, couriers: Sequence[Courier]) -> None:
        """Ask for the latest cursor, and set the metrics."""
        found = self._events.newest()
        self.newest = found or self.newest
        dead, now = self._state.count_dead_letters(), time.monotonic()
        for courier in couriers:
            metrics.delivery_dead_letters.labels(courier.name).set(dead.get(courier.name, 0))
            if self.newest is None or courier.cursor is None:
                continue
            lag = self._lags.setdefault(courier.name, Lag())
            lag.look(self.newest, now)
            events, seconds = lag.behind(courier.cursor, now)
            metrics.delivery_lag_events.labels(courier.name).set(events)
            metrics.delivery_lag_seconds.labels(courier.name).set(seconds)
            courier.lag = None if not found else seconds if lag.caught_up else math.inf


def run(
    settings: Settings,
    orders: Sequence[Order],
    *,
    from_journal: bool = False,
    begin: Cursor | None = None,
    stop: Stop | None = None,
) -> None:
    """Deliver until ``stop`` is set or the parent process has ended.

    The child of a `run` is told to end when the aggregator has ended; it then delivers the rest of the journal, as far
    as it comes within `REST` seconds.

    Args:
        settings: the whole tree, with the address of the aggregator.
        orders: the sinks.
        from_journal: follow the journal, not the aggregator.
        begin: where new sinks begin that begin now; by default after the latest event.
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
            events = Events(settings, from_journal=from_journal)
            watch = _Watch(events, state)
            watch.newest = begin
            sinks = [order.open() for order in orders]
            for order, sink in zip(orders, sinks, strict=True):
                for outcome in OUTCOMES:  # the series exist up front, so that rate() sees the first increment
                    metrics.deliveries.labels(order.name, outcome)
                metrics.delivery_retries.labels(order.name)
                couriers.append(Courier(order, sink, events, state, lambda: watch.newest))
            for courier in couriers:
                courier.start()
            purge = 0.0
            while not (stop.wait(TICK if watch.newest else SOON) or parent_gone()):
                try:
                    watch.look(couriers)
                    if (now := time.monotonic()) >= purge:
                        purge = now + PURGE
                        state.purge(time.time() - 86_400 * settings.journal.retention_days)
                except DeliveryError as error:  # the sinks try to record their progress again, too
                    _log.warning("%s", error)
            if supervised() and not parent_gone():
                _finish(couriers)
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


def _finish(couriers: Sequence[Courier]) -> None:
    """Let the sinks deliver the rest of the journal, and say which of them have more to do."""
    for courier in couriers:
        courier.finish()
    deadline = time.monotonic() + REST
    for courier in couriers:
        courier.join(max(0.0, deadline - time.monotonic()))
        if courier.is_alive():
            _log.warning("the sink %s has not got all events; the rest follows at the next start", courier.name)
