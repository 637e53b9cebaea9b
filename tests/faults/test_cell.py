"""A cell of two aggregators: one joins, leaves, dies, sleeps; each camera's frames and events are all accounted for."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from cells import Cell
from nats_servers import NatsServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli

CAMERAS = ("cam-0", "cam-1", "cam-2", "cam-3")


@pytest.fixture
def cell(cli: Cli, tmp_path: Path) -> Iterator[Cell]:
    server = NatsServer(tmp_path).start()
    yield Cell(cli, server.address)
    server.kill()


def begin(cell: Cell) -> tuple[str, str]:
    """Start two aggregators that share the partitions, a worker each, and four cameras."""
    first, second = cell.aggregator(), cell.aggregator()
    cell.until_owned(first, second)
    for address in (first, second):
        cell.worker(address)
    for name in CAMERAS:
        cell.capture(name, "demo", "--rate", 5)
    cell.until_processed(5, *CAMERAS)
    return first, second


def finish(cell: Cell) -> None:
    for process in cell.cli.started:
        if process.popen.poll() is None:
            process.signal(signal.SIGTERM)
    for process in cell.cli.started:
        process.end()
        assert "Traceback" not in process.err
    cell.check_closed()


def test_an_aggregator_that_leaves_gives_everything_away(cell: Cell) -> None:
    first, second = begin(cell)
    assert {address for address, _ in cell.cameras().values()} == {first, second}
    assert cell.aggregators[first].stop() == 0, cell.log()
    cell.until_owned(second)
    before = {name: camera["ledger"]["done"] for name, (_, camera) in cell.cameras().items()}
    cell.until_processed(max(before.values()) + 5, *CAMERAS)
    assert all(camera["ledger"]["lost_link"] == 0 for _, camera in cell.cameras().values()), "no frame was lost by it"
    finish(cell)
