"""What a reader sees of a cell of real aggregators: every event once, also after one died, and the status of all."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import protocol
import pytest
from cells import CELL, Cell
from nats_servers import NatsServer
from processes import PATIENCE, wait_for

from fer_stream.client import Subscription, read_journal, status
from fer_stream.errors import ConfigError, JournalError
from fer_stream.events.cursor import to_numbers
from fer_stream.settings.sections import FleetSettings
from fer_stream.settings.tree import JournalSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from processes import Cli, Process

CAMERAS = ("cam-2", "cam-0", "cam-4", "cam-3")
"""One of each partition."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    found = NatsServer(tmp_path).start()
    yield found
    found.kill()


@pytest.fixture
def cell(cli: Cli, server: NatsServer) -> Cell:
    return Cell(cli, server.address)


def begin(cell: Cell) -> tuple[str, str, list[Process]]:
    """Start two aggregators, a worker each, and four cameras; return the addresses and the cameras' processes."""
    first, second = cell.aggregator(), cell.aggregator()
    cell.until_owned(first, second)
    for address in (first, second):
        cell.worker(address)
    captures = [cell.capture(name, "demo", "--rate", 5) for name in CAMERAS]
    cell.until_processed(5, *CAMERAS)
    return first, second, captures


def settings(place: Cell, address: str = "", **fleet: Any) -> Settings:
    how = {"address": address} if address else {}
    about = FleetSettings(**({"cell": CELL, "partitions": place.partitions} | fleet))
    return Settings(journal=JournalSettings(path=place.servers), fleet=about, **how)


class Reader(threading.Thread):
    """Reads a subscription until `end`."""

    def __init__(self, address: str, **how: Any) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []
        self.subscription = Subscription(address, **how)
        self._ends = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ends.is_set():
            if (found := self.subscription.receive(0.1)) is not None:
                self.events.append(json.loads(found[1]))

    def end(self) -> None:
        self._ends.set()
        self.join()
        self.subscription.close()


def ids(events: Iterable[dict[str, Any]]) -> list[str]:
    return [event["id"] for event in events]


def in_order(events: list[dict[str, Any]]) -> bool:
    """Whether each camera's sequences count from 1 without a gap."""
    cameras: dict[str, list[int]] = {}
    for event in events:
        cameras.setdefault(event["source"], []).append(int(event["sequence"]))
    return all(numbers == list(range(1, 1 + len(numbers))) for numbers in cameras.values())


def test_every_event_is_seen_once_although_an_aggregator_dies(cell: Cell) -> None:
    first, second, captures = begin(cell)
    whole = [Reader(address, after=0) for address in (first, second)]
    one = Reader(first, after=0, camera=CAMERAS[1])
    readers = [*whole, one]
    try:
        for reader in readers:  # only one address was given
            wait_for(
                lambda reader=reader: reader.events and reader.subscription._follower._others, "the other's address"
            )
        cell.aggregators[first].kill()
        cell.until_owned(second)
        done = {name: camera["ledger"]["done"] for name, (_, camera) in cell.cameras().items()}
        cell.until_processed(max(done.values()) + 5, *CAMERAS)
        for capture in captures:
            assert capture.stop() == 0, capture.err
        expected = [event for events in cell.events().values() for event in events]
        mine = [event for event in expected if event["source"] == f"/cameras/{CAMERAS[1]}"]
        for reader, wanted in ((whole[0], expected), (whole[1], expected), (one, mine)):
            wait_for(lambda reader=reader, wanted=wanted: len(reader.events) >= len(wanted), "all events", log=cell.log)
            assert sorted(ids(reader.events)) == sorted(ids(wanted))
            assert in_order(reader.events)
    finally:
        for reader in readers:
            reader.end()
    assert all(event["cursor"].isdecimal() for event in one.events)
    for reader in whole:
        for at in range(0, len(reader.events), 5):
            with Subscription(second, after=reader.events[at]["cursor"], until_now=True) as again:
                rest = [json.loads(text) for _, text in iter(lambda again=again: again.receive(PATIENCE), None)]
            assert sorted(ids(rest)) == sorted(ids(reader.events[at + 1 :]))
    read_the_journal(cell, expected)


def read_the_journal(cell: Cell, expected: list[dict[str, Any]]) -> None:
    """Read the cell's journal without an aggregator."""
    found = [json.loads(text) for _, text in read_journal(settings(cell))]
    assert sorted(ids(found)) == sorted(ids(expected))
    assert in_order(found)
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)
    for at in range(0, len(found), 7):
        rest = [json.loads(text) for _, text in read_journal(settings(cell), after=found[at]["cursor"])]
        assert ids(rest) == ids(found[at + 1 :])
    camera = [event for event, _ in read_journal(settings(cell), camera=CAMERAS[3], types=["camera"])]
    assert {event.camera for event in camera} == {CAMERAS[3]}
    assert all(event.cursor.isdecimal() for event in camera)
    with pytest.raises(ConfigError, match=r"is of 2 partitions, and the events at nats://.* are in 4"):
        list(read_journal(settings(cell), after="00:1,01:1"))
    with pytest.raises(
        JournalError, match=r"are those of a cell \(cell test, partitions: 4\): set fleet.cell and fleet"
    ):
        list(read_journal(cell.servers))
    for wrong in ({"partitions": 8}, {"cell": "other"}):
        with pytest.raises(
            JournalError, match=r"are those of another cell \(cell test, partitions: 4\) than the settings"
        ):
            list(read_journal(settings(cell, **wrong)))


def test_the_commands_speak_of_the_whole_cell(cell: Cell) -> None:
    environment = cell.environment | {"FER_STREAM_JOURNAL__PATH": cell.servers}
    assert ", can be made" in cell.cli.run("doctor", **environment).out
    missing = cell.cli.run("subscribe", "--journal", cell.servers, **environment)
    assert "there is no journal at" in missing.errors[0]
    first, second, captures = begin(cell)
    for address in (first, second):
        state = status(settings(cell, address), PATIENCE)
        assert set(state["cameras"]) == set(CAMERAS)
        assert len(state["workers"]) == 2
        assert len(to_numbers(state["cursor"])) == cell.partitions
        shown = cell.cli.run("status", "--connect", address).out
        fleet = (cell.status(address) or {})["fleet"]
        assert set(fleet) == {key for key, _, _ in protocol.BODIES["status-fleet"]}
        for about in fleet["aggregators"].values():
            assert set(about) == {key for key, _, _ in protocol.BODIES["status-aggregator"]}
        assert "cell test, partitions: 4" in shown
        assert all(text in shown for text in (*CAMERAS, first, second))
    for capture in captures:
        assert capture.stop() == 0
    options = ("--from", "0", "--until-now", "--format", "jsonl")
    live = cell.cli.run("subscribe", "--connect", second, *options).events
    kept = cell.cli.run("subscribe", "--journal", cell.servers, "--format", "jsonl", **environment).events
    assert sorted(ids(live)) == sorted(ids(kept)) == sorted(ids(e for events in cell.events().values() for e in events))
    rest = cell.cli.run("subscribe", "--connect", first, "--from", live[4]["cursor"], *options[2:]).events
    assert sorted(ids(rest)) == sorted(ids(live[5:]))
    assert "journal nats://" in (doctor := cell.cli.run("doctor", **environment).out)
    assert "4 of 4 partitions, " in doctor
    purged = cell.cli.run("purge", "--older-than", "0s", **environment)
    assert purged.out.startswith(f"{len(live)} events deleted")
    gaps = cell.cli.run("subscribe", "--connect", first, *options).events
    assert [event["type"] for event in gaps] == ["stream.gap"] * 4
    assert len(to_numbers(gaps[-1]["cursor"])) == 4
