"""Real nats-servers for tests: one, or a cluster of three. They are started and ended by their process ids."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats
from processes import free_port, wait_for

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

PROGRAM = Path(sys.executable).with_name("nats-server")

STREAM = "FER_EV_00"


class NatsServer:
    """One nats-server with JetStream, whose data survives `kill` and `start`."""

    def __init__(
        self, folder: Path, configuration: str = "", jetstream: bool = True, name: str = "one", sync: str = ""
    ) -> None:
        self.port = free_port()
        self._sync = f", sync_interval: {sync}" if sync else ""
        self.host = "127.0.0.1"
        self.under: tuple[str, ...] = ()
        """A command that runs it, such as one that enters a network namespace."""
        self._folder = folder / name
        self._folder.mkdir()
        self._file = self._folder / "server.conf"
        self.configure(configuration, jetstream)
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, configuration: str = "", jetstream: bool = True) -> None:
        store = f'jetstream {{ store_dir: "{self._folder / "data"}"{self._sync} }}' if jetstream else ""
        self._file.write_text(f"listen: {self.host}:{self.port}\n{store}\n{configuration}\n")

    @property
    def address(self) -> str:
        return f"nats://{self.host}:{self.port}"

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, wait: bool = True) -> NatsServer:
        with (self._folder / "log").open("ab") as log:
            command = [*self.under, str(PROGRAM), "-c", str(self._file)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        if wait:
            started = self.log.count("Starting nats-server")
            wait_for(
                lambda: self.log.count("Server is ready") > max(0, started - 1),
                "a nats-server",
                self._runs,
                lambda: self.log,
            )
        return self

    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL it. A second call does nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Cluster:
    """Three nats-servers, each with a copy of every stream."""

    def __init__(self, folder: Path, sync: str = "") -> None:
        routes = [free_port() for _ in range(3)]
        self.servers = [NatsServer(folder, name=f"n{number}", sync=sync) for number in range(3)]
        for number, server in enumerate(self.servers):
            others = ", ".join(f"nats-route://127.0.0.1:{port}" for port in routes)
            server.configure(
                f"server_name: n{number}\n"
                f"cluster {{ name: cell, listen: 127.0.0.1:{routes[number]}, routes: [{others}] }}"
            )

    @property
    def address(self) -> str:
        return "nats://" + ",".join(server.address.partition("://")[2] for server in self.servers)

    def start(self) -> Cluster:
        for server in self.servers:
            server.start(wait=False)
        return self

    def leader(self, stream: str = STREAM) -> NatsServer:
        """The server that leads a stream: by default that of the events."""
        name = wait_for(lambda: api(self.address, f"STREAM.INFO.{stream}").get("cluster", {}).get("leader"), "a leader")
        return self.servers[int(name[1:])]

    def whole(self) -> bool:
        """Whether every stream has a leader, and all its copies are up to date."""
        names = [name for page in (api(self.address, "STREAM.NAMES"),) for name in page.get("streams") or []]
        infos = [api(self.address, f"STREAM.INFO.{name}").get("cluster", {}) for name in names]
        return bool(infos) and all(
            info.get("leader")
            and len(info.get("replicas") or []) == len(self.servers) - 1
            and all(copy.get("current") and not copy.get("offline") for copy in info["replicas"])
            for info in infos
        )

    def kill(self) -> None:
        for server in self.servers:
            server.kill()


class AnswersProxy:
    """A TCP proxy in front of a server, which can hold the server's answers back, and change its greeting."""

    def __init__(self, port: int, replaced: tuple[bytes, bytes] = (b"", b"")) -> None:
        self._target, self._replaced = port, replaced
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"nats://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_answers(self) -> None:
        self._flowing.clear()

    def release_answers(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        self._flowing.set()
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target), 5)
                self._open += [near, far]
                threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if answers:
                    self._flowing.wait()
                    data = data.replace(*self._replaced) if self._replaced[0] else data
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


def ask(address: str, work: Callable[[Any], Any]) -> Any:
    """Run ``work(client)``, a coroutine, with a plain client of the server."""

    async def run() -> Any:
        client = await nats.connect(hosts(address), max_reconnect_attempts=3)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def hosts(address: str) -> list[str]:
    """Return each server of an address as an address of its own."""
    scheme, _, rest = address.partition("://")
    return [f"{scheme}://{host}" for host in rest.split(",")]


def api(address: str, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Call JetStream's API; the answer is empty if there is none."""

    async def request(client: Any) -> dict[str, Any]:
        try:
            answer = await client.request(f"$JS.API.{subject}", json.dumps(body).encode() if body else b"", timeout=2)
        except Exception:
            return {}
        return dict(json.loads(answer.data))

    return dict(ask(address, request))
