"""Refused requests: one sentence as the answer, and the same in the log, which repeated requests cannot flood."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    import logging

    from starlette.types import ASGIApp, Scope

INTERVAL = 10.0
"""Seconds in which the same sentence is logged once, and at most `MOST` different ones."""

MOST = 20


class Refusals:
    """Refuses requests, and logs why."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._since = -INTERVAL
        self._told: set[str] = set()
        self._more = 0

    def refuse(self, scope: Scope, status: int, why: str) -> ASGIApp:
        """Log a reason, and return an answer with it, to a request or to the opening of a WebSocket."""
        self.tell(f"refused {scope['path']!a:.60} to {who(scope)}: {why}")
        return PlainTextResponse(why + "\n", status)

    def tell(self, text: str) -> None:
        """Log a sentence."""
        now = time.monotonic()
        if now >= self._since + INTERVAL:
            if self._more:
                self._log.warning("%d more requests were refused in %.0f s", self._more, now - self._since)
            self._since, self._told, self._more = now, set(), 0
        if text in self._told:
            return
        if len(self._told) >= MOST:
            self._more += 1
            return
        self._told.add(text)
        self._log.warning("%s", text)


def who(scope: Scope) -> str:
    """Return a client's address for a log; a proxy may have taken it from what the client says."""
    client = scope.get("client")
    return f"{client[0]!a:.60}".strip("'\"") if client else "somebody"
