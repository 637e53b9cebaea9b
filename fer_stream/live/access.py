"""Access control of the page: browsers on this machine may see it, those on other machines need the token.

Three checks:

*Host* must be a known name. A foreign site may let its own name resolve to this machine (DNS rebinding); the browser
then sends that name as Host. *Origin* must be the page itself for WebSockets and POST, because any page may try to open
a WebSocket to this address. *Token* is required where other machines can reach the address. The browser sends it once,
as ``?token=`` or in a form, and gets a cookie; other clients send ``Authorization: Bearer`` with each request. Secrets
are compared in constant time.

Programs may send POST to the API without Origin and cookie: what a browser sends for a foreign page has an Origin.

A proxy may serve the page below any path, on any port. So no answer contains an absolute path: addresses are relative,
the form posts to its own address, and the cookie has no Path, so the browser limits it to the page's folder.
A refused request is answered with one sentence that gives the reason. The log has the same sentence.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import re
import socket
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from fer_stream.errors import ConfigError
from fer_stream.live.refusals import who
from fer_stream.operations.http import read_token
from fer_stream.settings.deployment import loopback, page_beyond
from fer_stream.settings.kinds import host_port
from fer_stream.settings.origins import Names

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from fer_stream.live.refusals import Refusals
    from fer_stream.settings.tree import LiveSettings

COOKIE = "fer_stream_live"
NOBODY = "'none'"
ANNOTATOR = "fer_stream.annotator"
"""Key of a request's scope: the annotator who sends it."""

API = "/api/"
"""Begins the paths that programs use, too."""

ENTRANCE = "/enter"
"""Where forms send a token: that of the page, or of an annotator."""

SENT = (ENTRANCE, "POST")
"""Path and method of a request that brings a token."""

OPEN = {"/live.css"}
"""Paths that are served without the token, because the form that asks for it needs them."""


def token(settings: LiveSettings) -> str | None:
    """Return the token, or ``None`` if the settings name no token file and only this machine can reach the page.

    Raises:
        ConfigError: other machines can reach the page and no token file is set, or the file is not usable.
    """
    if settings.token_file is not None:
        return read_token(settings.token_file)
    where = page_beyond(settings)
    if not where:
        return None
    raise ConfigError(
        f"the live page at {where} may be reached from other machines, and has no token: put one into a file, "
        "for example with `(umask 077; openssl rand -hex 32 > live.token)`, and give the file with --token-file"
    )


def annotators(settings: LiveSettings, page: str | None) -> dict[str, str]:
    """Return each annotator's token, by name.

    Raises:
        ConfigError: a file is not usable, or two tokens, or one and the page's, are the same.
    """
    found: dict[str, str] = {}
    for name, path in settings.annotators.items():
        found[name] = read_token(path)
        if found[name] == page:
            raise ConfigError(f"the token of the annotator {name} is the page's: make one of its own")
        if twin := next((other for other, text in found.items() if text == found[name] and other != name), None):
            raise ConfigError(f"the annotators {twin} and {name} have the same token: make one for each")
    return found


def annotator(scope: Scope) -> str | None:
    """Return the annotator who sends a request, as `Access` has found; ``None``: it is none."""
    name: str | None = scope.get(ANNOTATOR)
    return name


def names(settings: LiveSettings) -> Names:
    """Return the host names that requests may use for the page."""
    local = loopback(host_port(settings.bind)[0])
    own = ("localhost",) if local else ("localhost", socket.gethostname(), socket.getfqdn())
    return Names(own, settings.hosts, strangers=not local)


def security_headers(settings: LiveSettings, scripts: str) -> dict[str, str]:
    """Return the headers of every answer; ``scripts`` is HTML whose inline scripts the policy allows by their hash."""
    framers = ["'self'" if origin == "self" else origin for origin in settings.frame_ancestors]
    hashes = " ".join(
        f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in sorted(set(re.findall(r"<script>(.*?)</script>", scripts, re.DOTALL)))
    )
    policy = (
        f"default-src 'self'; script-src 'self' {hashes}; base-uri 'none'; object-src 'none'; form-action 'self'; "
        f"frame-ancestors {' '.join(framers or [NOBODY])}"
    )
    return {
        "content-security-policy": policy,
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",  # with no-referrer, browsers send Origin: null with a form
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
        # X-Frame-Options cannot list origins. Browsers that support frame-ancestors do not need it.
        **({} if framers else {"x-frame-options": "DENY"}),
    }


class Access:
    """ASGI middleware: refuses requests that fail a check, and adds `security_headers` to every answer."""

    def __init__(
        self, app: ASGIApp, settings: LiveSettings, token: str | None, static: Path, refusals: Refusals
    ) -> None:
        self._app = app
        self._names = names(settings)
        self._base = settings.base_path
        self._framed = bool(settings.frame_ancestors)
        self._token = token
        self._annotators = annotators(settings, token)
        self._secrets = [*([token] if token is not None else []), *self._annotators.values()]
        self._form = (static / "enter.html").read_text(encoding="utf-8")
        self._headers = security_headers(settings, self._form + (static / "index.html").read_text(encoding="utf-8"))
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        is_websocket = scope["type"] == "websocket"
        scope, answer = self._below_base(scope)
        if answer is None:
            answer = self._refused(scope, Headers(scope=scope))
        if answer is None and (name := self._annotator(Headers(scope=scope))) is not None:
            scope = {**scope, ANNOTATOR: name}
        if answer is None and self._secrets and not is_websocket and (scope["path"], scope["method"]) == SENT:
            answer = await self._ask(Request(scope, receive))
        elif answer is None and self._token is not None and name is None and not self._may(Headers(scope=scope)):
            answer = self._no_cookie(scope) if is_websocket else await self._ask(Request(scope, receive))

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await (answer or self._app)(scope, receive, send_with_headers)

    def _below_base(self, scope: Scope) -> tuple[Scope, ASGIApp | None]:
        """Return the request with the base path removed, unless a proxy has removed it already."""
        path = scope["path"]
        if self._base == "/":
            return scope, None
        if path == self._base[:-1] and scope["type"] == "http":
            last = self._base.rsplit("/", 2)[-2]
            return scope, RedirectResponse(f"{last}/", 308)  # relative: another proxy may add a path prefix
        if path.startswith(self._base):
            path = path[len(self._base) - 1 :]
        return {**scope, "path": path, "raw_path": path.encode()}, None

    def _refused(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        """Return the answer to a request with an unknown Host or a foreign Origin, ``None`` to any other."""
        host = headers.get("host", "")
        if not self._names.known(host):
            return self._refusals.refuse(
                scope,
                421,
                f"This page is not known by the name {host!a:.100}: add the name to live.hosts, or have the proxy "
                "pass on the Host header that it received",
            )
        origin = headers.get("origin", "")
        needs_origin = scope["type"] == "websocket" or (
            scope["method"] not in ("GET", "HEAD") and not _by_a_program(scope, headers)
        )
        if needs_origin and not self._names.same(origin, host, _over_tls(scope, headers)):
            return self._refusals.refuse(
                scope,
                403,
                f"Only the page itself may send this request: the browser's page is at {origin!a:.100}, and the "
                f"request is for {host!a:.100}; if a proxy has changed Host, have it pass on Host with the port, "
                "or name the page in live.hosts as NAME:PORT",
            )
        return None

    def _no_cookie(self, scope: Scope) -> ASGIApp:
        return self._refusals.refuse(
            scope, 401, "The browser has not sent the token, or the token has changed: reload the page"
        )

    def _may(self, headers: Headers) -> bool:
        return self._token is not None and _has(headers, self._token)

    def _annotator(self, headers: Headers) -> str | None:
        return next((name for name, secret in self._annotators.items() if _has(headers, secret)), None)

    def _secret(self, text: str) -> str | None:
        """Return the token of the page, or of an annotator, that a text is."""
        return next((secret for secret in self._secrets if _same(text.strip(), secret)), None)

    async def _ask(self, request: Request) -> ASGIApp | None:
        """Return the answer to a request without a valid cookie; ``None`` if the path needs no cookie."""
        path, reading = request.scope["path"], request.method in ("GET", "HEAD")
        if path in OPEN and reading:
            return None
        if path != "/" and (reading or path != ENTRANCE):
            return PlainTextResponse("this page asks for a token: enter it at the page's address\n", 401)
        given = request.query_params.get("token", "") if reading else await _posted(request)
        if given and (secret := self._secret(given)) is not None:
            name = next((name for name, token in self._annotators.items() if token == secret), None)
            if name is not None:
                self._refusals.tell(f"the annotator {name} has entered, from {who(request.scope)}")
            return self._entered(request, secret, "history.html" if name is not None and path == ENTRANCE else "./")
        if given:
            self._refusals.tell(f"a wrong token was given, from {who(request.scope)}")
            return self._asking("This is not the token.")
        if "entered" in request.query_params:
            self._refusals.tell("a browser keeps no cookie of the page, which it needs after the token")
            return self._asking(_NO_COOKIES_IN_FRAMES if self._framed else _NO_COOKIES)
        return self._asking("")

    def _entered(self, request: Request, secret: str, where: str) -> Response:
        """Return a redirect to the page that sets the cookie."""
        answer = RedirectResponse(f"{where}?entered", 303)
        encrypted = _over_tls(request.scope, request.headers)
        within = self._framed and encrypted  # in a frame of another site a browser sends only SameSite=none cookies
        # Without Path, the browser limits the cookie to the page's folder, below whatever path a proxy serves it.
        flags = "; HttpOnly" + ("; Secure" if encrypted else "")
        flags += "; SameSite=none; Partitioned" if within else "; SameSite=strict"
        answer.headers["set-cookie"] = f"{COOKIE}={_cookie(secret)}{flags}"
        return answer

    def _asking(self, why: str) -> Response:
        return Response(self._form.replace("<!-- why -->", html.escape(why)), 401, media_type="text/html")


_NO_COOKIES = (
    "The token is right, but the browser keeps no cookie of this page: allow cookies for this address, and do not open "
    "the page in a frame of another site."
)
_NO_COOKIES_IN_FRAMES = (
    "The token is right, but the browser keeps no cookie of this page: allow cookies for this address. In a frame of "
    "another site this requires https."
)


def _cookie(secret: str) -> str:
    """Return a cookie that is derived from a token: the stored value is valid only as this cookie."""
    return hmac.new(secret.encode(), b"the live page's cookie", hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _has(headers: Headers, secret: str) -> bool:
    """Return whether a request brings a token, or its cookie."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _same(given.strip(), secret):
        return True
    # http.cookies drops all cookies if it cannot parse one of them, which may be another program's.
    return _same(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""), _cookie(secret))


def _by_a_program(scope: Scope, headers: Headers) -> bool:
    """Return whether a request to the API comes from no browser: a browser sends Origin with every POST."""
    return scope["path"].startswith(API) and "origin" not in headers and "cookie" not in headers


def _over_tls(scope: Scope, headers: Headers) -> bool:
    """Return whether the browser uses TLS, according to the connection, the proxy's header or the browser's Origin.

    The headers need not be trusted: a false claim of TLS only makes the checks and the cookie stricter.
    """
    forwarded = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return (
        scope["scheme"] in ("https", "wss")
        or forwarded in ("https", "wss")
        or headers.get("origin", "").startswith("https:")
    )


async def _posted(request: Request) -> str:
    """Return the form field ``token``; an empty text if the body is longer than 1000 bytes."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > 1000:
            return ""
    return parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
