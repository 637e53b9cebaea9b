"""The live page shows the cameras of all aggregators of a cell, and goes on when one of them dies, also its own."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Self

import pytest
from api_client import ask, refused, stream
from cells import Cell
from nats_servers import NatsServer
from processes import wait_for
from served import Browser, Service, get

from fer_stream.live.api.contract import PREFIX

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


def test_the_api_gives_the_events_of_the_whole_cell_and_resumes_after_its_aggregator_died(
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
        assert {camera["name"] for camera in ask(url, "/cameras")["cameras"]} == set(CAMERAS)
        with stream(url, after="0") as messages:
            seen = [next(messages)]
            while len({source(message) for message in seen} - {""}) < len(CAMERAS):
                seen.append(next(messages))
        assert all(message["id"].count(":") == cell.partitions for message in seen[1:])
        before = next(message for message in seen if "data" in message)
        with stream(url, before["id"]) as messages:
            new: list[dict[str, str]] = []
            with Asker(url) as asker:
                cell.aggregators[first].kill()
                cell.until_owned(second)
            assert set(asker.answers) == {200}, "no request is refused while the other aggregator takes over"
            while not any('"epoch":2' in message.get("data", "") for message in new):  # of the other aggregator
                new.append(next(messages))
        pages, cursor, more = [], before["id"], True
        while more:
            page = ask(url, "/events", after=cursor, limit=7)
            pages, cursor, more = [*pages, *page["events"]], page["cursor"], page["more"]
        for name in CAMERAS:
            found = [json.loads(m["data"])["sequence"] for m in new if source(m) == name]
            assert found == [event["sequence"] for event in pages if event["source"].endswith(f"/{name}")][: len(found)]
            one = ask(url, "/events", camera=name, limit=1)
            assert one["events"][0]["sequence"].endswith("01")
            assert ":" not in one["cursor"], "a camera's cursor is short"
        assert "of 2 partitions, and the events are in 4" in refused(url, "/events", 409, after="00:1,01:2")
        assert {row["camera"] for row in ask(url, "/statistics")["rows"]} == set(CAMERAS)
    finally:
        service.close()


class Asker(threading.Thread):
    """Asks for the status again and again, and keeps the statuses of the answers."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._ended = url, threading.Event()
        self.answers: list[int] = []

    def run(self) -> None:
        while not self._ended.is_set():
            self.answers.append(get(self._url, f"{PREFIX}/status").status)

    def __enter__(self) -> Self:
        self.start()
        wait_for(lambda: self.answers, "the first answer")
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def source(message: dict[str, str]) -> str:
    """Return the camera of a message's event, or an empty text."""
    return json.loads(message["data"])["source"].rpartition("/")[2] if "data" in message else ""
