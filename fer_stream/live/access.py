"""Who may see the page: browsers on this machine, and with the token those on others.

Three doors, each with its own reason. *Host*: a strange site may have its name resolve to this machine (DNS rebinding),
and is told by that name. *Origin*: a page from elsewhere may try to open a WebSocket to here, and only ours may.
*Token*: where more than this machine can reach the address; it comes once as ``?token=`` or from a form and becomes a
cookie, or with each request as ``Authorization: Bearer``. Secrets are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from fer_stream.config import host_port
from fer_stream.deployment import loopback, page_beyond
from fer_stream.endpoint import read_token
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from fer_stream.config import LiveSettings

COOKIE = "fer_stream_live"
OPEN = {"/live.css", "/enter.html"}
"""What is served without the token: the form that asks for it."""

HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with none, a form says Origin: null
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def token(settings: LiveSettings) -> str | None:
    """Return the token, or ``None`` where none is needed and none is named.

    Raises:
        ConfigError: other machines can reach the page and there is none, or it is no good.
    """
    if settings.token_file is not None:
        return read_token(settings.token_file)
    where = page_beyond(settings)
    if not where:
        return None
    raise ConfigError(
        f"the live page at {where} may be reached from other machines, and has no token: put one into a file, "
        "as by `(umask 077; openssl rand -hex 32 > live.token)`, and name it with --token-file"
    )


def known_hosts(settings: LiveSettings) -> set[str]:
    """Return the names, beside addresses, by which the page may be called."""
    names = {"localhost", *(name.lower() for name in settings.hosts)}
    if not loopback(host_port(settings.bind)[0]):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return names


class Access:
    """ASGI middleware: refuses who may not, and puts `HEADERS` on every answer."""

    def __init__(self, app: ASGIApp, settings: LiveSettings, token: str | None, form: Path) -> None:
        self._app = app
        self._names = known_hosts(settings)
        self._local = loopback(host_port(settings.bind)[0])
        self._token = token
        self._form = form
        # Of the token, but not the token: what a browser stores opens nothing else.
        self._cookie = hmac.new((token or "").encode(), b"the live page's cookie", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        socket_ = scope["type"] == "websocket"
        host = headers.get("host", "")
        answer: ASGIApp | None = None
        if not self._known(host):
            answer = PlainTextResponse("this page has another address\n", 421)
        elif (socket_ or scope["method"] not in ("GET", "HEAD")) and not _same(headers.get("origin", ""), host):
            answer = PlainTextResponse("only the page itself may ask for this\n", 403)
        elif self._token is not None and not self._may(headers):
            answer = await self._ask(Request(scope, receive)) if not socket_ else PlainTextResponse("no token\n", 403)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if socket_ and answer is not None:
            await send({"type": "websocket.close", "code": 1008})
            return
        await (answer or self._app)(scope, receive, send_with_headers)

    def _known(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._local  # no name, so nothing that could be made to mean this machine

    def _may(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given):
            return True
        # Not the standard library's parser, which gives up all at a cookie of another program's that it does not like.
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self._cookie.encode())

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.strip().encode(), (self._token or "").encode())

    async def _ask(self, request: Request) -> ASGIApp | None:
        """Return the answer to a request without the right cookie; ``None`` for what needs none."""
        path = request.url.path
        given = request.query_params.get("token", "") if path == "/" else ""
        if request.method == "POST" and path == "/enter":
            given = await _posted(request)
        if given and self._is_token(given):
            answer: Response = RedirectResponse("/", 303)
            secure = request.url.scheme == "https"
            answer.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict", secure=secure)
            return answer
        if path in OPEN and request.method in ("GET", "HEAD"):
            return None
        return Response(self._form.read_bytes(), 401, media_type="text/html")


def _same(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and hmac.compare_digest(
        parts.netloc.lower().encode(), host.lower().encode()
    )


async def _posted(request: Request) -> str:
    """Return the field ``token`` of a short form."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > 1000:
            return ""
    return parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
