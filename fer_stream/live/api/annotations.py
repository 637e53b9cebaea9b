"""Annotations over HTTP: returns pages of them, and takes new ones from senders with an annotator's token."""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fer_stream.client.annotations import annotate, fetch_annotations
from fer_stream.errors import AnnotationRefusedError, ConfigError
from fer_stream.events.annotations import encode
from fer_stream.events.cloudevents import from_rfc3339, to_rfc3339
from fer_stream.live.api.answers import AnnotationAnswer, AnnotationsAnswer
from fer_stream.live.api.contract import MOST_BODY, AnnotationBody, parse_body
from fer_stream.live.refusals import Refusals, who
from fer_stream.types import EARLIEST, LATEST, AnnotationQuery

if TYPE_CHECKING:
    from starlette.requests import Request

    from fer_stream.live.api.contract import AnnotationsQuery
    from fer_stream.live.feed import Feed
    from fer_stream.settings.tree import Settings
    from fer_stream.types import Annotation

MOST_AT_ONCE = 8
"""Most simultaneous requests to the aggregator; further ones wait."""

SECONDS = 10.0
"""Seconds in which a body must arrive."""

_log = logging.getLogger(__name__)


class AnnotationService:
    """Passes annotations between requests and the aggregator."""

    def __init__(self, feed: Feed, settings: Settings) -> None:
        self._feed, self._settings = feed, settings
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._refusals = Refusals(_log)

    async def page(self, query: AnnotationsQuery, name: str | None) -> AnnotationsAnswer:
        """Return a page of annotations; ``name`` is the annotator who asks, ``None`` for anyone else.

        Raises:
            TransportError: no aggregator answers.
        """
        since = EARLIEST if query.since is None else int(from_rfc3339(query.since))
        until = LATEST if query.to is None else int(from_rfc3339(query.to))
        if until <= since:
            raise HTTPException(400, "the period is empty: its end must be after its beginning")
        wanted = AnnotationQuery(since, until, query.camera, query.after, query.limit)
        async with self._places:
            page = await asyncio.to_thread(fetch_annotations, self._settings, wanted, where=self._feed.where)
        return AnnotationsAnswer(annotations=[_to_answer(each) for each in page.found], more=page.more, annotator=name)

    async def take(self, request: Request, name: str | None) -> AnnotationAnswer:
        """Store the annotation in a request, under the annotator's name.

        Raises:
            HTTPException: the sender is not an annotator, or the annotation is refused.
            JournalError, TransportError: it cannot be stored now.
        """
        if name is None:
            self._refusals.tell(f"an annotation from {who(request.scope)} is refused: it has no annotator's token")
            raise HTTPException(
                403,
                "only an annotator may send annotations: enter a token on the history page, or send it",
            )
        body = await _body(request)
        given = body.model_dump(exclude_none=True) | {"annotator": name}
        work = partial(annotate, self._settings, given, where=self._feed.where)
        try:
            async with self._places:
                made = await asyncio.to_thread(work)
        except AnnotationRefusedError as error:
            self._refusals.tell(f"an annotation by {name}, from {who(request.scope)}: {error}")
            raise HTTPException(400, str(error)) from error
        _log.info("annotation %d by %s, from %s", made.number, name, who(request.scope))
        return _to_answer(made)


def _to_answer(annotation: Annotation) -> AnnotationAnswer:
    fields: dict[str, Any] = json.loads(encode(annotation)) | {"number": annotation.number}
    fields |= {each: to_rfc3339(fields[each]) for each in ("start", "end", "made")}
    return AnnotationAnswer.model_validate(fields)


async def _body(request: Request) -> AnnotationBody:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a form of another page may send only other types
        raise HTTPException(415, f"the body is of the type {kind!a:.60}: send application/json")
    data = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                data += part
                if len(data) > MOST_BODY:
                    raise HTTPException(413, f"the body has more than {MOST_BODY} bytes: shorten the note")
    except TimeoutError:
        raise HTTPException(408, f"the annotation has not arrived within {SECONDS:.0f} s: try again") from None
    except ClientDisconnect:
        raise HTTPException(400, "the annotation is incomplete: send it again") from None
    try:
        return parse_body(AnnotationBody, bytes(data))
    except ConfigError as error:
        raise HTTPException(400, str(error)) from error
