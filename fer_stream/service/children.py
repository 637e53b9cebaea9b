"""One supervised process: started, watched, ended, and started again after pauses that grow while it fails."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fer_stream.operations.process import DELIVERIES, LAST_WORDS, PARENT

if TYPE_CHECKING:
    from pathlib import Path

HEALTHY = 60.0
"""Seconds that a process has to work before its earlier deaths are forgotten."""

LONGEST_PAUSE = 32.0
"""Seconds before a process that keeps failing is started again, at most."""

STARTUP = 60.0
"""Seconds that a process may take until it is ready before it counts as silent."""

KILLED = 0.5
"""Seconds to wait for the end of a process that was killed; one that hangs in the kernel is left behind."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Backoff:
    """How long to wait before a process is started again: at first not at all, if it had worked; then 1 s.

    The pause doubles with each death; a healthy minute resets it.
    """

    deaths: int = 0
    """Since it was last healthy for a minute."""

    def died(self, worked: float | None) -> float:
        """Return the pause in seconds. ``worked``: seconds that it had worked, ``None`` if it was never ready."""
        if worked is not None:
            self.well(worked)
        self.deaths += 1
        if self.deaths == 1 and worked is not None:
            return 0.0
        return min(2.0 ** max(0, self.deaths - 2), LONGEST_PAUSE)

    def well(self, worked: float) -> None:
        """Record that the process has worked for so many seconds."""
        if worked >= HEALTHY:
            self.deaths = 0


@dataclass(slots=True)
class Child:
    """One supervised process.

    ``arguments`` are those of ``fer-stream``. A process that fails writes the reason to the file ``words``. In the file
    ``deliveries`` it reads the states of the sinks.
    """

    title: str
    arguments: list[str]
    words: Path
    deliveries: Path
    process: subprocess.Popen[bytes] | None = None
    live: bool = False
    """Of a capture that was ready: whether what it opened is a camera, which may come back."""
    seen: float = 0.0
    """When it last gave a sign of life."""
    start_at: float = 0.0
    """When it is to be started again; 0: it is not."""
    code: int | None = None
    _ready_since: float | None = None
    _backoff: Backoff = field(default_factory=Backoff)

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.poll() is None

    @property
    def was_ready(self) -> bool:
        """Whether the process that runs, or the last one, has worked."""
        return self._ready_since is not None

    @property
    def failing(self) -> bool:
        """Whether it has died more than once and was not healthy for a minute since."""
        return self._backoff.deaths > 1

    def said(self) -> str:
        """Return its own message of why it failed."""
        try:
            return self.words.read_text(encoding="utf-8")
        except OSError:  # it had no time for any
            return f"{self.title} ended with {self.code}"

    def start(self, settings: int, inherited: tuple[int, ...]) -> None:
        """Start its process.

        Args:
            settings: the descriptor of the settings.
            inherited: further descriptors that it keeps open.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FER_STREAM_")}
        environment |= {
            PARENT: str(os.getpid()),
            "FER_STREAM_PROCESS": self.title,
            LAST_WORDS: str(self.words),
            DELIVERIES: str(self.deliveries),
        }
        self.words.unlink(missing_ok=True)
        # A session of its own: Ctrl-C and the end of the terminal come to us alone, and we end the children in order.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fer_stream", *self.arguments, "--config", f"/dev/fd/{settings}"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(settings, *inherited),
        )
        self.start_at, self._ready_since, self.code = 0.0, None, None
        self.seen = time.monotonic() + STARTUP

    def ready(self, now: float) -> None:
        """Record that the process works now."""
        self.seen = now
        if self._ready_since is None:
            self._ready_since = now
        self._backoff.well(now - self._ready_since)

    def ended(self) -> int | None:
        """Return the exit code of a process that has ended since the last call, or ``None``."""
        code = self.process.poll() if self.process is not None else None
        if code is not None:
            self.process, self.code = None, code
        return code

    def again(self, now: float) -> None:
        """Have it started again when its pause is over."""
        pause = self._backoff.died(None if self._ready_since is None else now - self._ready_since)
        self.start_at = now + pause
        _log.warning("%s is started again in %g s: %s", self.title, pause, self.said())

    def terminate(self) -> None:
        """Ask it to end, and do not start it again."""
        self.start_at = 0.0
        if self.running and self.process:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, and do not start it again."""
        self.start_at = 0.0
        if self.process is None:
            return
        if self.running:
            self.process.kill()
        try:
            self.code = self.process.wait(KILLED)
        except subprocess.TimeoutExpired:
            self.code = -signal.SIGKILL
            _log.error("%s hangs in the kernel and is left behind", self.title, extra={"pid": self.process.pid})
        self.process = None
