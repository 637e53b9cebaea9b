"""A receiver of events, as a process of its own: ``python -m event_receiver PORT FILE``; and the sink for it.

It appends what it takes to FILE, as JSON lines, before it answers. The file ``FILE.orders`` tells it what to answer
instead: ``{"retry": REASON}``, ``{"fatal": REASON}``, or ``{"refuse": [ID, ...]}``.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ConfigError, FatalError, RejectedError, RetryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.plugins import Delivery
    from fer_stream.settings.tree import DeliverSettings


class ReceiverSink:
    """Sends each batch as one line, and reads one line as the answer."""

    def __init__(self, port: int, most: int) -> None:
        self.most, self._port = most, port
        self._socket: socket.socket | None = None

    def write(self, batch: Sequence[Delivery]) -> None:
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), 5)
            self._socket.sendall(json.dumps([json.loads(one.text) for one in batch]).encode() + b"\n")
            line = self._socket.makefile("rb").readline()
            if not line:
                raise ConnectionError("it hung up")
        except OSError as error:
            self.close()
            raise RetryError(f"the receiver cannot be reached: {error}") from error
        answer = json.loads(line)
        if "retry" in answer:
            raise RetryError(answer["retry"])
        if "fatal" in answer:
            raise FatalError(answer["fatal"])
        if answer.get("refuse"):
            raise RejectedError(answer["refuse"])

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def open_sink(argument: str, settings: DeliverSettings) -> ReceiverSink:
    if not argument.isdecimal():
        raise ConfigError(f"receiver needs a port, not {argument!r}")
    return ReceiverSink(int(argument), int(settings.options.get("most", 50)))


class OlderSink:
    """Of the older contract: appends ids to a file, and fails at every third call."""

    def __init__(self, path: str) -> None:
        self._path, self._calls = Path(path), 0

    def write(self, event: object, text: str) -> None:
        self._calls += 1
        if self._calls % 3 == 0:
            raise ValueError("rtsp://user:secret@h does not fit")
        with self._path.open("a") as file:
            file.write(json.loads(text)["id"] + "\n")

    def close(self) -> None:
        pass


def install(folder: Path) -> dict[str, str]:
    """Return the environment variables with which the sinks ``receiver`` and ``older`` are installed."""
    about = folder / "plug-in" / "receiving-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: receiving\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[fer_stream.batch_sinks]\nreceiver = event_receiver:open_sink\n"
        "[fer_stream.sinks]\nolder = event_receiver:OlderSink\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(folder / "plug-in"), str(Path(__file__).parent)])}


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        path = Path(sys.argv[2])
        orders = path.with_name(f"{path.name}.orders")
        for line in self.rfile:
            told: dict[str, Any] = json.loads(orders.read_text()) if orders.exists() else {}
            events = json.loads(line)
            refused = {event["id"]: "too ugly" for event in events if event["id"] in told.get("refuse", ())}
            if not refused and not told.keys() - {"refuse"}:
                with path.open("ab") as file:
                    file.write(b"".join(json.dumps(event).encode() + b"\n" for event in events))
            answer = told | {"refuse": refused}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with _Server(("127.0.0.1", int(sys.argv[1])), _Handler) as server:
        server.serve_forever()
