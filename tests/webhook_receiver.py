"""A receiver of webhooks, as a process of its own: ``python -m webhook_receiver FILE [CERTIFICATE [CLIENTS' CA]]``.

It reads events with the package cloudevents, checks signatures with the package standardwebhooks, and appends each
request to FILE before it answers. The file ``FILE.orders`` tells it how to answer.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cloudevents.core.bindings.http import HTTPMessage, from_http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from processes import free_port, wait_for
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

if TYPE_CHECKING:
    import signal

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

OTHER = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo0NTY3"


class Receiver:
    """One receiver. What it has received survives `kill` and `start`."""

    def __init__(self, folder: Path, *tls: Path, host: str = "127.0.0.1") -> None:
        self.port, self._tls, self._folder = free_port(), tls, folder
        self.file = folder / "received"
        self.address = f"{'https' if tls else 'http'}://{host}:{self.port}/hook"
        self._process: subprocess.Popen[bytes] | None = None
        self.order()

    def start(self) -> Receiver:
        ready = self.file.with_suffix(".ready")
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "webhook_receiver", str(self.file), str(self.port), *map(str, self._tls)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
        with (self._folder / "log").open("ab") as log:
            self._process = process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        wait_for(ready.exists, "the receiver", lambda: process.poll() is None, (self._folder / "log").read_text)
        return self

    def kill(self) -> None:
        """SIGKILL it. A second call does nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def order(self, **what: Any) -> None:
        """Tell it how to answer from now on.

        ``status``, ``headers`` and ``body`` are those of the answer; ``refuse`` has the ids of events that are answered
        with ``status``, by default 400; ``most`` is the number of bytes that it takes; ``secret`` is the secret of the
        signatures that it takes; ``do`` names a method of `_Handler`.
        """
        path = self.file.with_suffix(".orders")
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(what))
        fresh.replace(path)

    def requests(self) -> list[dict[str, Any]]:
        text = self.file.read_text() if self.file.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def taken(self) -> list[str]:
        """Return the ids of the events that it has taken, in order."""
        return [event["id"] for request in self.requests() if request["taken"] for event in request["events"]]


class Certificates:
    """A certificate authority, and what it signs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca = folder / "ca.pem"
        self._openssl("req", "-x509", *self._key("ca"), "-subj", "/CN=authority", "-out", "ca.pem", "-days", "2")

    def sign(self, name: str, days: int = 2) -> Path:
        """Return a file with a certificate for a host or address, and its key."""
        kind = "IP" if name[0].isdigit() else "DNS"
        (self._folder / "names").write_text(f"subjectAltName={kind}:{name}\n")
        self._openssl("req", *self._key("one"), "-subj", f"/CN={name}", "-out", "one.csr")
        authority = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        self._openssl("x509", "-req", "-in", "one.csr", *authority, "-days", str(days), "-out", "one.pem")
        file = self._folder / f"{name}{days}.pem"
        file.write_text((self._folder / "one.pem").read_text() + (self._folder / "one.key").read_text())
        return file

    @staticmethod
    def _key(name: str) -> tuple[str, ...]:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        return (*curve, "-nodes", "-keyout", f"{name}.key")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    file: ClassVar[Path]

    def do_OPTIONS(self) -> None:
        self._serve([])

    def do_POST(self) -> None:
        try:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        except OSError:
            return
        self._serve(_events(dict(self.headers), body), body)

    def _serve(self, events: list[dict[str, Any]], body: bytes = b"") -> None:
        told: dict[str, Any] = json.loads(self.file.with_suffix(".orders").read_text())
        if (what := told.get("do")) and "refuse" not in told:
            self._record(events, taken=False)
            getattr(self, what)()
            return
        status = told.get("status", 204)
        if "refuse" in told:
            guilty = {event["id"] for event in events} & set(told["refuse"])
            status = told.get("status", 400) if guilty else 204
            if not guilty and "do" in told:
                self._record(events, taken=False)
                getattr(self, told["do"])()
                return
        if len(body) > told.get("most", len(body)):
            status = 413
        if "secret" in told and body:
            try:
                Webhook(told["secret"]).verify(body, dict(self.headers), json_parse=False)
            except WebhookVerificationError:
                status = 401
        self._record(events, taken=200 <= status < 300)
        answer = told.get("body", "").encode()
        self.send_response(status)
        for name, value in told.get("headers", {}).items():
            self.send_header(name, value.replace("PORT", str(self.server.server_address[1])))
        if status != 204:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if status != 204:
            self.wfile.write(answer)

    def _record(self, events: list[dict[str, Any]], *, taken: bool) -> None:
        names = ("webhook-id", "webhook-signature", "authorization", "content-type", "user-agent")
        record = {"method": self.command, "path": self.path, "taken": taken, "events": events}
        record |= {name: self.headers.get(name) for name in names} | {"from": self.client_address[1]}
        with self.file.open("ab") as file:
            file.write(json.dumps(record).encode() + b"\n")

    # Ways not to answer

    def hang(self) -> None:
        self.rfile.read(1)

    def hang_up(self) -> None:
        self.close_connection = True

    def break_off(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        self.close_connection = True

    def cut(self) -> None:
        """Take the events, and break off in the explanation."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhal")
        self.close_connection = True

    def dribble(self) -> None:
        self._send_for_ever(b"HTTP/1.1 200 OK\r\nX-Slow: ", b".", 0.05)

    def dribble_body(self) -> None:
        self._send_for_ever(b"HTTP/1.1 500 Broken\r\nContent-Type: text/plain\r\n\r\n", b".", 0.05)

    def endless(self) -> None:
        self._send_for_ever(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536, 0.0)

    def endless_head(self) -> None:
        self._send_for_ever(b"HTTP/1.1 200 OK\r\n", b"X-More: more\r\n", 0.0)

    def speak_otherwise(self) -> None:
        self.wfile.write(b"220 mail.example.org ESMTP\r\n")
        self.close_connection = True

    def _send_for_ever(self, first: bytes, then: bytes, pause: float) -> None:
        self.close_connection = True
        try:
            self.wfile.write(first)
            while True:
                self.wfile.write(then)
                time.sleep(pause)
        except OSError:
            pass

    def log_message(self, *arguments: Any) -> None:
        pass


def _events(headers: dict[str, str], body: bytes) -> list[dict[str, Any]]:
    batch = headers["Content-Type"] == "application/cloudevents-batch+json; charset=utf-8"
    parts = [json.dumps(one).encode() for one in json.loads(body)] if batch else [body]
    plain = {"content-type": "application/cloudevents+json"} if batch else headers
    found = [from_http(HTTPMessage(plain, part), JSONFormat(), CloudEvent) for part in parts]
    return [json.loads(json.dumps(one.get_attributes() | {"data": one.get_data()}, default=str)) for one in found]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client may break off
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def main() -> None:
    _Handler.file = Path(sys.argv[1])
    with _Server(("127.0.0.1", int(sys.argv[2])), _Handler) as server:
        if sys.argv[3:]:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(sys.argv[3])
            if sys.argv[4:]:
                context.load_verify_locations(sys.argv[4])
                context.verify_mode = ssl.CERT_REQUIRED
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        _Handler.file.with_suffix(".ready").touch()
        server.serve_forever()


if __name__ == "__main__":
    main()
