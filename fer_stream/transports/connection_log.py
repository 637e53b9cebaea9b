"""Logs that an aggregator cannot be reached, and why."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from fer_stream.operations.process import starts_aggregator

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 5.0
"""Seconds without a connection until a warning is logged."""

ASK = 3.5
"""Seconds without a connection until the cause is looked up, so that it is known when the warning is due."""

RESOLVE = 8.0
"""Seconds without a connection after which a lookup that still runs is taken for a name server that does not answer."""

ASK_AGAIN = 30.0
"""Seconds until the cause is looked up again. A new cause is logged at once, the same one only after `REPEAT`."""

REPEAT = 600.0
"""Least seconds between two warnings of the same cause, in the whole process."""

ANEW = 60.0
"""Least seconds between two such warnings if there was a connection in between."""

_log = logging.getLogger(__name__)

_logged: dict[tuple[str, str], float] = {}  # time of the last warning by address and cause, shared by all links


class ConnectionLog:
    """Logs when a link has had no connection for a while, with the cause, and when it is connected again.

    It logs nothing in a supervisor and its children: the supervisor starts the aggregator and logs its failures.
    """

    def __init__(self, address: str, why: Callable[[], str]) -> None:
        """Begin without a connection.

        Args:
            address: the aggregator's address.
            why: returns why there is no connection. It may block, and is called in its own thread.
        """
        self._address, self._why = address, why
        self._silent = starts_aggregator()
        self._asking: threading.Thread | None = None
        self._begin(time.monotonic())

    def _begin(self, now: float) -> None:
        self._since: float | None = now
        self._ask_at = now + ASK
        self._cause = self._warned = ""

    def look(self, up: bool) -> None:
        """Record whether there is a connection, and log what is due. It does not block; call it often."""
        now = time.monotonic()
        if self._silent or (up and self._since is None):
            return
        if up:
            self._reached(now)
        elif self._since is None:
            self._begin(now)
        else:
            self._ask_if_due(now, self._since)
            if self._cause and now >= self._since + PATIENCE:
                self._warn(now)

    def _reached(self, now: float) -> None:
        if self._warned and self._since is not None:
            _log.warning("the aggregator at %s is reached after %.0f s", self._address, now - self._since)
            _logged[self._address, self._warned] = now - REPEAT + ANEW
        self._since = None

    def _ask_if_due(self, now: float, since: float) -> None:
        asking = self._asking is not None and self._asking.is_alive()
        if asking:
            if not self._cause and now >= since + RESOLVE:
                self._cause = "its host name cannot be resolved: no name server answers"
        elif now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN
            self._asking = threading.Thread(target=self._ask, args=(since,), name="connection-log", daemon=True)
            self._asking.start()

    def _ask(self, since: float) -> None:
        cause = self._why()
        if self._since == since:  # otherwise the connection was back meanwhile
            self._cause = cause

    def _warn(self, now: float) -> None:
        if now >= _logged.get((self._address, self._cause), -REPEAT) + REPEAT:
            _logged[self._address, self._cause] = now
            self._warned = self._cause
            _log.warning("no aggregator is reached at %s: %s; this process keeps trying", self._address, self._cause)
