"""A ``fer-stream run`` whose cameras are changed while it runs."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from faults.service import sound, standing
from processes import balanced, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli, Process


class Running:
    """A run with the journal ``events.db``, and the commands that change its cameras."""

    def __init__(self, cli: Cli, *arguments: object, **environment: str) -> None:
        self.cli = cli
        self.arguments = arguments
        self.run: Process = cli.start(
            *("run", *arguments, "--workers", 1, "--format", "jsonl", "--journal", "events.db", "--summary", "s.json"),
            **environment,
        )
        wait_for(self.calls, "the service", lambda: self.run.popen.poll() is None, lambda: self.run.err)

    def calls(self) -> list[Path]:
        notes = self.cli.runtime.glob("fer_stream/service-*/about.json")
        return [path for path in notes if json.loads(path.read_text())["pid"] == self.run.pid]

    def cameras(self, *arguments: object, code: int = 0) -> Process:
        """Run ``fer-stream cameras ...``, and check its exit code."""
        process = self.cli.run("cameras", *arguments)
        assert process.popen.returncode == code, process.err
        return process

    def listed(self) -> dict[str, dict[str, Any]]:
        return {camera["camera"]: camera for camera in self.cameras("list", "--format", "jsonl").events}

    def until(self, camera: str, state: str) -> dict[str, Any]:
        """Wait until a camera has a state, and return its entry."""
        self.run.until(lambda: self.listed().get(camera, {"state": ""})["state"] == state, f"{camera} {state}")
        return self.listed()[camera]

    def status(self) -> dict[str, Any]:
        (about,) = self.calls()
        return standing(json.loads(about.read_text())["address"], 10.0) or {"cameras": {}}

    def ledger(self, camera: str) -> dict[str, int]:
        found: dict[str, int] = self.status()["cameras"][camera]["ledger"]
        return found

    def restart(self) -> Running:
        return Running(self.cli, *self.arguments)

    def end(self) -> tuple[dict[str, dict[str, int]], list[dict[str, Any]]]:
        """Stop the run, check the invariants, and return the ledgers and the events."""
        assert self.run.stop() == 0, self.run.err
        assert "Traceback" not in self.run.err
        ledgers: dict[str, dict[str, int]] = json.loads((self.cli.folder / "s.json").read_text())["cameras"]
        for ledger in ledgers.values():
            assert balanced(ledger), ledgers
            assert ledger["in_flight"] == 0
        assert not self.run.children()
        assert self.cli.claims() == [], [list(path.iterdir()) for path in self.cli.claims()]
        lines = self.cli.run("subscribe", "--journal", "events.db", "--format", "jsonl").events
        sound(lines)
        return ledgers, lines


def of(events: list[dict[str, Any]], camera: str, kind: str = "") -> list[dict[str, Any]]:
    """The events of one camera, and of one type."""
    return [event for event in events if event["source"] == f"/cameras/{camera}" and kind in ("", event["type"])]


def page(port: int) -> str:
    """The metrics that are served at a port, or an empty text."""
    with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
    return ""
