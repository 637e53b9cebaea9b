"""Journals, a receiver in a process of its own, and `fer-stream deliver` with the sink that speaks to it."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import event_receiver
from journals import resets
from processes import free_port, wait_for

from fer_stream.journal.sqlite import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from processes import Cli, Process


class Bench:
    """A journal, a receiver, and deliveries from the one to the other."""

    def __init__(self, cli: Cli) -> None:
        self.cli, self.folder = cli, cli.folder
        self.variables = event_receiver.install(cli.folder)
        self.port = free_port()
        self.receiver: Process | None = None

    def journal(self, *cameras: str, events: int = 100, first: int = 1) -> list[dict[str, Any]]:
        """Write events of each camera into the journal, and return them as a reader gets them."""
        with_all = [resets(events, camera, first) for camera in cameras or ("door",)]
        mixed = [one for several in zip(*with_all, strict=True) for one in several]
        writer = Writer(self.folder / "e.db")
        for begin in range(0, len(mixed), 500):
            writer.append(mixed[begin : begin + 500])
        writer.close()
        return self.journaled()

    def journaled(self) -> list[dict[str, Any]]:
        run = self.cli.run("subscribe", "--journal", "e.db", "--format", "jsonl")
        return run.events

    def receive(self) -> Process:
        """Start the receiver."""
        self.receiver = self.cli.start_module("event_receiver", self.port, self.folder / "got.jsonl")

        def listening() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False

        wait_for(listening, "the receiver")
        return self.receiver

    def order(self, **what: Any) -> None:
        """Tell the receiver what to answer from now on."""
        path = self.folder / "got.jsonl.orders"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(what))
        fresh.replace(path)

    def settings(self, **sinks: dict[str, Any]) -> None:
        """Write the settings file ``s.toml`` with these sinks; by default each begins at the beginning."""
        lines = []
        for name, values in sinks.items():
            lines.append(f"[deliver.{name}]")
            for key, value in ({"begin": "beginning"} | values).items():
                text = json.dumps(value) if not isinstance(value, dict) else None
                options = ", ".join(f"{one} = {json.dumps(it)}" for one, it in value.items()) if text is None else ""
                lines.append(f"{key} = {text}" if text is not None else f"{key} = {{ {options} }}")
        (self.folder / "s.toml").write_text("\n".join(lines) + "\n")

    def deliver(self, *arguments: object) -> Process:
        """Start delivering from the journal."""
        return self.cli.start("deliver", "--config", "s.toml", "--journal", "e.db", *arguments, **self.variables)

    def manage(self, *arguments: object) -> Process:
        """Run a command such as ``deliver status``."""
        return self.cli.run("deliver", *arguments, "--journal", "e.db", **self.variables)

    def states(self) -> dict[str, dict[str, Any]]:
        run = self.manage("status", "--format", "jsonl")
        return {one["name"]: one for one in run.events}

    def got(self, name: str = "got.jsonl") -> list[dict[str, Any]]:
        """Return what a file has received; its last line may be incomplete."""
        path = self.folder / name
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def ids(events: Iterable[dict[str, Any]]) -> list[str]:
    return [event["id"] for event in events]


def without_repeats(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events in the order in which they came first. A repeat must be the same event."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        assert found.setdefault(event["id"], event) == event
    return list(found.values())
