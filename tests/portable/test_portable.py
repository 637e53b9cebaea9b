"""The real commands where Linux's own calls are missing, as on macOS and Windows (`elsewhere/sitecustomize.py`).

This shows that the portable ways work, and give the same events; it does not show that those systems work.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from processes import balanced, free_port, gapless, unclosed, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from processes import Cli, Process

ELSEWHERE = {"PYTHONPATH": str(Path(__file__).parent / "elsewhere")}


ROTATING = """
[deliver.all]
sink = "file:all.jsonl"
options = { max_mib = 0.0001 }
"""

READING = """
import asyncio, fer_stream, sys

async def read():
    with fer_stream.subscribe(after=0) as events:
        async for event in events:
            print(event.type, flush=True)
            if event.type == "face.entered":
                return

asyncio.run(read())
"""


@pytest.fixture(params=["macos", "windows"])
def system(request: pytest.FixtureRequest, cli: Cli) -> Iterator[str]:
    """A system; while the test runs, commands find what it has, unless they are given ``ELSEWHERE=""``."""
    cli.environment |= ELSEWHERE | {"ELSEWHERE": request.param}
    yield request.param
    assert not [process.err for process in cli.started if "Traceback" in process.err or "sitecustomize" in process.err]


def ledgers(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())["cameras"]


def ready(cli: Cli, process: Process) -> dict[str, Any]:
    """Wait until a service answers and has a worker and a camera, and return its status."""

    def look() -> dict[str, Any] | None:
        answer = cli.run("status", "--format", "jsonl")
        found = json.loads(answer.out) if not answer.popen.returncode else {}
        return found if found.get("workers") and found.get("cameras") else None

    return process.until(look, "a working service")


def test_a_run_gives_the_same_events(system: str, cli: Cli, clip: Path, tmp_path: Path) -> None:
    def run(name: str, **environment: str) -> Process:
        process = cli.run(
            "run", clip, "--policy", "wait", "--workers", 2, "--format", "jsonl", "--journal", f"{name}.db",
            "--sink", f"file:{name}.jsonl", "--summary", f"{name}.json", **environment,
        )  # fmt: skip
        assert process.end() == 0, process.err
        return process

    here, there = run("here", ELSEWHERE=""), run("there")
    assert there.out == here.out
    assert len(there.events) > 4
    assert (tmp_path / "there.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes() == here.out.encode()
    assert ledgers(tmp_path / "there.json") == ledgers(tmp_path / "here.json")
    assert ("ipc://" if system == "macos" else "tcp://127.0.0.1:") in there.err
    assert not [path for path in cli.claims() if path.name.startswith(("run-", "service-"))]

    read = cli.run("subscribe", "--journal", "there.db", "--format", "jsonl")
    assert read.out == here.out
    assert cli.run("stats", "--journal", "there.db").out == cli.run("stats", "--journal", "here.db").out != ""
    assert cli.run("purge", "--journal", "there.db", "--older-than", "1s").end() == 0


def test_roles_that_are_started_one_by_one(system: str, cli: Cli, clip: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}" if system == "windows" else f"ipc://{cli.runtime}/a"
    aggregator = cli.start("aggregator", "--bind", address, "--journal", "a.db")
    worker = cli.start("worker", "--connect", address)
    reader = cli.start("subscribe", "--connect", address, "--from", 0, "--format", "jsonl")
    capture = cli.start("capture", clip, "--camera", "film", "--policy", "wait", "--connect", address)
    assert capture.end() == 0, capture.err
    reader.until_event("camera.offline")
    for process in (reader, worker, aggregator):
        process.signal(signal.SIGINT)
        assert process.end() == 0, process.err
    assert gapless(reader.events)
    assert not unclosed(reader.events)
    assert cli.run("subscribe", "--journal", "a.db", "--format", "jsonl").out == reader.out


def test_a_service_is_commanded_and_ends_in_order(system: str, cli: Cli, tmp_path: Path) -> None:
    run = cli.start(
        "run", "demo", "--loop", "--workers", 1, "--summary", "s.json", "--journal", "a.db", "--format", "jsonl"
    )
    ready(cli, run)
    assert cli.run("cameras", "add", "second", "demo").end() == 0
    run.until(lambda: "second" in cli.run("status").out, "the second camera")
    assert "second" in cli.run("cameras", "list").out
    assert cli.run("cameras", "remove", "second").end() == 0
    assert (cli.runtime / "fer_stream/run-1/calls").is_socket() == (system == "macos")

    (cli.folder / "reading.py").write_text(READING)
    reader = subprocess.run(
        [sys.executable, "reading.py"], cwd=cli.folder, env=cli.environment, capture_output=True, text=True, check=False
    )
    assert reader.returncode == 0, reader.stderr
    assert reader.stdout.splitlines()[0] == "camera.online"

    first = run.child("worker 1").pid
    run.child("worker 1").kill()
    run.until(lambda: run.child("worker 1").pid != first, "another worker")
    run.until(lambda: [worker["pid"] for worker in ready(cli, run)["workers"].values()] != [first], "its greeting")

    run.signal(signal.SIGINT)
    assert run.end() == 0, run.err
    assert "is killed" not in run.err
    assert all(balanced(ledger) for ledger in ledgers(tmp_path / "s.json").values())
    assert gapless(run.events)
    assert not unclosed(run.events)


def test_the_children_end_when_their_supervisor_was_killed(system: str, cli: Cli) -> None:
    run = cli.start("run", "demo", "--loop", "--workers", 1)
    ready(cli, run)
    assert len(run.children()) == 3
    run.popen.kill()
    run.popen.wait()
    wait_for(lambda: not run.children(), "the end of the children")
    assert cli.run("status").end() != 0, "it is not listed any more"
    assert not [path for path in cli.claims() if path.name.startswith(("run-", "service-"))]


def test_a_file_of_events_is_set_aside(system: str, cli: Cli, clip: Path) -> None:
    (cli.folder / "settings.toml").write_text(ROTATING)
    run = cli.run(
        "run", clip, "--policy", "wait", "--format", "jsonl", "--config", "settings.toml", "--journal", "a.db"
    )
    assert run.end() == 0, run.err
    files = sorted(cli.folder.glob("all-*.jsonl"))
    assert files, "each batch has its own file"
    assert "".join(path.read_text() for path in (*files, cli.folder / "all.jsonl")) == run.out


def test_what_is_in_use_is_refused(system: str, cli: Cli) -> None:
    first = cli.start("run", "demo", "--loop", "--workers", 1, "--journal", "a.db", "--sink", "file:a.jsonl")
    ready(cli, first)
    second = cli.run("run", "demo", "--workers", 1, "--journal", "a.db")
    assert second.end() == 1
    assert "is in use by another aggregator" in second.errors[0]
    third = cli.start("run", "demo", "--loop", "--workers", 1, "--journal", "b.db")
    found = third.until(lambda: cli.run("status").errors, "two services")
    assert "2 services of yours run here" in found[0]
    third.signal(signal.SIGINT)
    assert third.end() == 0


def test_no_file_has_a_password(system: str, cli: Cli) -> None:
    run = cli.start("run", "door=rtsp://user:passw0rd@127.0.0.1:9/x", "--workers", 1, "--journal", "a.db")
    run.until_said("worker 1 is here")
    files = [path for folder in (cli.folder, cli.runtime) for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"passw0rd" in path.read_bytes()]


def test_a_recording_is_analysed_the_same(system: str, cli: Cli, clip: Path, tmp_path: Path) -> None:
    for name, environment in (("here", {"ELSEWHERE": ""}), ("there", {})):
        process = cli.run("analyze", clip, "--output", name, "--workers", 2, **environment)
        assert process.end() == 0, process.err
    here, there = (sorted((tmp_path / name).iterdir()) for name in ("here", "there"))
    assert [path.name for path in there] == [path.name for path in here]
    same = {path.name for path in here} - {"summary.json"}  # it says how long the analysis took
    assert {"events.jsonl"} <= same
    for one, other in zip(here, there, strict=True):
        if one.suffix in (".jsonl", ".csv"):
            assert other.read_bytes() == one.read_bytes(), one.name
    assert cli.run("analyze", clip, "--output", "there", "--workers", 2).end() == 0


def test_the_doctor_finds_nothing_missing(system: str, cli: Cli) -> None:
    doctor = cli.run("doctor")
    assert doctor.end() == 0, doctor.out + doctor.err
    assert ("ipc://" if system == "macos" else "tcp://127.0.0.1:") in doctor.out
