"""The whole service as threads of this process, which start quickly, and a client of its live page."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from processes import PATIENCE, wait_for
from websockets.sync.client import ClientConnection, connect

from fer_stream.aggregator import aggregator
from fer_stream.capture import process as capture
from fer_stream.inference import worker
from fer_stream.live import server
from fer_stream.operations.process import Stop
from fer_stream.settings import tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_stream.settings.tree import Settings


def get(url: str, path: str = "/", method: str = "GET", body: str = "", **headers: str) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=30)
    connection.request(method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


class Service:
    """Roles that run until `close`; `start` returns a function that ends its role."""

    def __init__(self, folder: Path, model: Path, cameras: dict[str, dict[str, Any]], **flags: Any) -> None:
        self.settings = tree.load(
            {
                "address": f"ipc://{folder}",
                "classifier.model": model,
                "journal.path": folder / "events.db",
                "live.bind": "127.0.0.1:0",
                "cameras": cameras,
                **flags,
            }
        )
        self.failures: list[BaseException] = []
        self._running: list[tuple[Stop, threading.Thread]] = []

    def start(self, role: Callable[..., None], *arguments: Any, settings: Settings | None = None) -> Callable[[], None]:
        stop = Stop()

        def run() -> None:
            try:
                role(settings or self.settings, *arguments, stop=stop)
            except BaseException as error:
                self.failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        self._running.append((stop, thread))

        def end() -> None:
            stop.set()
            thread.join()

        return end

    def pipeline(self) -> None:
        """Start an aggregator, a worker, and every camera."""
        self.start(aggregator.run)
        self.start(worker.run, "1")
        for name in self.settings.cameras:
            self.start(capture.run, name)

    def live(self, log: Callable[[], str], **changes: Any) -> tuple[str, Callable[[], None]]:
        """Start the live page; return its address, read from the text of ``log``, and a function that ends it."""
        settings = self.settings.model_copy(update={"live": self.settings.live.model_copy(update=changes)})
        before = log().count("http://")
        end = self.start(server.run, settings=settings)
        found = wait_for(
            lambda: re.findall(r"the live page is at (http://\S+/)", log())[before:], "the live page", log=log
        )
        return found[0], end

    def close(self) -> None:
        for stop, thread in reversed(self._running):
            stop.set()
            thread.join()
            stop.close()
        assert not self.failures


class Browser:
    """A client that sends and receives the page's WebSocket messages, without a browser."""

    def __init__(self, url: str, origin: str | None = "", **headers: str) -> None:
        parts = urlsplit(url)
        own = f"{parts.scheme}://{parts.netloc}" if origin == "" else origin
        host = headers.pop("Host", parts.netloc)
        self._opening = connect(
            f"ws://{host}{parts.path}feed",
            sock=socket.create_connection((parts.hostname or "", parts.port or 0), PATIENCE),
            origin=own,  # type: ignore[arg-type]
            additional_headers={name.replace("_", "-"): value for name, value in headers.items()},
            max_size=None,
            open_timeout=PATIENCE,
            ping_interval=None,
        )

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def hear(self, timeout: float | None = 30.0) -> dict[str, Any]:
        """Return the next message; a picture has its JPEG as ``jpeg``.

        Raises:
            TimeoutError: none arrives in time.
        """
        message = self.socket.recv(timeout)
        if isinstance(message, str):
            return json.loads(message)
        length = int.from_bytes(message[:4], "big")
        return {"type": "picture", **json.loads(message[4 : 4 + length]), "jpeg": message[4 + length :]}

    def until(self, kind: str, condition: Callable[[dict[str, Any]], Any] = lambda _: True) -> dict[str, Any]:
        """Return the next message of a kind for which a condition holds."""
        for _ in range(2000):
            message = self.hear()
            if message["type"] == kind and condition(message):
                return message
        raise AssertionError(f"no {kind} came")

    def __enter__(self) -> Self:
        self.socket: ClientConnection = self._opening.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opening.__exit__(*error)
