"""`fer-stream deliver` follows a whole cell: each camera's events are complete and in order, whoever is killed."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from cells import CELL, Cell
from nats_servers import NatsServer
from processes import wait_for

from fer_stream.client import read_journal
from fer_stream.settings.sections import FleetSettings
from fer_stream.settings.tree import JournalSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deliveries import Bench

CAMERAS = ("cam-2", "cam-0", "cam-4", "cam-3")
"""One of each partition."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    found = NatsServer(tmp_path).start()
    yield found
    found.kill()


def journaled(cell: Cell) -> list[tuple[str, str]]:
    """Return camera and id of each event in the cell's journal, each camera's in order."""
    settings = Settings(
        journal=JournalSettings(path=cell.servers), fleet=FleetSettings(cell=CELL, partitions=cell.partitions)
    )
    found = [json.loads(text) for _, text in read_journal(settings)]
    return [(event["source"], event["id"]) for event in found]


def by_camera(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    return {source: [identity for other, identity in pairs if other == source] for source, _ in pairs}


def test_a_cell(bench: Bench, server: NatsServer) -> None:
    cell = Cell(bench.cli, server.address)
    first, second = cell.aggregator(), cell.aggregator()
    cell.until_owned(first, second)
    for address in (first, second):
        cell.worker(address)
    captures = [cell.capture(name, "demo", "--rate", 5) for name in CAMERAS]
    bench.settings(main={"sink": "file:out.jsonl"})

    arguments = ("deliver", "--config", "s.toml", "--connect", cell.addresses)
    run = bench.cli.start(*arguments)
    wait_for(lambda: len({event["source"] for event in bench.got("out.jsonl")}) == 4, "each camera", log=cell.log)
    run.signal(signal.SIGKILL)
    run.end()
    cell.until_processed(10, *CAMERAS)
    run = bench.cli.start(*arguments)
    before = len(bench.got("out.jsonl"))
    wait_for(lambda: len(bench.got("out.jsonl")) > before, "events after a restart", log=cell.log)
    cell.aggregators[first].kill()
    count = len(bench.got("out.jsonl"))
    wait_for(lambda: len(bench.got("out.jsonl")) > count + 4, "events after an aggregator has died", log=cell.log)
    for capture in captures:
        capture.stop()

    def complete() -> bool:
        got = [(event["source"], event["id"]) for event in bench.got("out.jsonl")]
        return len(got) == len(journaled(cell))

    wait_for(complete, "all events", log=cell.log)
    got = [(event["source"], event["id"]) for event in bench.got("out.jsonl")]
    assert by_camera(got) == by_camera(journaled(cell))
    assert run.stop() == 0
