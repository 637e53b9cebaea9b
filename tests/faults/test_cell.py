"""A cell of two aggregators: one joins, leaves, dies, sleeps; each camera's frames and events are all accounted for."""

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
def server(tmp_path: Path) -> Iterator[NatsServer]:
    found = NatsServer(tmp_path).start()
    yield found
    found.kill()


@pytest.fixture
def cell(cli: Cli, server: NatsServer) -> Cell:
    return Cell(cli, server.address)


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


def test_an_aggregator_that_leaves_gives_everything_away(cell: Cell) -> None:
    first, second = begin(cell)
    assert {address for address, _ in cell.cameras().values()} == {first, second}
    assert cell.aggregators[first].stop() == 0, cell.log()
    cell.until_owned(second)
    before = {name: camera["ledger"]["done"] for name, (_, camera) in cell.cameras().items()}
    cell.until_processed(max(before.values()) + 5, *CAMERAS)
    assert all(camera["ledger"]["lost_link"] == 0 for _, camera in cell.cameras().values()), "no frame was lost by it"
    finish(cell)


def test_an_aggregator_that_dies_is_replaced_by_the_other_or_by_its_next_process(cell: Cell) -> None:
    first, second = begin(cell)
    cell.aggregators[first].kill()
    cell.until_owned(second)
    done = {name: camera["ledger"]["done"] for name, (_, camera) in cell.cameras().items()}
    cell.until_processed(max(done.values()) + 5, *CAMERAS)
    cell.aggregators[second].kill()
    cell.aggregator(second)
    cell.until(lambda: "former" in cell.aggregators[second].err, "what its former process had")
    cell.until_owned(second)
    assert '"dead"' not in cell.aggregators[second].err, "it did not wait until its former process counts as silent"
    cell.until_processed(max(done.values()) + 10, *CAMERAS)
    finish(cell)


def test_an_aggregator_that_sleeps_is_replaced_and_stores_nothing_when_it_wakes(cell: Cell) -> None:
    first, second = begin(cell)
    cell.aggregators[first].signal(signal.SIGSTOP)
    cell.until(lambda: (found := cell.status(second)) and not found["fleet"]["unowned"], "an owner of everything")
    cell.until(lambda: len(cell.status(second)["cameras"]) == len(CAMERAS), "all cameras")  # type: ignore[index]
    cell.aggregators[first].signal(signal.SIGCONT)
    assert cell.aggregators[first].end() == 1, "so that its supervisor starts it again"
    assert "taken" in cell.aggregators[first].errors[0]
    finish(cell)


def test_while_the_engine_is_away_frames_go_on_and_events_wait(cell: Cell, server: NatsServer) -> None:
    first, second = begin(cell)
    server.signal(signal.SIGSTOP)
    cell.until(lambda: all(cell.status(each)["events_held"] for each in (first, second)), "events that are held")  # type: ignore[index]
    done = {name: camera["ledger"]["done"] for name, (_, camera) in cell.cameras().items()}
    cell.until_processed(max(done.values()) + 20, *CAMERAS)
    owners = {name: address for name, (address, _) in cell.cameras().items()}
    server.signal(signal.SIGCONT)
    cell.until(lambda: not any(cell.status(each)["events_held"] for each in (first, second)), "that all are stored")  # type: ignore[index]
    assert owners == {name: address for name, (address, _) in cell.cameras().items()}, "nobody was taken for dead"
    finish(cell)


def test_any_aggregator_publishes_and_replays_the_events_of_all(cell: Cell) -> None:
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
