"""The whole service with its journal in NATS: every command that takes a journal, an outage, and a restart."""

from __future__ import annotations

import json
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from faults.service import standing
from journals import event, resets
from nats_servers import NatsServer
from processes import balanced, unclosed, wait_for

from fer_stream import plugins
from fer_stream.aggregator.publisher import Publisher
from fer_stream.events.cloudevents import decode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli, Process

    from tests.journal.conftest import Place

SECRET = "open-sesame"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    started = NatsServer(tmp_path, f'authorization {{ users: [{{user: fer, password: "{SECRET}"}}] }}').start()
    yield started
    started.signal(signal.SIGCONT)
    started.kill()


def address(server: NatsServer) -> str:
    return f"nats://fer:{SECRET}@127.0.0.1:{server.port}"


def following(events: list[dict[str, Any]]) -> bool:
    """Whether every camera's sequences have no gap, and the cursors increase."""
    sequences: dict[str, list[int]] = {}
    for each in events:
        sequences.setdefault(each["source"], []).append(int(each["sequence"]))
    cursors = [int(each["cursor"]) for each in events]
    return cursors == sorted(set(cursors)) and all(
        numbers == list(range(numbers[0], numbers[0] + len(numbers))) for numbers in sequences.values()
    )


def test_every_command_that_takes_a_journal(cli: Cli, clip: Path, server: NatsServer) -> None:
    journal = address(server)
    doctor = cli.run("doctor", "--journal", journal)
    assert f"ok    journal nats://127.0.0.1:{server.port}, can be made" in doctor.out
    missing = cli.run("subscribe", "--journal", journal)
    assert missing.popen.returncode == 1
    assert f"there is no journal at nats://127.0.0.1:{server.port}" in missing.errors[0]
    options = ("--workers", 1, "--journal", journal, "--log-level", "debug", "--format", "jsonl")
    for number in (1, 2):
        files = ("--sink", f"file:events-{number}.jsonl", "--summary", "summary.json")
        run = cli.run("run", f"film={clip}", "--policy", "wait", *options, *files)
        assert run.popen.returncode == 0, run.err
        written = [json.loads(line) for line in (cli.folder / f"events-{number}.jsonl").read_text().splitlines()]
        summary = json.loads((cli.folder / "summary.json").read_text())
        assert written == run.events
        assert following(written)
        assert not unclosed(written)
        assert {each["epoch"] for each in written} == {number}
        assert sum(summary["events"].values()) == len(written)
        assert SECRET not in run.err + run.out
    stored = cli.run("subscribe", "--journal", journal, "--format", "jsonl").events
    assert stored[-len(written) :] == written
    assert following(stored)
    later = cli.run(
        "subscribe", "--journal", journal, "--from", stored[4]["cursor"], "--type", "emotion", "--format", "jsonl"
    )
    assert later.events == [each for each in stored[5:] if each["type"].startswith("emotion")]
    config = cli.run("config", "--journal", journal)
    assert SECRET not in config.out
    assert "fer:***@127.0.0.1" in config.out
    purged = cli.run("purge", "--older-than", "0s", "--journal", journal)
    record = cli.folder / f".local/state/fer_stream/127.0.0.1-{server.port}.deliveries.db"
    assert purged.out.splitlines() == [
        f"{len(stored)} events deleted from nats://127.0.0.1:{server.port}",
        f"0 dead letters deleted from {record}",
    ]
    (gap,) = cli.run("subscribe", "--journal", journal, "--format", "jsonl").events
    assert gap["type"] == "stream.gap"


def test_a_wrong_server_ends_a_run_with_one_sentence(cli: Cli, clip: Path, server: NatsServer) -> None:
    run = cli.run("run", str(clip), "--journal", address(server).replace(SECRET, "secret-mistake"))
    assert run.popen.returncode == 1
    (sentence,) = set(run.errors)
    assert "refuses this process: check the user and password in its address" in sentence
    assert "mistake" not in run.err


def test_an_outage_delays_events_and_stops_no_frame(
    cli: Cli, clip: Path, short_folder: Path, server: NatsServer
) -> None:
    here = f"ipc://{short_folder}"
    quiet = {"FER_STREAM_DISPATCH__SILENCE": "60"}
    aggregator = cli.start("aggregator", "--bind", here, "--journal", address(server), **quiet)
    aggregator.until_said("ready at")
    cli.start("worker", "--connect", here)
    subscriber = cli.start("subscribe", "--connect", here, "--from", 0, "--format", "jsonl")

    def capture(name: str) -> Process:
        return cli.start("capture", clip, "--camera", name, "--loop", "--rate", 15, "--connect", here, **quiet)

    def done(name: str) -> int:
        state = standing(here) or {"cameras": {}}
        return int(state["cameras"].get(name, {"ledger": {"done": 0}})["ledger"]["done"])

    first, second = capture("first"), capture("second")
    aggregator.until(lambda: done("first") and done("second"), "frames of two cameras")
    subscriber.until_event("camera.online", 2)

    server.signal(signal.SIGSTOP)
    third = capture("third")
    second.signal(signal.SIGTERM)  # its last events cannot be stored yet, so it waits
    aggregator.until_said("events are held until the journal can be written")
    before = done("first")
    aggregator.until(lambda: done("first") > before + 20, "frames during the outage")
    state = standing(here)
    assert state is not None
    assert "third" not in state["cameras"], "a camera joins when its epoch is stored"
    assert second.popen.poll() is None
    server.signal(signal.SIGCONT)

    aggregator.until_said("the journal can be written again")
    aggregator.until(lambda: done("third"), "frames of the third camera")
    assert second.end() == 0

    server.kill()
    before = done("first")
    aggregator.until(lambda: done("first") > before + 10, "frames without a server")
    server.start()
    for process in (first, third):
        assert process.stop() == 0
    subscriber.until_event("camera.offline", 3)
    state = standing(here)
    assert state is not None
    assert all(balanced(camera["ledger"]) for camera in state["cameras"].values())
    assert aggregator.stop() == 0
    stored = cli.run("subscribe", "--journal", address(server), "--format", "jsonl").events
    assert subscriber.events == stored
    assert following(stored)
    assert not unclosed(stored)
    assert SECRET not in aggregator.err


def test_a_second_aggregator_takes_over(cli: Cli, short_folder: Path, server: NatsServer) -> None:
    first = cli.start("aggregator", "--bind", f"ipc://{short_folder}/1", "--journal", address(server))
    first.until_said("ready at")
    second = cli.start("aggregator", "--bind", f"ipc://{short_folder}/2", "--journal", address(server))
    second.until(lambda: first.popen.poll() is not None, "the first one's end")
    assert first.end() == 2, "so that systemd does not restart it"
    assert f"was taken over by another aggregator (process {second.pid} on " in first.errors[0]
    second.until_said("ready at")
    assert second.stop() == 0


def test_a_stored_batch_wakes_the_aggregator_s_loop(nats_place: Place, short_folder: Path) -> None:
    journal = nats_place.writer()
    transport = plugins.load("transports", "zeromq")()
    hub = transport.bind(f"ipc://{short_folder}")
    listener = transport.subscribe(f"ipc://{short_folder}", "events", [""])
    try:
        wait_for(lambda: hub.receive(0.1), "the subscription")
        publisher = Publisher(hub)
        log = publisher.open(0, journal)
        publisher.record([event("camera.online"), *resets(2, first=2)])
        mark = log.mark()
        publisher.flush()
        assert log.passed(mark) or not publisher.failing
        while not log.passed(mark):
            assert hub.receive(3600) == [], "nothing arrived: it was woken"
            publisher.flush()
        texts = [bytes(listener.receive(60)[1]).decode() for _ in range(3)]
        assert texts == nats_place.texts()
        assert publisher.cursor == decode(texts[-1]).cursor
    finally:
        listener.close()
        hub.close()


@pytest.mark.parametrize("name", ["zeromq", "memory"])
def test_a_hub_can_be_woken_from_another_thread(name: str, short_folder: Path) -> None:
    hub = plugins.load("transports", name)().bind(f"ipc://{short_folder}" if name == "zeromq" else "memory://woken")
    try:
        threading.Thread(target=hub.wake).start()
        assert hub.receive(3600) == []
    finally:
        hub.close()
    hub.wake()
