"""Runs ``fer-stream`` as real processes, reads their output, and ends them by their ids after each test."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 90.0
"""Seconds until a waiting test fails; no test measures this time."""

_random = random.SystemRandom()
"""Not seeded, so that concurrent tests draw different numbers."""


class Process:
    """One ``fer-stream`` command. Its output goes to files, so that it can be read while it runs."""

    def __init__(
        self,
        arguments: list[str],
        folder: Path,
        environment: dict[str, str],
        number: int,
        under: tuple[str, ...] = (),
        module: str = "fer_stream",
    ) -> None:
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                [*under, sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                cwd=folder,
            )
        self.pid = self.popen.pid
        self._seen: set[psutil.Process] = set()

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    @property
    def errors(self) -> list[str]:
        """The error sentences on stderr."""
        return [line for line in self.err.splitlines() if line.startswith("fer-stream: error: ")]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events printed so far as JSON lines, without an incomplete last line."""
        return [json.loads(line) for line in self.out.splitlines(keepends=True) if line.endswith("\n")]

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self, timeout: float = PATIENCE) -> int:
        """Wait for its end and return its exit code."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; stderr:\n{self.err}") from None

    def stop(self) -> int:
        """SIGTERM it, and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.end()

    def until(self, condition: Callable[[], Any], what: str = "what was waited for") -> Any:
        """Wait until ``condition`` holds while the process runs, and return its value."""
        return wait_for(condition, what, lambda: self.popen.poll() is None, lambda: self.err)

    def until_said(self, text: str) -> None:
        """Wait until its log has ``text`` in it."""
        self.until(lambda: text in self.err, repr(text))

    def until_event(self, kind: str, number: int = 1) -> None:
        """Wait until it has printed this many events of a type."""
        self.until(lambda: sum(event["type"] == kind for event in self.events) >= number, kind)

    def children(self) -> list[psutil.Process]:
        """The running child processes; if this process has died, those that an earlier call saw."""
        with suppress(psutil.NoSuchProcess):
            self._seen |= set(psutil.Process(self.pid).children())
        self._seen = {child for child in self._seen if _runs(child)}
        return sorted(self._seen, key=lambda child: child.pid)

    def child(self, title: str) -> psutil.Process:
        """The supervised process with this title, such as ``worker 1``."""

        def find() -> psutil.Process | None:
            return next((child for child in self.children() if _title(child) == f"fer-stream: {title}"), None)

        return self.until(find, title)

    def kill(self) -> None:
        """Kill the process and its children."""
        while self.popen.poll() is None or self.children():
            for child in self.children():
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            self.popen.kill()
            self.popen.wait()


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _title(process: psutil.Process) -> str:
    # Use the command line: setproctitle overwrites it (and the environment) with the title.
    with suppress(psutil.NoSuchProcess):
        return "".join(process.cmdline()[:1])
    return ""


class Cli:
    """Starts commands in ``folder``, which is also their home, with a temporary folder there and a classifier."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.runtime = Path(tempfile.mkdtemp(prefix="f-", dir="/tmp"))  # short, for sockets
        ours = {key: value for key, value in os.environ.items() if not key.startswith(("FER_STREAM_", "XDG_"))}
        self.environment = ours | {
            "XDG_RUNTIME_DIR": str(self.runtime),
            "HOME": str(folder),
            "TMPDIR": str(self.temporary),
            "FER_STREAM_CLASSIFIER__MODEL": str(model),
        }
        self.under: tuple[str, ...] = ()
        """A command that runs the following commands, such as setpriv with its options."""
        self.started: list[Process] = []

    def start(self, *arguments: object, **environment: str) -> Process:
        texts = [str(argument) for argument in arguments]
        process = Process(texts, self.folder, self.environment | environment, len(self.started), self.under)
        self.started.append(process)
        return process

    def start_module(self, module: str, *arguments: object) -> Process:
        """Start a module beside the tests as a program."""
        texts = [str(argument) for argument in arguments]
        environment = self.environment | {"PYTHONPATH": str(Path(__file__).parent)}
        process = Process(texts, self.folder, environment, len(self.started), self.under, module)
        self.started.append(process)
        return process

    def run(self, *arguments: object, **environment: str) -> Process:
        """Start a command and wait for its end."""
        process = self.start(*arguments, **environment)
        process.end()
        assert "Traceback" not in process.err
        return process

    def left_over(self, process: Process, sockets: Path) -> list[object]:
        """Return children, folders and sockets that a run has left behind, except the lock file, which is kept."""
        found = [path for path in (*sockets.glob("*"), *self.claims()) if path.name != "lock"]
        return [*process.children(), *found, *self.temporary.iterdir()]

    def claims(self) -> list[Path]:
        """Return the entries of processes in the runtime folder, except lock files, which are kept."""
        return [path for path in self.runtime.glob("fer_stream/*") if path.suffix != ".lock"]

    def close(self) -> None:
        for process in self.started:
            process.kill()
        shutil.rmtree(self.runtime)


def wait_for(
    condition: Callable[[], Any],
    what: str,
    alive: Callable[[], bool] = lambda: True,
    log: Callable[[], str] = lambda: "",
) -> Any:
    """Wait until ``condition`` returns a true value, and return that value."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        running = alive()
        if value := condition():
            return value
        if not running:
            raise AssertionError(f"it ended before {what}:\n{log()}")
        time.sleep(0.02)
    raise AssertionError(f"never came: {what}\n{log()}")


def free_port() -> int:
    """Return a free port with six free ports after it, as tcp addresses need.

    It is not an ephemeral port: a connection of another test could take one before it is bound.
    """
    while True:
        port = _random.randrange(10_000, 32_000)
        try:
            for each in range(port, port + 7):
                with socket.socket() as sock:
                    sock.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port


def balanced(ledger: dict[str, int]) -> bool:
    """Whether a camera's ledger adds up."""
    terms = ("done", "superseded", "rejected", "expired", "lost_worker", "lost_link", "in_flight")
    reasons = sum(count for term, count in ledger.items() if term.startswith("rejected_"))
    return ledger["captured"] == sum(ledger[term] for term in terms) and ledger["rejected"] == reasons


def gapless(events: list[dict[str, Any]], after: int = 0) -> bool:
    """Whether each camera's sequences increase by one, and the cursors increase by one over all cameras."""
    cameras: dict[str, list[int]] = {}
    for event in events:
        cameras.setdefault(event["source"], []).append(int(event["sequence"]))
    steps = all(b - a == 1 for numbers in cameras.values() for a, b in pairwise(numbers))
    return steps and [int(event["cursor"]) for event in events] == list(range(after + 1, after + 1 + len(events)))


def unclosed(events: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    """Return the keys of cameras, stays and intervals that are still open: ``(camera, family, track)``."""
    found: set[tuple[str, ...]] = set()
    for event in events:
        family, _, what = event["type"].partition(".")
        key = (event["source"], family, event.get("subject", ""))
        if what in ("online", "entered", "started"):
            assert key not in found, f"{key} was open already"
            found.add(key)
        elif what in ("offline", "left", "ended"):
            assert key in found, f"{key} was not open"
            found.remove(key)
    return found
