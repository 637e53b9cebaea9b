"""Three nats-servers with the files that deploy/nats/make_cell.py writes: TLS, nkeys, and rights."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats
from nats_servers import NatsServer
from processes import free_port, wait_for

from fer_stream.fleet.driver import Answered
from fer_stream.fleet.records import Done, Fence, Look, Mark, Part, Place, Recover, Write
from fer_stream.journal.nats.engine import NATSEngine
from fer_stream.settings.sections import FleetSettings
from fer_stream.settings.tree import JournalSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fer_stream.plugins import JournalWriter
    from fer_stream.plugins.journals import Stored
    from fer_stream.types import Event

ROOT = Path(__file__).parents[1]
PATIENCE = 60


def make_cell(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "deploy/nats/make_cell.py", folder, *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


class Cell:
    """The servers listen at 127.0.0.1, 127.0.0.2 and 127.0.0.3."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.folder = folder / "cell"
        self.hosts = [f"127.0.0.{number}" for number in (1, 2, 3)]
        done = make_cell(self.folder, "--server", *self.hosts, *arguments)
        assert done.returncode == 0, done.stderr
        (folder / "servers").mkdir()
        self.ports = {"4222": free_port(), "6222": free_port(), "8222": free_port()}
        self.servers = [NatsServer(folder / "servers", name=host) for host in self.hosts]
        for host, server in zip(self.hosts, self.servers, strict=True):
            server.host, server.port = host, self.ports["4222"]
        self.write()

    def write(self) -> None:
        """Give each server its files, with these ports and folders instead of the machine's."""
        for host, server in zip(self.hosts, self.servers, strict=True):
            for file in (self.folder / host).iterdir():
                text = file.read_text()
                replaced = {"/etc/nats": str(self.folder / host), "/var/lib/nats": str(server.file.parent / "data")}
                replaced |= {"0.0.0.0": host, "http: 127.0.0.1": f"http: {host}"}
                for there, here in {**replaced, **self.ports}.items():
                    if file.suffix == ".conf":
                        text = text.replace(there, str(here))
                (server.file.parent / file.name).write_text(text)

    def start(self) -> Cell:
        for server in self.servers:
            server.start(wait=False)
        return self

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    @property
    def address(self) -> str:
        return "tls://" + ",".join(f"{host}:{self.ports['4222']}" for host in self.hosts)

    def settings(self, user: str) -> JournalSettings:
        """The journal's settings of a user of make_cell."""
        return JournalSettings(path=self.address, credentials=self.seed(user), ca=self.folder / "ca.pem")

    def seed(self, user: str) -> Path:
        return self.folder / f"{user}.nk"

    def environment(self, user: str) -> dict[str, str]:
        """The same settings as variables."""
        return {
            "FER_STREAM_JOURNAL__PATH": self.address,
            "FER_STREAM_JOURNAL__CREDENTIALS": str(self.seed(user)),
            "FER_STREAM_JOURNAL__CA": str(self.folder / "ca.pem"),
        }

    def ask(self, user: str, work: Callable[[Any], Any]) -> Any:
        """Run ``work(client)``, a coroutine, with a plain client of a user. ``client.errors`` has what was denied."""

        async def run() -> Any:
            denied: list[str] = []

            async def note(error: Exception) -> None:
                denied.append(str(error))

            client = await nats.connect(
                self.address.split(",")[0],
                tls=ssl.create_default_context(cafile=self.folder / "ca.pem"),
                nkeys_seed=str(self.seed(user)),
                error_cb=note,
                max_reconnect_attempts=1,
            )
            client.errors = denied
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(run())

    def until_ready(self) -> Cell:
        """Wait until the three have a leader."""
        wait_for(lambda: any("JetStream cluster new metadata leader" in each.log for each in self.servers), "a leader",
                 log=lambda: "\n".join(each.log for each in self.servers))  # fmt: skip
        return self


class Owner:
    """An aggregator as far as its partitions go: it takes them one by one, and stores events in them."""

    def __init__(self, settings: JournalSettings, cell: str, partitions: int) -> None:
        self._engine = NATSEngine(settings, FleetSettings(cell=cell, partitions=partitions), "A")
        self._calls = 0
        self._journals: dict[int, JournalWriter] = {}

    def append(self, number: int, events: Sequence[Event]) -> list[Stored]:
        if number not in self._journals:
            self._take(number)
        return self._journals[number].append(events).result(PATIENCE)

    def _take(self, number: int) -> None:
        last, _, _ = self._done(Look, number)
        fence = self._done(Fence, number, Mark("A", 1), last)
        self._done(Write, number, Part("A", Place("tcp://192.0.2.1:5550"), fence), 0)
        self._done(Recover, number, fence)
        self._journals[number] = self._engine.journal(number)

    def _done(self, kind: Any, *arguments: Any) -> Any:
        self._calls += 1
        self._engine.begin(kind(self._calls, *arguments))
        arrived: list[Any] = []

        def answered() -> list[Any]:
            arrived.extend(each.outcome for each in self._engine.arrivals() if isinstance(each, Answered))
            return arrived

        (outcome,) = wait_for(answered, str(kind), log=lambda: self._engine.trouble)
        assert isinstance(outcome, Done), self._engine.trouble
        return outcome.value

    def close(self) -> None:
        self._engine.close()
