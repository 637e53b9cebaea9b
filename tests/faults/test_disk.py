"""A disk that is full for a while: the aggregator's limit on file sizes is taken away and given back, from outside."""

from __future__ import annotations

import json
import resource
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from processes import balanced, gapless, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli, Process


class Disk:
    """The disk as the aggregator of a run sees it."""

    def __init__(self, process: Process) -> None:
        self._aggregator = psutil.Process(process.child("aggregator").pid)
        self._before = self._aggregator.rlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        """No file can be written beyond its first byte."""
        self._aggregator.rlimit(resource.RLIMIT_FSIZE, (1, self._before[1]))

    def free(self) -> None:
        self._aggregator.rlimit(resource.RLIMIT_FSIZE, self._before)


@pytest.fixture
def status(cli: Cli, short_folder: Path) -> Any:
    def ask() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            cli.run("status", "--connect", f"ipc://{short_folder}", "--format", "jsonl").out
        )
        return found

    return ask


def start(cli: Cli, short_folder: Path, source: object, *more: object) -> Process:
    return cli.start(
        *("run", f"film={source}", "--format", "jsonl", "--summary", "s.json", "--journal", "events.db"),
        *("--bind", f"ipc://{short_folder}", "--workers", 1, *more),
    )


def test_live_frames_go_on_and_events_are_held(cli: Cli, short_folder: Path, clip: Path, status: Any) -> None:
    process = start(cli, short_folder, clip, "--loop", "--rate", 30)
    process.until_event("emotion.started")
    disk = Disk(process)
    disk.fill()
    process.until(lambda: status()["events_held"] > 3, "events that are held")
    published, done = len(process.events), status()["cameras"]["film"]["ledger"]["done"]
    process.until(lambda: status()["cameras"]["film"]["ledger"]["done"] > done + 20, "frames that go on")
    assert len(process.events) == published, "what is not journaled is not published"
    disk.free()
    process.until(lambda: status()["events_held"] == 0, "a journal that is written again")
    process.until(lambda: len(process.events) > published + 3, "events that come again")
    assert process.stop() == 0
    stored = [
        json.loads(line)
        for line in cli.run("subscribe", "--journal", "events.db", "--format", "jsonl").out.splitlines()
    ]
    assert process.events == stored
    assert gapless(stored)
    assert balanced(json.loads((cli.folder / "s.json").read_text())["cameras"]["film"])
    assert "the journal can be written again" in process.err


def test_under_wait_the_capture_pauses_and_nothing_is_lost(
    cli: Cli, short_folder: Path, clip: Path, status: Any
) -> None:
    undisturbed = cli.run(
        *("run", f"film={clip}", "--policy", "wait", "--rate", 12, "--format", "jsonl", "--journal", "other.db"),
        *("--bind", f"ipc://{short_folder}", "--workers", 1),
    ).out
    process = start(cli, short_folder, clip, "--policy", "wait", "--rate", 12)
    process.until_event("camera.online")
    disk = Disk(process)
    disk.fill()
    process.until(lambda: status()["events_held"] > 0, "events that are held")

    def still() -> bool:
        done = status()["cameras"]["film"]["ledger"]["done"]
        return bool(done == status()["cameras"]["film"]["ledger"]["done"])

    wait_for(still, "a capture that pauses")
    paused = status()["cameras"]["film"]["ledger"]["done"]
    assert paused < 60
    disk.free()
    assert process.end() == 0
    assert process.out == undisturbed
