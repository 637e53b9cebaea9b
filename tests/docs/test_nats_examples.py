"""The examples in Python and JavaScript that read a cell's events with NATS clients: all, after a cursor, live."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from documents import ROOT
from journals import event, resets
from nats_cell import PATIENCE, Cell, Owner
from nats_servers import NatsServer
from processes import wait_for

from fer_stream import plugins
from fer_stream.settings.tree import JournalSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fer_stream.plugins.journals import Stored

EXAMPLES = ROOT / "docs/examples"
MANY = 1200
"""Events of one partition: more than the examples ask for at a time."""


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[Cell]:
    users = ("--aggregator", "a1", "--reader", "wall")
    made = Cell(tmp_path, "--cell", "site", "--partitions", 4, *users).start()
    try:
        yield made.until_ready()
    finally:
        made.kill()


class Reader:
    """One of the examples as a process, and the lines that it prints, as words."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._log = folder / "reader.log"
        with self._log.open("ab") as log:
            environment = os.environ | {"PYTHONWARNINGS": "error"}
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        self.lines: list[list[str]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            self.lines.extend(line.split() for line in lines)

    def until(self, count: int) -> list[list[str]]:
        """Wait until it has printed so many lines."""
        wait_for(
            lambda: len(self.lines) >= count,
            f"{count} lines, of which there are {len(self.lines)}",
            lambda: self._process.poll() is None,
            self._log.read_text,
        )
        return self.lines

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()


@pytest.fixture(params=["nats_events.py", "nats_events.mjs"])
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Reader]]:
    """``read(address, *options)`` starts an example."""
    program = [sys.executable] if request.param.endswith("py") else ["node"]
    shutil.copy(EXAMPLES / request.param, tmp_path)
    if program == ["node"]:
        subprocess.run(["make", "--silent", ".venv/.node"], cwd=ROOT, check=True)
        (tmp_path / "node_modules").symlink_to(ROOT / ".venv/node/node_modules")
    readers: list[Reader] = []

    def start(*arguments: object) -> Reader:
        readers.append(Reader([*program, str(tmp_path / request.param), *map(str, arguments)], tmp_path))
        return readers[-1]

    yield start
    for reader in readers:
        reader.close()


def words(stored: list[Stored]) -> list[list[str]]:
    """What an example prints of these events, without their cursors."""
    found = []
    for _, text in stored:
        each = json.loads(text)
        label = each["data"].get("label")
        found.append([each["time"], each["source"], each["type"], *([label] if label else [])])
    return found


def test_a_cell_is_read_after_a_cursor_and_live(cell: Cell, read: Callable[..., Reader]) -> None:
    owner = Owner(cell.settings("a1"), "site", 4)
    options = ("--cell", "site", "--partitions", 4, "--seed", cell.seed("wall"), "--ca", cell.folder / "ca.pem")

    def of(lines: list[list[str]], camera: str) -> list[list[str]]:
        return [line[1:] for line in lines if line[2] == f"/cameras/{camera}"]

    try:
        first = owner.append(0, [event("camera.online", "gate"), event("emotion.started", "gate", track=1)])
        many = [stored for n in range(0, MANY, 400) for stored in owner.append(2, resets(400, "yard", n + 1))]
        expected = {"gate": words(first), "yard": words(many)}
        reader = read(cell.address, *options)
        lines = list(reader.until(len(first) + MANY))
        assert {camera: of(lines, camera) for camera in expected} == expected
        assert lines[-1][0] == f"00:{first[-1][0].cursor},01:0,02:{many[-1][0].cursor},03:0"

        later = owner.append(0, [event("emotion.ended", "gate", 2, track=1)]) + owner.append(3, resets(3, "hall"))
        total = len(reader.until(len(lines) + len(later)))
        assert total == len(lines) + len(later)
        assert of(reader.lines, "gate") == words([*first, later[0]])
        assert of(reader.lines, "hall") == words(later[1:])

        again = read(cell.address, *options, "--after", lines[len(first) + 500][0])
        rest = again.until(MANY - 501 + len(later))
        assert sorted(line[1:] for line in rest) == sorted(
            line[1:] for line in [*lines[len(first) + 501 :], *reader.lines[len(lines) :]]
        )

        cell.servers[0].kill()
        final = owner.append(3, resets(5, "door"))
        reader.until(total + 5)
        assert of(reader.lines, "door") == words(final), "also after a server has died"
    finally:
        owner.close()


def test_an_aggregator_alone_is_read(tmp_path: Path, read: Callable[..., Reader]) -> None:
    (tmp_path / "server").mkdir()
    server = NatsServer(tmp_path / "server").start()
    try:
        journal = plugins.journal(JournalSettings(path=server.address)).writer()
        stored = journal.append([event("camera.online", "gate"), *resets(2)]).result(PATIENCE)
        reader = read(server.address)
        assert reader.until(3) == [[each.cursor, *line] for (each, _), line in zip(stored, words(stored), strict=True)]
        stored += journal.append([event("camera.offline", "gate", 9)]).result(PATIENCE)
        assert reader.until(4)[3][0] == stored[3][0].cursor
        resumed = read(server.address, "--after", stored[1][0].cursor)
        assert resumed.until(2) == reader.lines[2:]
        journal.close()
    finally:
        server.kill()
