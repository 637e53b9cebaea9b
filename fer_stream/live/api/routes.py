"""Serves the operations of the API. Every error is a problem (RFC 9457) whose detail is one sentence."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Mount, Route

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.events.cloudevents import to_rfc3339
from fer_stream.live.access import annotator
from fer_stream.live.api import answers, contract, events
from fer_stream.live.api.annotations import AnnotationService
from fer_stream.live.api.history import History
from fer_stream.live.api.recognition import Recognition
from fer_stream.system.version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from fer_stream.live.api.contract import Operation, Query
    from fer_stream.live.feed import Feed
    from fer_stream.settings.tree import Settings

TITLES = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    411: "Length required",
    413: "Too large",
    415: "Unsupported media type",
    422: "No picture",
    500: "Failure",
    503: "Not available",
}


class Api:
    """The operations. Each method that `contract.OPERATIONS` names gets a request and its checked parameters."""

    def __init__(self, feed: Feed, settings: Settings) -> None:
        self._feed = feed
        self._settings = settings
        self._streams = events.Streams(feed, settings)
        self._history = History(feed, settings)
        self._recognition = Recognition(settings)
        self._annotations = AnnotationService(feed, settings)

    def mount(self) -> Mount:
        """Return the route of everything below `contract.PREFIX`."""
        served: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {}
        for each in contract.OPERATIONS:
            served.setdefault(each.path, {})[each.method] = self._endpoint(each, getattr(self, each.name))
        routes = [Route(path, _by_method(methods), methods=list(methods)) for path, methods in served.items()]
        handlers: dict[Any, Any] = {HTTPException: _refused, FerStreamError: _unavailable, Exception: _failed}
        made = Mount(contract.PREFIX, Starlette(routes=routes, exception_handlers=handlers))
        # Starlette's pattern ends at a line end, and what follows would get the answer of the page.
        made.path_regex = re.compile(made.path_regex.pattern, re.DOTALL)
        return made

    def start(self) -> None:
        """Begin to serve; call it in the event loop."""
        self._history.start()

    def close(self) -> None:
        """Release what the operations hold."""
        self._history.close()
        self._recognition.close()

    def _endpoint(
        self, operation: Operation, serve: Callable[[Request, Any], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                query = contract.parse(operation.query, request.query_params.multi_items())
            except ConfigError as error:
                raise HTTPException(400, str(error)) from error
            return await serve(request, query)

        return endpoint

    async def _state(self) -> dict[str, Any]:
        state = await self._feed.fresh_status()
        if state is None:
            raise HTTPException(503, "no aggregator answers: see whether the service runs, and try again")
        return state

    # Now

    async def status(self, _: Request, __: Query) -> Response:
        """See `contract`."""
        state = await self._state()
        states = [camera["state"] for camera in state["cameras"].values()]
        return _json(
            answers.StatusAnswer(
                version=__version__,
                uptime_s=state["uptime_s"],
                cursor=state["cursor"],
                labels=state["labels"],
                cameras={each: states.count(each) for each in ("online", "offline", "ended")},
                workers=len(state["workers"]),
                events=state["events"],
            )
        )

    async def cameras(self, _: Request, __: Query) -> Response:
        """See `contract`."""
        state = await self._state()
        return _json(answers.CamerasAnswer(cameras=[_camera(*each) for each in state["cameras"].items()]))

    async def camera(self, request: Request, _: Query) -> Response:
        """See `contract`."""
        name = request.path_params["camera"]
        found = (await self._state())["cameras"].get(name)
        if found is None:
            raise HTTPException(404, f"there is no camera {name!a:.100}: GET {contract.PREFIX}/cameras lists them")
        return _json(_camera(name, found))

    async def intervals(self, _: Request, __: Query) -> Response:
        """See `contract`."""
        state = await self._state()
        tracks = [(name, track) for name, camera in state["cameras"].items() for track in camera["tracks"]]
        open_ = [
            answers.Interval.model_validate(
                {
                    "camera": name,
                    "track": track["track"],
                    "label": track["label"],
                    "since": to_rfc3339(track["since"]),
                    "probability": track["probabilities"].get(track["label"], 0.0),
                }
            )
            for name, track in tracks
            if track["label"] is not None and track["since"] is not None
        ]
        return _json(answers.IntervalsAnswer(intervals=open_, uncertain=len(tracks) - len(open_)))

    # Events

    async def events(self, _: Request, query: contract.PageQuery) -> Response:
        """See `contract`."""
        await self._state()
        return await self._streams.page(query)

    async def stream(self, request: Request, query: contract.StreamQuery) -> Response:
        """See `contract`."""
        after = query.after
        if last := request.headers.get("last-event-id"):
            try:
                after = contract.cursor(last)
            except ValueError as error:
                raise HTTPException(400, f"the header Last-Event-ID: {error}") from error
        if after is None:
            after = (await self._state())["cursor"]
        return self._streams.open(query, after, head=request.method == "HEAD")

    async def statistics(self, _: Request, query: contract.StatisticsQuery) -> Response:
        """See `contract`."""
        rows = await self._history.rows(query, await self._state())
        return _json(
            answers.StatisticsAnswer(rows=[answers.StatisticsRow.model_validate(row.as_dict()) for row in rows])
        )

    async def history(self, _: Request, query: contract.HistoryQuery) -> Response:
        """See `contract`."""
        return _json(await self._history.spans(query, await self._state()))

    async def annotations(self, request: Request, query: contract.AnnotationsQuery) -> Response:
        """See `contract`."""
        return _json(await self._annotations.page(query, annotator(request.scope)))

    async def annotate(self, request: Request, _: Query) -> Response:
        """See `contract`."""
        return _json(await self._annotations.take(request, annotator(request.scope)))

    async def recognize(self, request: Request, _: Query) -> Response:
        """See `contract`."""
        return _json(await self._recognition.answer(request))

    async def openapi(self, _: Request, __: Query) -> Response:
        """See `contract`."""
        return Response(json.dumps(contract.openapi()), media_type="application/json")


def _by_method(
    served: dict[str, Callable[[Request], Awaitable[Response]]],
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await served["GET" if request.method == "HEAD" else request.method](request)

    return endpoint


def _camera(name: str, state: dict[str, Any]) -> answers.CameraAnswer:
    faces = [
        {**track, "since": None if track["since"] is None else to_rfc3339(track["since"])} for track in state["tracks"]
    ]
    keys = ("state", "live", "epoch", "rate", "frame_age_s", "ledger")
    return answers.CameraAnswer.model_validate({"name": name, **{key: state[key] for key in keys}, "faces": faces})


def _json(answer: answers.Answer) -> Response:
    return Response(answer.model_dump_json(exclude_unset=True), media_type="application/json")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    body = answers.Problem(title=TITLES.get(status, "Refused"), status=status, detail=detail).model_dump_json()
    more = {"retry-after": "1"} if status == 503 else {}
    return Response(body, status, {**(headers or {}), **more}, "application/problem+json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  (the handler's type is that of all handlers)
    detail, headers = error.detail, dict(error.headers or {})
    if error.status_code == 404 and detail == "Not Found":
        detail = f"there is nothing at this address: {contract.PREFIX}/openapi.json lists the operations"
    if error.status_code == 405:
        detail = f"this address does not take {request.method!a:.20}, only {headers.get('Allow', 'GET')}"
    return _problem(error.status_code, detail, headers)


async def _unavailable(_: Request, error: Exception) -> Response:
    return _problem(503, str(error))


async def _failed(_: Request, __: Exception) -> Response:
    return _problem(500, "the server has failed; its log has the reason")
