"""The live page shows the cameras of all aggregators of a cell, and goes on when one of them dies, also its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cells import Cell
from nats_servers import NatsServer
from served import Browser, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from processes import Cli

CAMERAS = ("cam-2", "cam-0", "cam-4", "cam-3")
"""One of each partition."""


@pytest.fixture
def cell(cli: Cli, tmp_path: Path) -> Iterator[Cell]:
    server = NatsServer(tmp_path).start()
    yield Cell(cli, server.address)
    server.kill()


def pictures(browser: Browser, after: dict[str, int]) -> dict[str, int]:
    """Receive pictures until each camera has had one after a time (ns); return the times of the latest ones."""
    found = dict(after)
    while any(found[name] <= after[name] for name in CAMERAS):
        message = browser.hear()
        if message["type"] == "picture":
            found[message["camera"]] = message["time"]
            browser.say(shown=message["camera"])
    return found


def test_cameras_of_all_aggregators_are_shown_wherever_they_move(
    cell: Cell, short_folder: Path, tiny_model: Path, printed: Callable[[], str]
) -> None:
    first, second = cell.aggregator(), cell.aggregator()
    cell.until_owned(first, second)
    for address in (first, second):
        cell.worker(address)
    for name in CAMERAS:
        cell.capture(name, "demo", "--rate", 5)
    cell.until_processed(3, *CAMERAS)
    service = Service(short_folder, tiny_model, {}, address=first)
    try:
        url, _ = service.live(printed)
        with Browser(url) as browser:
            state = browser.until("state", lambda state: len(state["status"].get("cameras", {})) == len(CAMERAS))
            where = {camera["aggregator"] for camera in state["status"]["cameras"].values()}
            assert len(where) == 2
            assert len(state["status"]["workers"]) == 2
            events: set[str] = set()
            while events != {f"/cameras/{name}" for name in CAMERAS}:
                events |= {event["source"] for event in browser.until("events")["events"]}
            browser.say(watch=dict.fromkeys(CAMERAS, 320))
            times = pictures(browser, dict.fromkeys(CAMERAS, 0))
            cell.aggregators[first].kill()
            cell.until_owned(second)
            times = pictures(browser, {name: time + 2 * 10**9 for name, time in times.items()})
            state = browser.until("state", lambda state: len(state["status"]["cameras"]) == len(CAMERAS))
            assert {camera["aggregator"] for camera in state["status"]["cameras"].values()} < where
            assert state["connected"]
            browser.until("events", lambda message: message["past"] == 0)
    finally:
        service.close()
