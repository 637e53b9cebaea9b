"""`fer-stream live`: serves the page.

The web server runs in its own thread, so that the main thread handles this process's signals, as in every role.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.errors import TransportError
from fer_stream.operations import metrics
from fer_stream.operations.process import install_stop, parent_gone, supervised
from fer_stream.settings import deployment
from fer_stream.settings.kinds import host_port
from fer_stream.system import extras

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.types import ASGIApp, Scope
    from starlette.websockets import WebSocket

    from fer_stream.operations.process import Stop
    from fer_stream.settings.tree import Settings

STATIC = Path(__file__).parent / "static"

MOST_VIEWERS = 64
"""Most browsers that may be connected at the same time."""

STALLED = 30.0
"""Seconds after which a connection is cut whose other end takes nothing of what was sent to it."""

NO_UPGRADE = (
    "This address accepts only WebSockets, and this request is not one: have the proxy pass on the headers Upgrade and "
    "Connection, over HTTP/1.1"
)

MAX_MESSAGE = 65_536
"""Most bytes of a browser's message; the page's own messages are much smaller."""

_log = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Check whether the page can be served, before anything is started.

    Raises:
        PluginError: the extra `live` is not installed.
        ConfigError: the page needs a token or a purpose and has none.
    """
    for module in ("starlette", "uvicorn", "websockets"):
        extras.require(module, "live")
    from fer_stream.live.access import annotators, token  # noqa: PLC0415  (needs the extra)

    annotators(settings.live, token(settings.live))
    deployment.check_page(settings)


def application(settings: Settings, started: Callable[[], None]) -> Starlette:
    """Return the ASGI application; it calls ``started`` when it begins to serve.

    Raises:
        ConfigError: as `check`, or the aggregator's address, keys or transport are invalid.
    """
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.middleware import Middleware  # noqa: PLC0415
    from starlette.routing import Mount, Route, WebSocketRoute  # noqa: PLC0415
    from starlette.staticfiles import StaticFiles  # noqa: PLC0415

    from fer_stream.live.access import Access, token  # noqa: PLC0415
    from fer_stream.live.api.routes import Api  # noqa: PLC0415
    from fer_stream.live.feed import Feed  # noqa: PLC0415
    from fer_stream.live.refusals import Refusals  # noqa: PLC0415
    from fer_stream.live.viewer import Viewer  # noqa: PLC0415

    feed = Feed(settings)
    api = Api(feed, settings)
    viewers: set[WebSocket] = set()
    refusals = Refusals(_log)

    def full(scope: Scope) -> ASGIApp | None:
        if len(viewers) < MOST_VIEWERS:
            return None
        return refusals.refuse(scope, 503, f"{MOST_VIEWERS} browsers show this page already: close one of them")

    async def view(websocket: WebSocket) -> None:
        if answer := full(websocket.scope):
            await answer(websocket.scope, websocket.receive, websocket.send)
            return
        viewers.add(websocket)
        try:
            await Viewer(feed, settings, websocket).run()
        finally:
            viewers.discard(websocket)

    async def no_upgrade(request: Request) -> ASGIApp:
        """Answer plain requests: a page that asks why its WebSocket failed, or a handshake whose Upgrade was lost."""
        return full(request.scope) or refusals.refuse(request.scope, 426, NO_UPGRADE)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        feed.start()
        api.start()
        started()
        try:
            yield
        finally:
            api.close()
            feed.close()

    app = Starlette(
        routes=[
            WebSocketRoute("/feed", view),
            Route("/feed", no_upgrade, methods=["GET", "POST"]),
            api.mount(),
            Mount("/", StaticFiles(directory=STATIC, html=True)),
        ],
        middleware=[
            Middleware(Access, settings=settings.live, token=token(settings.live), static=STATIC, refusals=refusals)
        ],
        lifespan=lifespan,
    )
    app.state.feed = feed
    return app


def bind(address: str) -> socket.socket:
    """Return a socket that listens at HOST:PORT.

    Raises:
        TransportError: the host has no address, or the socket cannot be bound.
    """
    host, port = host_port(address)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise TransportError(
            f"the live page cannot be served at {address}: {why}; stop what uses it, or choose another address with "
            "--page"
        ) from error
    # Every accepted connection inherits it. A web server has no limit of its own for a reader that does not read, whose
    # stream would stay open, and count, for as long as it likes.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(STALLED * 1000))
    return listening


def url(settings: Settings, port: int) -> str:
    """Return the page's URL."""
    host = host_port(settings.live.bind)[0]
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def run(settings: Settings, stop: Stop | None = None) -> None:
    """Serve the page until ``stop`` is set or the parent process has ended.

    Args:
        settings: the whole tree.
        stop: ends the server when it is set; by default SIGINT and SIGTERM set it.

    Raises:
        PluginError, ConfigError: as `check`.
        TransportError: the address is in use.
    """
    check(settings)
    import uvicorn  # noqa: PLC0415  (an extra)

    stop = stop or install_stop()
    listening = bind(settings.live.bind)
    where = url(settings, listening.getsockname()[1])

    def started() -> None:
        if supervised():
            _log.info("the live page is at %s", where)
        else:
            sys.stdout.write(f"the live page is at {where}\n")
            sys.stdout.flush()

    app = application(settings, started)
    config = uvicorn.Config(
        app,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE,
        ws_ping_interval=10.0,
        ws_ping_timeout=10.0,
        log_config=None,
        log_level="warning",
        access_log=False,  # a request's URL may contain the token
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    health = metrics.serve(settings, lambda: app.state.feed.missing)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), name="web", daemon=True)
    thread.start()
    try:
        while thread.is_alive() and not (stop.wait(0.5) or parent_gone()):
            pass
    finally:
        server.should_exit = True
        thread.join(5.0)
        listening.close()
        if health:
            health.close()
    if not stop.is_set() and not parent_gone():
        raise TransportError("the live page's web server has ended unexpectedly; the log has the reason")
