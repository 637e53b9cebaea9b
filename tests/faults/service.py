"""A ``fer-stream run`` for fault tests: its status, and the invariants at its end."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from processes import PATIENCE, balanced, gapless, unclosed, wait_for

from fer_stream.client import status
from fer_stream.errors import TransportError
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psutil
    from processes import Cli, Process


SLOWLY = ("--policy", "wait", "--rate", 10)
"""Options with which the clip's 60 frames take six seconds, so that a fault can happen during the run."""


STEADY = {"FER_STREAM_DISPATCH__SILENCE": "60"}
"""A long silence limit: a slow machine must not make peers count as silent."""


def standing(address: str, timeout: float = 1.0) -> dict[str, Any] | None:
    """Return the status of the aggregator at an address; ``None`` if none answers."""
    try:
        return status(Settings(address=address), timeout)
    except TransportError:
        return None


def stored(cli: Cli, journal: str = "events.db") -> list[dict[str, Any]]:
    """Return all events in a journal."""
    return cli.run("subscribe", "--journal", journal, "--format", "jsonl").events


def sound(events: list[dict[str, Any]]) -> None:
    """Check that no event is missing or duplicated, and that everything that began has ended."""
    assert gapless(events)
    assert not unclosed(events)
    assert len({event["id"] for event in events}) == len(events)


def megabytes(processes: list[psutil.Process]) -> float:
    return sum(process.memory_info().rss for process in processes) / 1e6


def descriptors(processes: list[psutil.Process]) -> int:
    return sum(process.num_fds() for process in processes)


class Service:
    """One camera, ``film``, and the processes of a run."""

    def __init__(
        self, cli: Cli, folder: Path, source: object, *more: object, workers: int = 2, **environment: str
    ) -> None:
        self.cli = cli
        self.folder = folder
        self.address = f"ipc://{folder}"
        self.run: Process = cli.start(
            *("run", f"film={source}", "--format", "jsonl", "--summary", "s.json", "--journal", "events.db"),
            *("--bind", self.address, "--workers", workers, *more),
            **environment,
        )

    def until(self, condition: Callable[[], Any], what: str) -> float:
        """Wait until something holds, and return how many seconds that took."""
        begin = time.monotonic()
        self.run.until(condition, what)
        return time.monotonic() - begin

    def started(self) -> bool:
        """Whether the run has begun to start its children."""
        return any(self.cli.runtime.glob("fer_stream/run-*/metrics"))

    def until_workers(self, count: int) -> None:
        self.until(lambda: len(self.status()["workers"]) == count, f"{count} workers")

    def status(self) -> dict[str, Any]:
        """Return the aggregator's status; wait until an aggregator answers."""
        found: dict[str, Any] = wait_for(
            lambda: standing(self.address), "an answer", lambda: self.run.popen.poll() is None, lambda: self.run.err
        )
        return found

    def ledger(self) -> dict[str, int]:
        found: dict[str, int] = self.status()["cameras"].get("film", {"ledger": {}})["ledger"]
        return found

    def done(self) -> int:
        return self.ledger().get("done", 0)

    def pause(self, child: str) -> float:
        """Return the pause before the child's latest restart; it grows if the child keeps dying."""
        pauses = re.findall(rf"{child} is started again in ([\d.]+) s", self.run.err)
        return float(pauses[-1]) if pauses else 0.0

    def pid(self, worker: str) -> int:
        """Return the worker's process id in the status, or 0 if it is not there."""
        pid: int = self.status()["workers"].get(worker, {"pid": 0})["pid"]
        return pid

    def end(self, *, stop: bool = True) -> tuple[dict[str, int], list[dict[str, Any]]]:
        """Stop the run, or wait for its end; check the invariants; return the ledger and the events."""
        code = self.run.stop() if stop else self.run.end(max(PATIENCE, 600))
        assert code == 0, self.run.err
        assert "Traceback" not in self.run.err
        ledger: dict[str, int] = json.loads((self.cli.folder / "s.json").read_text())["cameras"]["film"]
        assert balanced(ledger), ledger
        assert ledger["in_flight"] == 0
        assert not self.cli.left_over(self.run, self.folder)
        events = self.run.events
        sound(events)
        return ledger, events
