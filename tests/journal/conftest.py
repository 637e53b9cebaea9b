"""Fixtures: journals of each kind, empty at the beginning of a test; an SQLite file's path and its writer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from nats_servers import NatsServer, api

from fer_stream import plugins
from fer_stream.events.cloudevents import decode
from fer_stream.journal.sqlite import Writer
from fer_stream.settings.tree import JournalSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fer_stream.plugins import JournalReader, JournalWriter
    from fer_stream.types import Event


@dataclass
class Place:
    """A journal that a test writes and reads through the plug-in's interface."""

    kind: str
    settings: JournalSettings
    _writers: list[JournalWriter] = field(default_factory=list)

    @property
    def journal(self) -> plugins.Journal:
        return plugins.journal(self.settings)

    def writer(self) -> JournalWriter:
        """Open a writer, which is closed at the end of the test at the latest."""
        self._writers.append(self.journal.writer())
        return self._writers[-1]

    def reader(self) -> JournalReader:
        return self.journal.reader()

    def texts(self, after: int = 0, camera: str | None = None, limit: int = 1000) -> list[str]:
        """All texts after a cursor."""
        found: list[str] = []
        with self.reader() as reader:
            while after < reader.cursor():
                texts, reached = reader.read(after, limit, camera)
                assert reached > after
                found, after = found + texts, reached
        return found

    def events(self, after: int = 0, camera: str | None = None) -> list[Event]:
        return [decode(text) for text in self.texts(after, camera)]

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server for all tests that leave it as it is, but for the streams."""
    server = NatsServer(tmp_path_factory.mktemp("nats")).start()
    yield server
    server.kill()


@pytest.fixture
def nats_place(nats_server: NatsServer) -> Iterator[Place]:
    for stream in ("FER_EV_00", "KV_cameras"):
        api(nats_server.address, f"STREAM.DELETE.{stream}")
    place = Place("nats", JournalSettings(path=nats_server.address))
    yield place
    place.close()


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Iterator[Place]:
    place = Place("sqlite", JournalSettings(path=tmp_path / "events.db"))
    yield place
    place.close()


@pytest.fixture(params=["sqlite", "nats"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Writer]:
    opened = Writer(path)
    yield opened
    opened.close()
