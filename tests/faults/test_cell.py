"""A cell of two aggregators with real captures and workers: its events, and one aggregator that leaves."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from cells import Cell, Listener
from faults.service import stored
from nats_servers import NatsServer

from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind, Message
from fer_stream.transports.zeromq import ZeroMQ

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli

    from fer_stream.plugins import Peer

CAMERAS = ("cam-2", "cam-0", "cam-4", "cam-3")
"""One of each partition."""


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
    """End everything in order, and check all events."""
    roles = ("capture", "worker", "aggregator")
    for role in roles:
        processes = [process for process in cell.cli.started if process.popen.args[3] == role]
        for process in processes:
            if process.popen.poll() is None:
                process.signal(signal.SIGTERM)
        for process in processes:
            process.end()
            assert "Traceback" not in process.err
    cell.check_closed()


def test_any_aggregator_publishes_and_replays_all_events_and_one_that_leaves_gives_all_away(cell: Cell) -> None:
    for address in begin(cell):
        listener, control = Listener(address), ZeroMQ().connect(address, "control")
        try:
            cell.until(
                lambda heard=listener.heard: {camera for _, camera in heard.values()} == set(CAMERAS), "all cameras"
            )
            newest = ask(cell, control, {"after": 2**62}).body()["cursor"]
            numbers = [int(part.partition(":")[2]) for part in newest.split(",")]
            assert [part.partition(":")[0] for part in newest.split(",")] == ["00", "01", "02", "03"]
            for number, camera in enumerate(CAMERAS):
                answer = ask(cell, control, {"after": 0, "partition": number})
                texts = [json.loads(line) for line in bytes(answer.payload).decode().split("\n")]
                assert {event["source"] for event in texts} == {f"/cameras/{camera}"}
                assert numbers[number] <= answer.time
                assert answer.seq == int(texts[-1]["cursor"])
                beyond = ask(cell, control, {"after": 2**62, "partition": number})
                assert (beyond.payload, beyond.seq) == (b"", beyond.time)
        finally:
            listener.close()
            control.close()

    first, second = cell.aggregators
    assert {address for address, _ in cell.cameras().values()} == {first, second}
    assert cell.aggregators[first].stop() == 0, cell.log()
    cell.until_owned(second)
    before = {name: camera["ledger"]["done"] for name, (_, camera) in cell.cameras().items()}
    cell.until_processed(max(before.values()) + 5, *CAMERAS)
    lost = {name: camera["ledger"]["lost_link"] for name, (_, camera) in cell.cameras().items()}
    assert not any(lost.values()), f"frames were lost: {lost}\n{cell.log()}"
    finish(cell)


def ask(cell: Cell, control: Peer, body: dict[str, Any]) -> Message:
    """Return the answer to a REPLAY."""
    control.send(messages.json_message(Kind.REPLAY, body, ticket=7))
    parts = cell.until(lambda: control.receive(0.1), "an answer")
    return messages.unpack(parts)


def test_a_recording_gives_the_same_events_with_two_aggregators_as_with_one(cell: Cell, clip: Path) -> None:
    alone = cell.cli.run("run", *(f"{name}={clip}" for name in CAMERAS), "--policy", "wait", "--journal", "one.db")
    assert alone.end() == 0, alone.err
    first, second = cell.aggregator(), cell.aggregator()
    cell.until_owned(first, second)
    for address in (first, second):
        cell.worker(address)
    for capture in [cell.capture(name, clip, "--policy", "wait") for name in CAMERAS]:
        assert capture.end() == 0, capture.err
    for number, camera in enumerate(CAMERAS):
        expected = [event for event in stored(cell.cli, "one.db") if event["source"] == f"/cameras/{camera}"]
        found = cell.events()[number]
        assert len(found) > 4
        assert [without_cursor(event) for event in found] == [without_cursor(event) for event in expected]
    finish(cell)


def without_cursor(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != "cursor"}
