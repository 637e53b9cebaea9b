"""All events, for statistics. They are read when somebody asks for the first time, and then only the new ones."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from fer_stream.client import subscribe
from fer_stream.errors import ConfigError
from fer_stream.events.cloudevents import from_rfc3339
from fer_stream.events.statistics import Record
from fer_stream.live.api.contract import MOST_ROWS
from fer_stream.types import BEGINNING

if TYPE_CHECKING:
    from fer_stream.events.statistics import Row
    from fer_stream.live.api.contract import StatisticsQuery
    from fer_stream.live.feed import Feed
    from fer_stream.settings.tree import Settings

SECONDS = 8.0
"""Seconds that a request may read events; the next request goes on."""

RENEWED = 86_400.0
"""Seconds after which all events are read again, so that what the journal has deleted does not stay here."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
HOUR = 3600 * 1_000_000_000


class History:
    """What the events say about the cameras."""

    def __init__(self, feed: Feed, settings: Settings) -> None:
        self._feed = feed
        self._settings = settings
        self._lock = asyncio.Lock()
        self._begun = 0.0
        self._record, self._cursor = Record(), str(BEGINNING)

    async def rows(self, query: StatisticsQuery, state: dict[str, Any]) -> list[Row]:
        """Return the rows of an answer; ``state`` is the status of the service now.

        Raises:
            HTTPException: the period is empty or has too many parts, or the events are still being read.
            TransportError: no aggregator answers.
        """
        now = time.time_ns()
        end = now if query.to is None else int(from_rfc3339(query.to))
        start = end - HOUR if query.since is None else int(from_rfc3339(query.since))
        every = None if query.every is None else int(query.every[:-1]) * UNITS[query.every[-1]] * 1_000_000_000
        async with self._lock:
            if not await asyncio.to_thread(self._catch_up):
                raise HTTPException(503, "the events are being read, which takes longer than a request: try again")
            # Only a live camera's times are those of the clock.
            online = {
                name: now for name, camera in state["cameras"].items() if camera["state"] == "online" and camera["live"]
            }
            try:
                return self._record.rows(
                    start,
                    end,
                    every,
                    camera=query.camera,
                    least_faces=max(query.least_faces, self._settings.least_faces),
                    groups=self._settings.valence if query.by == "valence" else None,
                    online=online,
                    most=MOST_ROWS,
                )
            except ConfigError as error:
                raise HTTPException(400, str(error)) from error

    def _catch_up(self) -> bool:
        """Read the new events; return whether all have been read in time."""
        began = time.monotonic()
        if began - self._begun > RENEWED:
            self._begun, self._record, self._cursor = began, Record(), str(BEGINNING)
        with subscribe(
            self._feed.where, after=self._cursor, until_now=True, timeout=SECONDS, settings=self._settings
        ) as events:
            while not events.ended and time.monotonic() - began < SECONDS:
                found = events.receive(0.5)
                if found is not None:
                    self._record.take(found[0])
            self._cursor = events.cursor
            return events.ended
