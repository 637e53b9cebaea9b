"""One supervised process: starts, watches and ends it, and restarts it with exponential backoff."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fer_stream.operations.process import LAST_WORDS, NOTES, REPORTS
from fer_stream.system import handover

if TYPE_CHECKING:
    from pathlib import Path

HEALTHY = 60.0
"""Seconds that a process has to work before its earlier deaths no longer count."""

LONGEST_PAUSE = 32.0
"""Maximum pause in seconds before a failing process is restarted."""

STARTUP = 60.0
"""Seconds that a started process may take to become ready before it counts as silent."""

KILLED = 0.5
"""Seconds to wait for the end of a killed process; a process that hangs in the kernel is abandoned."""

_SIGKILL = 9

_MOST_CODE = 255
"""The highest exit code that our own programs return."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Backoff:
    """The pause before a process is restarted: none after its first death if it had worked, otherwise 1 s.

    The pause doubles with each further death; a healthy minute resets it.
    """

    deaths: int = 0
    """Number of deaths since the process was last healthy for a minute."""

    def died(self, worked: float | None) -> float:
        """Record a death and return the pause in seconds.

        Args:
            worked: seconds for which the process had worked, or ``None`` if it was never ready.
        """
        if worked is not None:
            self.well(worked)
        self.deaths += 1
        if self.deaths == 1 and worked is not None:
            return 0.0
        return min(2.0 ** max(0, self.deaths - 2), LONGEST_PAUSE)

    def well(self, worked: float) -> None:
        """Record that the process has worked for ``worked`` seconds."""
        if worked >= HEALTHY:
            self.deaths = 0


@dataclass(slots=True)
class Child:
    """One supervised process.

    ``arguments`` are the arguments of ``fer-stream``. Its supervisor leaves notes in the folder ``notes``
    (`fer_stream.operations.process.leave_note`).
    """

    title: str
    arguments: list[str]
    notes: Path
    process: subprocess.Popen[bytes] | None = None
    live: bool = False
    """For a capture that was ready: whether its source is live, so that it may come back after a failure."""
    seen: float = 0.0
    """Monotonic time of its last sign of life; after a start, the time until which it may become ready."""
    start_at: float = 0.0
    """Monotonic time of its next restart; 0: none is planned."""
    code: int | None = None
    """Exit code of the last process that ended."""
    optional: bool = False
    """Whether the service goes on, and starts it again, if it fails, even before its present process was ready."""
    was_online: bool = False
    """For a capture: whether its present process has delivered frames."""
    reports: bool = False
    """Whether its process is asked to report how it is."""
    leave_by: float = 0.0
    """Monotonic time until which it has to end, because its camera was changed or removed; 0: it is to stay."""
    _replaced: bool = False
    _last_failure: str = ""
    _ready_since: float | None = None
    _backoff: Backoff = field(default_factory=Backoff)

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def was_ready(self) -> bool:
        """Whether its present process, or else its last one, was ready."""
        return self._ready_since is not None

    @property
    def failing(self) -> bool:
        """Whether it has died more than once since it was last healthy for a minute."""
        return self._backoff.deaths > 1

    @property
    def words(self) -> Path:
        """The file to which its process writes why it fails, or what it tries to overcome."""
        return self.notes / f"{self.title}.txt"

    def report(self, age: float) -> dict[str, Any] | None:
        """Return the latest report of its present process, if it is at most ``age`` seconds old."""
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(self._report.read_bytes())
            if self.process is not None and found["pid"] == self.process.pid and time.monotonic() - found["at"] <= age:
                return found
        return None

    @property
    def _report(self) -> Path:
        return self.notes / f"{self.title}.json"

    @property
    def finished(self) -> bool:
        """Whether it has ended and is not started again."""
        return self.process is None and not self.start_at

    def trouble(self) -> str:
        """Return why it does not work now, or an empty text."""
        try:
            return self.words.read_text(encoding="utf-8")
        except OSError:
            return "" if self.was_online else self._last_failure

    def failure(self) -> str:
        """Return its own message of why it failed, or else its exit code."""
        try:
            return self.words.read_text(encoding="utf-8")
        except OSError:  # it wrote no message, for example because a signal killed it
            return f"{self.title} ended with exit code {self.code}"

    def start(self, settings: handover.Handover, inherited: tuple[int, ...]) -> None:
        """Start its process.

        Args:
            settings: the settings (`fer_stream.settings.tree.save`).
            inherited: further descriptors that the process keeps open, where it can.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FER_STREAM_")}
        environment |= {
            "FER_STREAM_PROCESS": self.title,
            LAST_WORDS: str(self.words),
            NOTES: str(self.notes),
        }
        if self.reports:
            environment[REPORTS] = self.title
        self.forget()
        self.process = settings.start(self.arguments, environment, inherited)
        self.start_at, self._ready_since, self.code, self.was_online = 0.0, None, None, False
        self._replaced = False
        self.seen = time.monotonic() + STARTUP

    def forget(self) -> None:
        """Delete what its process has written."""
        for path in (self.words, self._report):
            path.unlink(missing_ok=True)

    def ready(self, now: float) -> None:
        """Record that the process works now."""
        self.seen = now
        if self._ready_since is None:
            self._ready_since = now
        self._backoff.well(now - self._ready_since)

    def ended(self) -> int | None:
        """Return the exit code if the process has ended since the last call, else ``None``."""
        if self.process is None or (code := self._code()) is None:
            return None
        handover.release(self.process)
        self.process, self.code = None, code
        return code

    @property
    def killed(self) -> bool:
        """Whether something has killed its present process."""
        return self.process is not None and (self._code() or 0) < 0

    def _code(self) -> int | None:
        """Return the exit code of its process, which is negative if that was killed; ``None`` while it runs."""
        code = self.process.poll() if self.process is not None else None
        if code and code > 0 and not hasattr(signal, "SIGKILL"):
            # Windows: a killed process has the code that its killer gives it, Python's is 1; a crashed one has 0xC...
            return -_SIGKILL if self._replaced or code > _MOST_CODE else code
        return code

    def replace(self) -> None:
        """Kill its process; `ended` returns that, and it can be started again."""
        if self.process is not None:
            self._replaced = True
            self.process.kill()

    def again(self, now: float, reason: str = "") -> None:
        """Plan a restart after the backoff's pause; ``reason`` is by default its `failure`."""
        pause = self._backoff.died(None if self._ready_since is None else now - self._ready_since)
        self.start_at = now + pause
        self._last_failure = reason or self.failure()
        _log.warning("%s is started again in %g s: %s", self.title, pause, self._last_failure)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), and do not restart it."""
        self.start_at = 0.0
        if self.running and self.process:
            handover.ask_to_end(self.process)

    def kill(self) -> None:
        """Kill it (SIGKILL), and do not restart it."""
        self.start_at = 0.0
        if self.process is None:
            return
        if self.running:
            self.replace()
        try:
            self.process.wait(KILLED)
            self.code = self._code()
        except subprocess.TimeoutExpired:
            self.code = -_SIGKILL
            _log.error("%s hangs in the kernel and is abandoned", self.title, extra={"pid": self.process.pid})
        handover.release(self.process)
        self.process = None
