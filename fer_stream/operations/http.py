"""A small HTTP server for operators' pages, that a stranger can neither fill nor hold up.

It knows GET and HEAD of the pages that it was given, one request a connection, and says nothing of itself. Limits are
on a request's head, on the time that asking and answering take in all, and on the connections at once. Beyond this
machine it answers only who sends a token; it is not encrypted, so that is a proxy's task there.
"""

from __future__ import annotations

import hmac
import io
import logging
import socket
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.errors import ConfigError, TransportError
from fer_stream.settings.deployment import loopback
from fer_stream.settings.kinds import host_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

MAX_HEAD = 8192
"""Bytes of a request: its line and its headers."""

SECONDS = 5.0
"""In which a request must be here, and again in which its answer must be taken, however little comes at a time."""

CONNECTIONS = 32
"""At once; further ones are closed unheard."""

LEAST_TOKEN = 16
"""Characters of a token: 64 bits in hexadecimal."""

_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What a page says."""

    code: int
    kind: str
    body: bytes


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        ConfigError: it cannot be read, others can read it, or it holds no token.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"others may read {path}: chmod 600 it")
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"the token {path} cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError:
        token = ""
    if len(token) < LEAST_TOKEN or not token.isprintable() or " " in token:
        raise ConfigError(f"{path} holds no token: write one, as by `openssl rand -hex 32`")
    return token


class Server:
    """Serves pages in threads of its own, until `close`. ``port`` is where.

    Raises:
        ConfigError: ``address`` is not HOST:PORT, or lies beyond this machine and there is no token.
        TransportError: it cannot be bound.
    """

    def __init__(self, address: str, pages: Mapping[str, Callable[[bool], Answer | None]], token: str | None) -> None:
        """Bind and serve.

        Args:
            address: HOST:PORT; port 0 takes a free one.
            pages: by path; each is called with whether the asker may know everything, as everybody may where there is
                no token, and returns ``None`` where it says nothing to others.
            token: what an asker has to send.
        """
        try:
            host, port = host_port(address)
        except ValueError as error:
            raise ConfigError(
                f"{address!r} is not an address for metrics: give HOST:PORT, such as 127.0.0.1:9108"
            ) from error
        if token is None and not loopback(host):
            raise ConfigError(
                f"metrics at {address} may be read from other machines: set metrics_token to a file with a token "
                "(Prometheus sends it by authorization.credentials_file), or bind to 127.0.0.1"
            )
        try:
            self._server = _Listener((host, port), pages, token)
        except OSError as error:
            raise TransportError(
                f"metrics cannot be served at {address}: {error.strerror}; stop what uses it, or choose another port"
            ) from error
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(
        self, where: tuple[str, int], pages: Mapping[str, Callable[[bool], Answer | None]], token: str | None
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        self.pages, self.token = pages, token
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(where, _Handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, *_: object) -> None:
        _log.exception("a page could not be made")


class _Handler(BaseHTTPRequestHandler):
    """One request: its head is read whole, in its time and size, before the standard library parses it."""

    server: _Listener
    default_request_version = request_version = "HTTP/1.0"
    command = ""

    def handle(self) -> None:
        try:
            head = self._head()
            if head is not None:
                self.rfile = io.BytesIO(head)
                self.raw_requestline = self.rfile.readline()
                if self.parse_request():
                    self._answer()
        except (TimeoutError, ConnectionError):
            pass  # it has gone, or is too slow to be told

    def _head(self) -> bytes | None:
        head, deadline = b"", time.monotonic() + SECONDS
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            if len(head) > MAX_HEAD:
                self.send_error(431)
                return None
            self.connection.settimeout(max(deadline - time.monotonic(), 0.001))
            got = self.connection.recv(4096)
            if not got:
                return None
            head += got
        return head

    def _answer(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if self.command not in ("GET", "HEAD"):
            self.send_error(405)
        elif page is None:
            *others, last = self.server.pages
            self._say(Answer(404, "text/plain", f"there are {', '.join(others)} and {last}\n".encode()))
        elif (answer := page(self._trusted())) is None:
            self.send_error(401)
        else:
            self._say(answer)

    def _trusted(self) -> bool:
        token, sent = self.server.token, self.headers.get("Authorization", "")
        return token is None or hmac.compare_digest(sent.encode(), f"Bearer {token}".encode())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Say no in a line, without what was asked: the standard library's own page repeats it."""
        self._say(Answer(code, "text/plain", f"{self.responses[code][0].lower()}\n".encode()))

    def _say(self, answer: Answer) -> None:
        self.connection.settimeout(SECONDS)  # for all of it: Python counts a whole sendall
        self.send_response_only(answer.code)  # without a date, and without who serves
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        if answer.code == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if answer.code == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
