"""Show a cell on this machine: three NATS servers, two aggregators, four workers, six cameras.

    make fleet

The cell's two nodes stand for two machines. One aggregator is killed. At the end all events are read, and none may be
missing. A real cell has encrypted links and keys: docs/how-to/fleet.md.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

CAMERAS = [f"camera-{number}" for number in range(1, 7)]
PATIENCE = 120.0
BIN = Path(sys.executable).parent


class Show:
    """The processes of the cell. Their logs are in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.servers = [free_port() for _ in range(3)]
        self.addresses = [f"tcp://127.0.0.1:{free_port()}" for _ in range(2)]
        self.settings = folder / "cell.toml"
        self.settings.write_text(
            f'[fleet]\ncell = "show"\npartitions = 12\n[journal]\npath = "nats://'
            f'{",".join(f"127.0.0.1:{port}" for port in self.servers)}"\n[deployment]\npurpose = "research"\n'
        )

    def start(self, name: str, *command: object) -> subprocess.Popen[bytes]:
        """Start a process."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([str(each) for each in command], stdout=log, stderr=log, start_new_session=True)
        self.processes.append(process)
        return process

    def fer_stream(self, *arguments: object) -> str:
        """Run a command to its end, and return what it prints."""
        command = [str(BIN / "fer-stream"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
        return done.stdout

    def start_servers(self) -> None:
        """Start three NATS servers that hold a copy of everything each."""
        routes = [free_port() for _ in self.servers]
        peers = ", ".join(f"nats-route://127.0.0.1:{port}" for port in routes)
        for number, (port, route) in enumerate(zip(self.servers, routes, strict=True), 1):
            file = self.folder / f"nats-{number}.conf"
            file.write_text(
                f"server_name: n{number}\nlisten: 127.0.0.1:{port}\n"
                f'jetstream {{ store_dir: "{self.folder}/n{number}" }}\n'
                f"cluster {{ name: show, listen: 127.0.0.1:{route}, routes: [{peers}] }}\n"
            )
            self.start(f"nats-{number}", BIN / "nats-server", "-c", file)

    def start_node(self, number: int) -> subprocess.Popen[bytes]:
        """Start a node with an aggregator and two workers."""
        return self.start(
            f"node-{number}",
            *(BIN / "fer-stream", "node", "--config", self.settings, "--machine", f"machine-{number}"),
            *("--bind", self.addresses[number - 1], "--workers", 2),
        )

    def status(self) -> dict[str, Any]:
        """Return the status of the whole cell, as any of its aggregators tells it."""
        command = [str(BIN / "fer-stream"), "status", "--connect", ",".join(self.addresses), "--format", "jsonl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    def until(self, what: str, condition: Any) -> dict[str, Any]:
        """Wait until the status fulfils a condition, and return it."""
        begin = time.monotonic()
        while time.monotonic() - begin < PATIENCE:
            status = self.status()
            if status and condition(status):
                say(f"{what} (after {time.monotonic() - begin:.0f} s)")
                return status
            time.sleep(0.5)
        raise SystemExit(f"it never came: {what}; the logs are in {self.folder}")

    def kill_an_aggregator(self) -> None:
        """Kill the aggregator of the second node."""
        children = Path(f"/proc/{self.processes[-1].pid}/task/{self.processes[-1].pid}/children").read_text().split()
        for child in map(int, children):
            if b"aggregator" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)
                return
        raise SystemExit(f"the second node has no aggregator; the logs are in {self.folder}")

    def close(self) -> None:
        """End everything, in the opposite order."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    """Return a port with five free ones after it."""
    while True:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = int(found.getsockname()[1])
        with suppress(OSError, OverflowError):
            for each in range(port, port + 6):
                with socket.socket() as tried:
                    tried.bind(("127.0.0.1", each))
            return port


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def online(status: dict[str, Any]) -> bool:
    """Return whether all cameras deliver frames."""
    return sum(camera["state"] == "online" for camera in status["cameras"].values()) == len(CAMERAS)


def check(events: list[dict[str, Any]]) -> None:
    """Say for each camera how many events there are, and that none is missing."""
    for name in CAMERAS:
        numbers = [int(event["sequence"]) for event in events if event["source"] == f"/cameras/{name}"]
        whole = numbers[:1] == [1] and all(later == number + 1 for number, later in pairwise(numbers))
        say(f"  {name}: {len(numbers)} events, {'without a gap' if whole else 'WITH A GAP'}")
        if not whole:
            raise SystemExit(1)
    if len({event["id"] for event in events}) != len(events):
        raise SystemExit("an event is there twice")


def main() -> None:
    """Show it."""
    with tempfile.TemporaryDirectory() as folder:
        show = Show(Path(folder))
        try:
            say("starting three NATS servers, and two nodes with an aggregator and two workers each")
            show.start_servers()
            for number in (1, 2):
                show.start_node(number)
            for name in CAMERAS:
                show.fer_stream(
                    *("cameras", "add", name, "demo", "--loop", "--rate", 5, "--machine", "*"),
                    *("--config", show.settings, "--timeout", 60),
                )
            status = show.until("six cameras are online", online)
            say(show.fer_stream("status", "--connect", ",".join(show.addresses)))
            show.kill_an_aggregator()
            say("the aggregator of the second node was killed (kill -9)")
            before = {name: camera["ledger"]["done"] for name, camera in status["cameras"].items()}
            show.until(
                "frames of all cameras are processed again",
                lambda status: (
                    online(status)
                    and all(camera["ledger"]["done"] > before[name] for name, camera in status["cameras"].items())
                ),
            )
            where = ("--connect", ",".join(show.addresses), "--from", 0, "--until-now", "--format", "jsonl")
            events = [json.loads(line) for line in show.fer_stream("subscribe", *where).splitlines()]
            say("all events of the cell:")
            check(events)
        finally:
            show.close()


if __name__ == "__main__":
    main()
