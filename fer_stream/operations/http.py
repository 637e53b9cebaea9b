"""A small HTTP server for operators' pages, hardened against clients that are slow, numerous or malicious.

It answers GET and HEAD for the given pages, one request per connection, and does not identify its software. It limits
the size of a request's head, the total time for the request and for the answer, and the number of connections. On an
address that other machines can reach it requires a token. It does not encrypt; put a TLS proxy in front of it.
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
from fer_stream.system import files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

MAX_HEAD = 8192
"""Maximum bytes of a request's head: the request line and the headers."""

SECONDS = 5.0
"""Time limit for the whole request to arrive, and again for the whole answer to be sent."""

CONNECTIONS = 32
"""Maximum number of simultaneous connections; further ones are closed without an answer."""

LEAST_TOKEN = 16
"""Minimum number of characters of a token: 64 bits in hexadecimal."""

_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """A page's answer: HTTP status code, content type and body."""

    code: int
    kind: str
    body: bytes


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        ConfigError: the file cannot be read, other users can read it, or it contains no token.
    """
    try:
        if files.readable_by_others(path.stat()):
            raise ConfigError(f"others may read {path}: chmod 600 it")
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"the token file {path} cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError:
        token = ""
    if len(token) < LEAST_TOKEN or not token.isprintable() or " " in token:
        raise ConfigError(f"{path} contains no token: create one, for example with `openssl rand -hex 32`")
    return token


class Server:
    """Serves pages in its own threads until `close`, at the port ``port``.

    Raises:
        ConfigError: ``address`` is not HOST:PORT, or other machines can reach it and there is no token.
        TransportError: the address cannot be bound.
    """

    def __init__(self, address: str, pages: Mapping[str, Callable[[bool], Answer | None]], token: str | None) -> None:
        """Bind and serve.

        Args:
            address: HOST:PORT; port 0 selects a free port.
            pages: functions by path. Each is called with whether the client is trusted: it sent the token, or no token
                is set. It returns ``None`` if the page is only for trusted clients and this one is not.
            token: the token that a client has to send, or ``None``.
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
                "(Prometheus sends it with authorization.credentials_file), or bind to 127.0.0.1"
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
    allow_reuse_address = not hasattr(socket, "SO_EXCLUSIVEADDRUSE")  # on Windows two servers could take one port
    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(
        self, address: tuple[str, int], pages: Mapping[str, Callable[[bool], Answer | None]], token: str | None
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.pages, self.token = pages, token
        self._free_slots = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        if not self._free_slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free_slots.release()

    def handle_error(self, *_: object) -> None:
        _log.exception("a page of the metrics server failed")


class _Handler(BaseHTTPRequestHandler):
    """Handles one request. It reads the complete head, within the limits, before the standard library parses it."""

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
            pass  # the client has disconnected or is too slow

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
            self._send(Answer(404, "text/plain", f"the pages are {', '.join(others)} and {last}\n".encode()))
        elif (answer := page(self._trusted())) is None:
            self.send_error(401)
        else:
            self._send(answer)

    def _trusted(self) -> bool:
        token, sent = self.server.token, self.headers.get("Authorization", "")
        return token is None or hmac.compare_digest(sent.encode(), f"Bearer {token}".encode())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Send a short error. Unlike the standard library's page it does not echo the request."""
        self._send(Answer(code, "text/plain", f"{self.responses[code][0].lower()}\n".encode()))

    def _send(self, answer: Answer) -> None:
        self.connection.settimeout(SECONDS)  # Python applies the timeout to a whole sendall
        self.send_response_only(answer.code)  # without the headers Date and Server
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        if answer.code == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if answer.code == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
