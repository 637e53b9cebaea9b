"""Refused requests: one sentence goes into the answer and into the log. The log is rate-limited."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    import logging

    from starlette.types import ASGIApp, Scope

INTERVAL = 10.0
"""Seconds in which each sentence is logged only once, and at most `MOST` different ones."""

MOST = 20
"""Different sentences that are logged per `INTERVAL`."""


class Refusals:
    """Refuses requests and logs the reasons."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._since = -INTERVAL
        self._logged: set[str] = set()
        self._more = 0

    def refuse(self, scope: Scope, status: int, why: str) -> ASGIApp:
        """Log the reason and return an answer that contains it, for a request or a WebSocket handshake."""
        self.tell(f"refused {scope['path']!a:.60} to {who(scope)}: {why}")
        return PlainTextResponse(why + "\n", status)

    def tell(self, text: str) -> None:
        """Log a sentence, unless the rate limit suppresses it."""
        now = time.monotonic()
        if now >= self._since + INTERVAL:
            if self._more:
                self._log.warning("%d more requests were refused in %.0f s", self._more, now - self._since)
            self._since, self._logged, self._more = now, set(), 0
        if text in self._logged:
            return
        if len(self._logged) >= MOST:
            self._more += 1
            return
        self._logged.add(text)
        self._log.warning("%s", text)


def who(scope: Scope) -> str:
    """Return the client's address for a log line, escaped: it may come from a header that the client has set."""
    client = scope.get("client")
    return f"{client[0]!a:.60}".strip("'\"") if client else "an unknown address"
