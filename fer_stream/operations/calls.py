"""Calls from commands to a running service on this machine, over a Unix socket: one JSON line each way.

Only the service's own user, and root, may call. The kernel checks this twice: the socket's folder has mode 0700, and
on Linux each connection has its peer's user id (SO_PEERCRED). Without Unix sockets, as on Windows, a file in that
folder has a port of the loopback interface and a secret, with which each call begins. The service's main thread answers
(`Calls.next`), so an answer never meets a state that is just changing.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import socket
import socketserver
import struct
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ConfigError, FerStreamError, TransportError
from fer_stream.system import local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_REQUEST = 64_000
"""Maximum bytes of a request."""

SECONDS = 5.0
"""Time limit for a request to arrive and, again, for the answer to be sent."""

WAITING = 30.0
"""Seconds that a request waits for the service's main thread."""

CONNECTIONS = 64
"""Maximum number of simultaneous connections; further ones are closed without an answer."""

_CREDENTIALS = struct.Struct("iII")  # process, user and group id of a peer


class Call:
    """A request that waits for its answer."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def answer(self, answer: dict[str, Any]) -> None:
        """Answer with a JSON object."""
        self._answers.put(answer)

    def refuse(self, error: FerStreamError) -> None:
        """Answer with an error, which `call` raises at the other end."""
        self._answers.put({"error": str(error), "exit_code": error.exit_code})

    def wait(self) -> dict[str, Any]:
        """Wait for the answer and return it."""
        try:
            return self._answers.get(timeout=WAITING)
        except queue.Empty:
            return {"error": f"the service is busy and did not answer within {WAITING:.0f} s", "exit_code": 1}


class Calls:
    """Listens at a path until `close`. Threads take the requests; `next` returns them to the service's main thread."""

    def __init__(self, path: Path) -> None:
        """Listen.

        Args:
            path: the socket, in a folder that only this user can enter.

        Raises:
            TransportError: the socket cannot be made.
        """
        self.path = path
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._closed = False
        try:
            if local.UNIX is not None:
                with _short(path) as where:
                    self._server = _Listener(local.UNIX, where, self._calls)
                path.chmod(0o600)
            else:
                self._server = _Listener(socket.AF_INET, (local.HOST, 0), self._calls, secrets.token_hex(32))
                about = {"port": self._server.server_address[1], "secret": self._server.secret}
                path.write_text(json.dumps(about), encoding="utf-8")
        except OSError as error:
            raise TransportError(f"the socket {path} for commands cannot be made: {error.strerror}") from error
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="calls", daemon=True).start()

    def next(self) -> Call | None:
        """Return the next call that waits for an answer, if there is one."""
        try:
            return self._calls.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        """Refuse the calls that wait, and listen no more; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._server.shutdown()
            self._server.server_close()
            self.path.unlink(missing_ok=True)
            while (call := self.next()) is not None:
                call.refuse(TransportError("the service is ending: nothing was changed"))


class _Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS

    def __init__(self, family: int, address: Any, calls: queue.SimpleQueue[Call], secret: str = "") -> None:
        self.calls, self.secret = calls, secret
        self.address_family = family
        self._free_slots = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: object) -> None:
        if not self._free_slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free_slots.release()


class _Handler(socketserver.BaseRequestHandler):
    server: _Listener

    def handle(self) -> None:
        with suppress(OSError):  # the client has gone, or is too slow
            if hasattr(socket, "SO_PEERCRED") and hasattr(os, "geteuid") and not self.server.secret:
                size = _CREDENTIALS.size
                _, user, _ = _CREDENTIALS.unpack(self.request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
                if user not in (0, os.geteuid()):
                    return
            line = _line(self.request, MAX_REQUEST, SECONDS)
            secret, line = line[: len(self.server.secret)], line[len(self.server.secret) :]
            if not secrets.compare_digest(secret, self.server.secret.encode()):
                return
            try:
                request = json.loads(line)
            except (ValueError, RecursionError):
                request = None
            if isinstance(request, dict):
                call = Call(request)
                self.server.calls.put(call)
                answer = call.wait()
            else:
                answer = {"error": "a call that is not a JSON object on one line", "exit_code": 1}
            self.request.settimeout(SECONDS)
            self.request.sendall(json.dumps(answer).encode() + b"\n")


def call(path: Path, request: dict[str, Any], timeout: float = WAITING + SECONDS) -> dict[str, Any]:
    """Call the service that listens at a path, and return its answer.

    Raises:
        ConfigError: the service refuses the request as wrong use.
        FerStreamError: the service cannot do what was requested.
        TransportError: no service listens there, or it did not answer.
    """
    try:
        sock, secret = _connected(path)
        with sock:
            sock.sendall(secret + json.dumps(request).encode() + b"\n")
            line = _line(sock, 0, timeout)
    except OSError as error:
        reason = "it does not answer" if isinstance(error, TimeoutError) else error.strerror or "the connection broke"
        raise TransportError(f"the service at {path} cannot be called: {reason}; is it ending?") from error
    if not line.endswith(b"\n"):
        raise TransportError("the service ended before it answered: see what it did once it runs again")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise (ConfigError if answer["exit_code"] == ConfigError.exit_code else FerStreamError)(answer["error"])
    return answer


def _connected(path: Path) -> tuple[socket.socket, bytes]:
    """Return a connection to a service, and what a call begins with.

    Raises:
        OSError: none listens there.
    """
    if local.UNIX is None:
        try:
            about = json.loads(path.read_bytes())
            return socket.create_connection((local.HOST, about["port"]), SECONDS), str(about["secret"]).encode()
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(0, "its file says no port") from error
    sock = socket.socket(local.UNIX)
    try:
        sock.settimeout(SECONDS)
        with _short(path) as where:
            sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock, b""


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield a short path of a socket: the kernel takes at most 107 bytes."""
    if not hasattr(os, "O_PATH"):
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | getattr(os, "O_DIRECTORY", 0))
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _line(sock: socket.socket, limit: int, timeout: float) -> bytes:
    """Return what a peer sends, up to a line end, its end, or ``limit`` bytes (0: without limit)."""
    found, deadline = b"", time.monotonic() + timeout
    while not found.endswith(b"\n"):
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        part = sock.recv(65_536)
        found += part
        if not part or 0 < limit < len(found):
            break
    return found
