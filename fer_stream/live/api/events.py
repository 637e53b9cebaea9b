"""Events over HTTP: pages after a cursor, and server-sent events whose ids are cursors, so that they can be resumed.

Each request has a `fer_stream.client.Subscription` of its own, which waits in the event loop. A slow reader delays
itself alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from fer_stream.client import subscribe
from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.events.cursor import to_numbers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fer_stream.client import Subscription
    from fer_stream.live.api.contract import PageQuery, StreamQuery
    from fer_stream.live.feed import Feed
    from fer_stream.settings.tree import Settings

MOST_STREAMS = 64
"""Most open streams."""

MOST_PAGES = 8
"""Most pages that are made at the same time; further requests wait."""

SECONDS = 5.0
"""Seconds after which a page ends with what it has."""

QUIET = 10.0
"""Seconds without an event after which a stream sends its cursor, which also finds out whether the reader is there."""

BATCH = 100
"""Most events that are sent at once."""

_log = logging.getLogger(__name__)


class Streams:
    """The pages and streams that are being read."""

    def __init__(self, feed: Feed, settings: Settings) -> None:
        self._feed = feed
        self._settings = settings
        self._pages = asyncio.Semaphore(MOST_PAGES)
        self._open = 0

    async def page(self, query: PageQuery) -> Response:
        """Return a page; it may have fewer events than there are, and then says so."""
        async with self._pages:
            self._check(query.after)
            texts: list[str] = []
            deadline = time.monotonic() + SECONDS
            try:
                with self._subscribe(query, query.after, until_now=True) as found:
                    while len(texts) < query.limit and not found.ended and (left := deadline - time.monotonic()) > 0:
                        pair = await found.receive_async(left)
                        if pair is not None:
                            texts.append(pair[1])
                    cursor, more = found.cursor, not found.ended
            except ConfigError as error:  # the number of partitions was not known yet
                raise HTTPException(409, str(error)) from error
        body = f'{{"events":[{",".join(texts)}],"cursor":"{cursor}","more":{"true" if more else "false"}}}'
        return Response(body, media_type="application/json")

    def open(self, query: StreamQuery, after: str, *, head: bool) -> Response:
        """Return a stream after a cursor that ends when its reader goes; with ``head`` only its headers."""
        self._check(after)
        if self._open >= MOST_STREAMS:
            raise HTTPException(503, f"{MOST_STREAMS} streams are open already: close one of them")
        # A proxy that collects what it passes on would delay the events (nginx reads this header).
        headers = {"x-accel-buffering": "no"}
        if head:
            return Response(headers=headers, media_type="text/event-stream")
        return StreamingResponse(self._messages(query, after), headers=headers, media_type="text/event-stream")

    async def _messages(self, query: StreamQuery, after: str) -> AsyncIterator[str]:
        self._open += 1
        try:
            with self._subscribe(query, after) as found:
                yield f"id: {after}\n\n"  # from now on the reader can resume, even if no event comes
                while True:
                    yield await _batch(found)
        except FerStreamError as error:
            _log.warning("a stream of events ends: %s", error)
            yield f"event: problem\ndata: {' '.join(str(error).split())}\n\n"
        finally:
            self._open -= 1

    def _subscribe(self, query: PageQuery | StreamQuery, after: str, *, until_now: bool = False) -> Subscription:
        return subscribe(
            self._feed.where,
            camera=query.camera,
            types=query.type,
            after=after,
            until_now=until_now,
            settings=self._settings,
        )

    def _check(self, after: str) -> None:
        """Refuse a cursor of another number of partitions, as far as the number of this cell's is known."""
        latest = self._feed.status.get("cursor")
        given = len(to_numbers(after))
        if latest is not None and given not in (1, count := len(to_numbers(latest))):
            raise HTTPException(
                409,
                f"the cursor is of {given} partitions, and the events are in {count}: give a cursor of those, or 0",
            )


async def _batch(found: Subscription) -> str:
    """Return the next events as messages, or after some time the cursor alone."""
    pair, messages = await found.receive_async(QUIET), []
    while pair is not None:
        event, text = pair
        messages.append(f"id: {event.cursor}\ndata: {text}\n\n")
        pair = await found.receive_async(0.0) if len(messages) < BATCH else None
    return "".join(messages) or f"id: {found.cursor}\n\n"
