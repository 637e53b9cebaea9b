"""`fer-stream run` in real processes: sinks that fail or are stuck, and readers that do not read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from faults.service import sound, standing, stored
from processes import PATIENCE, balanced, free_port, gapless, unclosed, wait_for
from single_runs import Dead, buffered, readiness, sinks, start, unread

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
def test_nobody_reads(both: bool, cli: Cli, short_folder: Path, clip: Path) -> None:
    address, port = f"ipc://{short_folder}", free_port()
    ours, theirs = unread()
    other, others = unread()
    command = [
        *(sys.executable, "-m", "fer_stream", "run", f"film={clip}", "--loop", "--format", "jsonl", "--workers", "2"),
        *("--journal", "e.db", "--bind", address, "--metrics", f"127.0.0.1:{port}", "--summary", "s.json"),
        *("--log-level", "debug"),
    ]
    with (cli.folder / "err").open("wb") as err:
        run = subprocess.Popen(
            command, stdout=theirs, stderr=others if both else err, env=cli.environment, cwd=cli.folder
        )
    os.close(theirs)
    os.close(others)

    def status() -> dict[str, Any]:
        found: dict[str, Any] = wait_for(lambda: standing(address), "a status", lambda: run.poll() is None)
        return found

    try:
        wait_for(lambda: sinks(address).get("stdout:jsonl", {}).get("state") == "stuck", "a full pipe")
        old = wait_for(lambda: status()["workers"].get("1", {}).get("pid"), "worker 1")
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: status()["workers"].get("1", {}).get("pid") not in (None, old), "a new worker 1")
        wait_for(lambda: readiness(port)["code"] == 200, "readiness")
        run.send_signal(signal.SIGTERM)
        assert run.wait(PATIENCE) == 1
    finally:
        run.kill()
        run.wait()
    with os.fdopen(ours) as reader:
        seen = [json.loads(line) for line in reader.read().splitlines(keepends=True) if line.endswith("\n")]
    os.close(other)
    summary = json.loads((cli.folder / "s.json").read_text())
    everything = stored(cli, "e.db")
    assert seen == everything[: len(seen)]
    sink = summary["sinks"]["stdout:jsonl"]
    assert sink["delivered"] + sink["undelivered"] == sum(summary["events"].values()) == len(everything)
    assert sink["undelivered"] > 0
    sound(everything)
    assert cli.left_over(Dead, short_folder) == []  # type: ignore[arg-type]
    if not both:
        text = (cli.folder / "err").read_text()
        assert f"fer-stream: error: stdout:jsonl: {sink['undelivered']} of " in text
        assert "events were not printed: its reader did not take them in time" in text


def test_a_reader_who_comes_back_gets_every_event(cli: Cli, short_folder: Path, clip: Path) -> None:
    address = f"ipc://{short_folder}"
    ours, theirs = unread()
    command = [
        *(sys.executable, "-m", "fer_stream", "run", f"film={clip}", "--loop", "--format", "jsonl", "--workers", "1"),
        *("--journal", "e.db", "--bind", address),
    ]
    run = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=cli.environment, cwd=cli.folder)
    os.close(theirs)
    try:
        wait_for(lambda: sinks(address).get("stdout:jsonl", {}).get("behind", 0) > 5, "a sink that is behind")
        run.send_signal(signal.SIGINT)
        with os.fdopen(ours) as reader:
            events = [json.loads(line) for line in reader]
        assert run.wait(PATIENCE) == 0
    finally:
        run.kill()
        run.wait()
    assert events == stored(cli, "e.db")


def test_a_film_that_ends_waits_for_who_reads_it_page_by_page(cli: Cli, short_folder: Path, clip: Path) -> None:
    ours, theirs = unread()
    command = [
        *(sys.executable, "-m", "fer_stream", "run", f"film={clip}", f"again={clip}", "--format", "jsonl"),
        *("--workers", "1", "--policy", "wait", "--journal", "e.db", "--bind", f"ipc://{short_folder}"),
    ]
    run = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=cli.environment, cwd=cli.folder)
    os.close(theirs)
    wait_for(
        lambda: not short_folder.joinpath("control").exists() and (cli.folder / "e.db").exists(),
        "the end of the aggregator",
    )
    with os.fdopen(ours) as reader:
        events = [json.loads(line) for line in reader]
    assert run.wait(PATIENCE) == 0
    assert run.stderr is not None
    run.stderr.close()
    assert events == stored(cli, "e.db")
    assert gapless(events)
    assert not unclosed(events)


def test_a_subscriber_whom_nobody_reads_ends_when_told(cli: Cli, short_folder: Path, clip: Path) -> None:
    address = f"ipc://{short_folder}"
    start(cli, "film", clip, "--bind", address).until_event("emotion.ended", 3)
    ours, theirs = unread()
    command = [
        sys.executable,
        "-m",
        "fer_stream",
        "subscribe",
        "--from",
        "0",
        "--format",
        "jsonl",
        "--connect",
        address,
    ]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=cli.environment) as subscriber:
        os.close(theirs)
        wait_for(lambda: buffered(ours) > 2000, "a pipe that is nearly full, so that the next writes block")
        subscriber.send_signal(signal.SIGTERM)
        assert subscriber.wait(PATIENCE) == 0
    os.close(ours)


def test_a_sink_that_raises_stops_nobody_and_is_told(
    cli: Cli, short_folder: Path, clip: Path, plugins: dict[str, str]
) -> None:
    port, address = free_port(), f"ipc://{short_folder}"
    run = start(
        *(cli, "film", clip, "--bind", address, "--sink", "raising:half.jsonl", "--sink", "file:/dev/full"),
        *("--sink", "file:all.jsonl", "--metrics", f"127.0.0.1:{port}"),
        **plugins,
    )
    run.until_event("emotion.ended", 2)
    names = {"stdout:jsonl", "raising:half.jsonl", "file:/dev/full", "file:all.jsonl"}
    run.until(lambda: sinks(address).keys() == names, "sinks in the status")
    run.until(lambda: sinks(address)["file:/dev/full"]["behind"] > 5, "more events that wait")
    known = sinks(address)
    assert known["file:/dev/full"] | {"state": "failing", "delivered": 0} == known["file:/dev/full"]
    assert known["file:/dev/full"]["error"] == "events cannot be written to '/dev/full': No space left on device"
    assert known["file:all.jsonl"]["state"] == known["stdout:jsonl"]["state"] == "ok"
    shown = cli.run("status", "--connect", address).out
    assert "No space left on device" in shown
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'fer_stream_delivery_lag_events{sink="file:/dev/full"} 0.0' not in text
    assert 'fer_stream_sink_events_behind{sink="stdout:jsonl"} ' in text
    assert run.stop() == 0
    events = run.events
    sound(events)
    assert (cli.folder / "all.jsonl").read_text() == run.out
    half = (cli.folder / "half.jsonl").read_text()
    assert run.out.startswith(half), "in order, and none twice"
    assert half
    assert f"sink file:/dev/full: {len(events)} events wait, and are delivered at the next start: events " in run.err
    assert "the sink raising:half.jsonl takes no events and is tried again: ValueError" in run.err
    assert "secret" not in run.err
    summary = json.loads((cli.folder / "film.json").read_text())
    good = {"state": "ok", "delivered": len(events), "undelivered": 0, "behind": 0, "error": ""}
    assert summary["sinks"]["file:all.jsonl"] == good
    assert balanced(summary["cameras"]["film"])


def test_a_recording_ends_when_its_events_are_delivered_or_tells_that_they_are_not(cli: Cli, clip: Path) -> None:
    film = ("run", f"film={clip}", "--policy", "wait", "--journal", "e.db", "--format", "jsonl")
    run = cli.run(*film, "--sink", "file:all.jsonl", "--sink", "file:/dev/full")
    assert (cli.folder / "all.jsonl").read_text() == run.out
    assert run.popen.returncode == 1
    (error,) = run.errors
    assert f"file:/dev/full: {len(run.events)} events wait, and are delivered at the next start: events" in error
    assert cli.run(*film, "--sink", "file:other.jsonl").popen.returncode == 0


@pytest.mark.parametrize("sink", ["stuck:write", "stuck:open", "file:pipe"])
def test_a_sink_that_never_comes_back_delays_nothing(
    sink: str, cli: Cli, short_folder: Path, clip: Path, plugins: dict[str, str]
) -> None:
    os.mkfifo(cli.folder / "pipe")
    run = start(cli, "film", clip, "--bind", f"ipc://{short_folder}", "--sink", sink, **plugins)
    run.until_event("emotion.ended", 2)
    run.until_said(f"the sink {sink} has taken no event for 10 s")
    assert run.stop() == 0
    sound(run.events)
    assert f"sink {sink}: {len(run.events)} events wait, and are delivered at the next start" in run.err
    assert cli.left_over(run, short_folder) == []


def test_a_pipe_gets_its_events_when_somebody_reads(cli: Cli, short_folder: Path, clip: Path) -> None:
    os.mkfifo(cli.folder / "pipe")
    run = start(cli, "film", clip, "--bind", f"ipc://{short_folder}", "--sink", "file:pipe")
    run.until_event("emotion.ended")
    with (cli.folder / "pipe").open() as reader:
        first = json.loads(reader.readline())
        run.signal(signal.SIGTERM)
        rest = [json.loads(line) for line in reader]
    assert run.end() == 0
    assert [first, *rest] == run.events


def test_a_sink_that_cannot_be_opened_is_told_before_anything_starts(cli: Cli, clip: Path) -> None:
    run = cli.run("run", f"film={clip}", "--sink", "file:nowhere/e.jsonl", "--journal", "e.db")
    assert run.popen.returncode == 1
    assert "events cannot be written to 'nowhere/e.jsonl': No such file or directory" in run.errors[0]
    assert not (cli.folder / "e.db").exists()
    assert cli.claims() == []


def test_a_delivery_that_never_starts_is_told(cli: Cli, clip: Path) -> None:
    (cli.folder / "e.db.deliveries.db").write_bytes(b"not a database" * 100)
    run = cli.run("run", f"film={clip}", "--policy", "wait", "--journal", "e.db", "--sink", "file:out.jsonl")
    assert run.popen.returncode == 1
    assert "no sink has got events, which are delivered at the next start: " in run.err
    assert "the record of deliveries e.db.deliveries.db " in run.err
