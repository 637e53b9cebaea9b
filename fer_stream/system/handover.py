"""How a supervisor gives its child processes their settings, asks them to end, and shows that it is alive.

On Linux the settings are an anonymous memory file, which the child opens as ``/dev/fd/N``. SIGTERM asks the child to
end. If the supervisor dies, the child gets another parent.

Elsewhere the child's standard input is a pipe. Its first line has the settings, a line ``end`` asks the child to end,
and if the supervisor dies, the pipe is closed. So passwords are in no file there either, and no signal is needed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from fer_stream.system.signals import end_this_process

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PARENT = "FER_STREAM_PARENT"
"""The environment variable with the supervisor's process id, set for its children."""

_STDIN = "-"
"""Stands for the first line of standard input in place of a settings file, in a supervised process only."""

_END = b"end\n"

_lost: threading.Event | None = None
"""In a child with a pipe to its supervisor: set when the supervisor has died."""


class Handover:
    """Settings, as JSON, for processes that this one starts, until `close`. They are stored nowhere."""

    def __init__(self, text: str) -> None:
        self._text, self._memory = text, -1
        if hasattr(os, "memfd_create"):
            self._memory = os.memfd_create("fer_stream_settings")
            with os.fdopen(os.dup(self._memory), "w", encoding="utf-8") as stream:
                stream.write(text)

    @property
    def argument(self) -> str:
        """What a child reads in place of a settings file."""
        return _STDIN if self._memory < 0 else f"/dev/fd/{self._memory}"

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], inherited: tuple[int, ...]
    ) -> subprocess.Popen[bytes]:
        """Start ``fer-stream`` with these settings, without a terminal and without output.

        Args:
            arguments: the command and its arguments.
            environment: all variables except `PARENT`.
            inherited: further descriptors that the process keeps open, where it can.

        Raises:
            OSError: no process can be started.
        """
        import subprocess  # noqa: PLC0415  (slow, and `fer-stream --help` needs none)

        # A new session, or on Windows a group: Ctrl-C and the terminal's end reach only the supervisor, which ends the
        # children in order.
        options: dict[str, Any] = {"start_new_session": True, "stdout": subprocess.DEVNULL}
        options["creationflags"] = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        if hasattr(os, "fork"):
            options["pass_fds"] = inherited if self._memory < 0 else (self._memory, *inherited)
        options["stdin"] = subprocess.PIPE if self._memory < 0 else subprocess.DEVNULL
        python, environment = sys.executable, {**environment, PARENT: str(os.getpid())}
        if sys.platform == "win32":  # python.exe of a virtual environment starts the real one: its id is another
            python = getattr(sys, "_base_executable", python)
            environment["__PYVENV_LAUNCHER__"] = sys.executable
        command = [python, "-m", "fer_stream", *arguments, "--config", self.argument]
        process = subprocess.Popen(command, env=environment, **options)
        if process.stdin is not None:
            _say(process, self._text.encode() + b"\n")
        return process

    def close(self) -> None:
        """Release the settings; processes that were started keep them. A second call does nothing."""
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1


def ask_to_end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process that `Handover.start` has started to end in order."""
    if process.stdin is None:
        process.send_signal(signal.SIGTERM)
    else:
        _say(process, _END)


def release(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe to a process that has ended."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def _say(process: subprocess.Popen[bytes], text: bytes) -> None:
    def write() -> None:
        with suppress(OSError, ValueError):  # it has ended
            if process.stdin is not None:
                process.stdin.write(text)
                process.stdin.flush()

    threading.Thread(target=write, name="handover", daemon=True).start()  # a child may be slow to read


def received(file: Path) -> str | None:
    """Return the settings from the supervisor's pipe if ``file`` stands for it; ``None`` for any other file."""
    return _first_line() if str(file) == _STDIN and PARENT in os.environ else None


@cache
def _first_line() -> str:
    global _lost  # noqa: PLW0603
    found = b""
    while b"\n" not in found and (part := os.read(0, 65_536)):
        found += part
    text, _, rest = found.partition(b"\n")
    _lost = threading.Event()
    threading.Thread(target=_listen, args=(_lost, rest), name="supervisor", daemon=True).start()
    return text.decode()


def _listen(lost: threading.Event, text: bytes) -> None:
    """Read from the pipe until it ends. Not from ``sys.stdin``, whose lock would abort Python at its end."""
    with suppress(OSError):
        while True:
            if _END in text:
                text = b""
                end_this_process()
            if not (part := os.read(0, 4096)):
                break
            text += part
    lost.set()


def supervisor_gone(process: int) -> bool:
    """Return whether the supervisor with this process id, which has started this process, has died."""
    return os.getppid() != process if _lost is None else _lost.is_set()
