"""Common parts of fer-stream's processes: the process title, an orderly end, and one-sentence error messages.

A process ends in order on SIGINT, SIGTERM or SIGHUP (`install_stop`) and, if a supervisor started it, when that
supervisor has died (`parent_gone`). A process that can read its settings again does that on SIGHUP instead, unless its
terminal was closed. This module imports only the standard library and nothing slow, because
``fer-stream --help`` imports it.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.operations.logs import drop, redacted, stderr, tell_error
from fer_stream.system import files, handover, limits, signals
from fer_stream.system.waiting import reader_gone, takes_more, wait_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType, TracebackType
    from typing import TextIO

PARENT = handover.PARENT

LAST_WORDS = "FER_STREAM_LAST_WORDS"
"""The environment variable with the path of the file to which a supervised process writes why it failed. If several
children fail for the same reason, the supervisor reports it once."""

NOTES = "FER_STREAM_NOTES"
"""The environment variable with the folder in which a supervisor leaves notes for its children, as JSON files: the
states of its sinks (`DELIVERIES`), and the cameras that were removed (`REMOVED`)."""

DELIVERIES = "deliveries"
"""The note with the states of the sinks, by name."""

REPORTS = "FER_STREAM_REPORTS"
"""The environment variable that asks a supervised process to report how it is (`Report`): the name of its note."""

REPORT = 0.5
"""Seconds between two reports."""

REMOVED = "removed"
"""The note with the names of removed cameras; the value is whether a camera may be forgotten now."""

_supervising = 0

INTERRUPTED = 130
"""Exit code after a second Ctrl-C, and of a command interrupted before it is complete: 128 + SIGINT, as in shells."""

LEAST_DESCRIPTORS = 64
"""Minimum limit of file descriptors. libzmq aborts the process without them; an aggregator without peers uses 40."""

CLOSING = 2.0
"""Most seconds between SIGHUP and the end of the terminal if this is the reason of SIGHUP."""

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def raise_limits() -> None:
    """Raise the soft limits of file descriptors and of file size to the hard limits.

    Only for fer-stream's own processes. Each connection uses a descriptor. The usual limit of 1024 exists for programs
    that use ``select``.

    Raises:
        ConfigError: the hard limit of descriptors is below `LEAST_DESCRIPTORS`.
    """
    with suppress(OSError, ValueError):  # a systemd unit may forbid the call; it sets the limit itself
        hard = limits.hard("RLIMIT_NOFILE")
        if 0 <= hard < LEAST_DESCRIPTORS:
            raise ConfigError(
                f"a process may open {hard} files here, and {LEAST_DESCRIPTORS} are needed: raise the limit "
                "(LimitNOFILE in a unit, ulimit -n)"
            )
        limits.lift("RLIMIT_NOFILE")
    with suppress(OSError, ValueError):
        limits.lift("RLIMIT_FSIZE")


def set_title(role: str) -> None:
    """Show ``fer-stream: ROLE`` in ps and top, and hide the command line, which may contain a camera's password."""
    from setproctitle import setproctitle  # noqa: PLC0415  (a C extension that --help does not need)

    setproctitle(f"fer-stream: {role}")


class Stop:
    """A flag that asks this process to end.

    A loop checks `is_set` or waits with `wait`. As a context manager it restores the previous signal handlers.
    """

    def __init__(self) -> None:
        # Sockets and a plain flag, because the lock in threading.Event can deadlock if a signal handler takes it again.
        import socket  # noqa: PLC0415  (slow, and --help needs none)

        self._set = self._closed = False
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._woken_before: int | None = None
        self._before: dict[int, Any] = {}
        self._hangups_end = True
        self._has_terminal = False
        self._hung_up = False
        self._hung_up_at = self._closed_at = -math.inf

    def is_set(self) -> bool:
        """Return whether the process was asked to end."""
        return self._set

    def set(self) -> None:
        """Ask the process to end; a second call does nothing."""
        if not (self._set or self._closed):
            self._set = True
            self._writer.send(b"\0")

    def told_to_reload(self) -> bool:
        """Return whether SIGHUP has asked since the last call to read the settings again (`install_stop`).

        SIGHUP also comes when the terminal of this process is closed; then this asks the process to end. A shell
        passes SIGHUP on shortly before or after, so both count as one if less than `CLOSING` is between them.
        """
        now = time.monotonic()
        hung_up, self._hung_up = self._hung_up, False
        if hung_up:
            self._hung_up_at = now
        if self._has_terminal and not signals.terminal():
            self._has_terminal, self._closed_at = False, now
        if abs(self._hung_up_at - self._closed_at) < CLOSING:
            self.set()
        return hung_up and not self._set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds (``None``: without limit), and return whether the process was asked to end."""
        if not self._closed:
            wait_readable([self._reader.fileno()], timeout)
        return self._set

    def close(self) -> None:
        """Restore the previous signal handlers; a second call does nothing."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._woken_before is not None:
            signal.set_wakeup_fd(self._woken_before)
            self._woken_before = None
        self._closed = True
        self._reader.close()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.is_set():
            os._exit(INTERRUPTED)  # a second Ctrl-C means: end now, without cleanup
        if number == signals.HANGUP and not self._hangups_end:
            self._hung_up = True
        else:
            self.set()


def install_stop(*, reloads: bool = False) -> Stop:
    """Return a `Stop` that SIGINT, SIGTERM and SIGHUP set; a second SIGINT ends the process at once, with 130.

    With ``reloads``, SIGHUP asks to read the settings again (`Stop.told_to_reload`), unless the terminal was closed.
    Python allows signal handlers only in the main thread. In another thread this installs none.
    """
    stop = Stop()
    if reloads:
        stop._hangups_end, stop._has_terminal = False, signals.terminal()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *signals.endings()):
            stop._before[number] = signal.signal(number, stop._on_signal)
        stop._woken_before = signals.wakes(stop._writer.fileno())
    return stop


def supervised() -> bool:
    """Return whether a supervisor started this process. People then read the supervisor's log."""
    return PARENT in os.environ


@contextmanager
def supervising() -> Iterator[None]:
    """Mark this process as a supervisor, which starts the aggregator and logs the aggregator's failures."""
    global _supervising  # noqa: PLW0603
    _supervising += 1
    try:
        yield
    finally:
        _supervising -= 1


def starts_aggregator() -> bool:
    """Return whether this process or its supervisor starts the aggregator, and so logs if it is missing."""
    return supervised() or _supervising > 0


def parent_gone() -> bool:
    """Return whether the supervisor that started this process has died; ``False`` if there is no supervisor.

    Raises:
        ConfigError: `PARENT` is not a process id.
    """
    parent = os.environ.get(PARENT)
    if parent is None:
        return False
    if not parent.isdigit():
        raise ConfigError(f"{PARENT} must be a process id, not {parent!r}; only fer-stream's own supervisor sets it")
    return handover.supervisor_gone(int(parent))


def leave_note(folder: Path, name: str, note: Mapping[str, Any]) -> None:
    """Leave a note for the children of this process: `DELIVERIES` or `REMOVED`.

    Raises:
        OSError: it cannot be written.
    """
    fresh = folder / f"{name}.new"
    fresh.write_text(json.dumps(note), encoding="utf-8")
    files.replace(fresh, folder / f"{name}.json")


def read_note(name: str) -> dict[str, Any]:
    """Return a note of this process's supervisor; empty if there is no supervisor or no such note."""
    try:
        found: dict[str, Any] = json.loads(Path(os.environ[NOTES], f"{name}.json").read_bytes())
    except (KeyError, OSError):
        return {}
    return found


class Report:
    """Tells this process's supervisor that it lives, and how it is, if the supervisor has asked for that."""

    def __init__(self) -> None:
        self._name, self._due = os.environ.get(REPORTS), 0.0

    def tell(self, *, now: bool = False, **about: Any) -> None:
        """Tell it ``about``, ``pid``, and ``at`` in seconds of the monotonic clock.

        Args:
            now: tell it at once; by default at most every `REPORT` seconds.
            about: what is told.
        """
        moment = time.monotonic()
        if self._name and (now or moment >= self._due):
            self._due = moment + REPORT
            with suppress(KeyError, OSError):  # the next one may be written
                leave_note(Path(os.environ[NOTES]), self._name, {"pid": os.getpid(), "at": moment} | about)


def report_trouble(text: str) -> None:
    """Tell this process's supervisor what it tries to overcome, or with an empty text that it has."""
    if words := os.environ.get(LAST_WORDS):
        with suppress(OSError):  # nothing depends on it
            if text:
                Path(words).write_text(redacted(text), encoding="utf-8")
            else:
                Path(words).unlink(missing_ok=True)


def _fail(text: str) -> None:
    """Report why this process fails: to the supervisor, or on stderr if there is none."""
    words = os.environ.get(LAST_WORDS)
    if words is None:
        tell_error(text)
        return
    try:
        Path(words).write_text(text, encoding="utf-8")
    except OSError as error:
        if not parent_gone():  # otherwise the supervisor's folder is gone too
            tell_error(
                f"{text}; this cannot be reported to the supervisor, because {words} cannot be written: "
                f"{error.strerror}"
            )


@contextmanager
def _endings_as_ctrl_c(told: list[int]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        told.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in signals.endings()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_left_behind: list[threading.Thread] = []


def leave_behind(thread: threading.Thread, grace: float) -> None:
    """Wait ``grace`` seconds for a daemon thread. If it still runs at the end, `main_guard` uses ``os._exit``.

    A thread that returns from native code while the interpreter ends, or is still in native code when libraries are
    unloaded, would abort the process.
    """
    thread.join(grace)
    if thread.is_alive():
        _left_behind.append(thread)


def main_guard(function: Callable[[], int | None], interrupted: int = 0) -> int:
    """Run a command and return its exit code, even if it raises.

    An error of fer-stream becomes one sentence on stderr and its own exit code. A closed reader of stdout (``| head``)
    is a normal end. Any other exception is a bug, and is logged with its traceback.

    Args:
        function: runs the command.
        interrupted: the exit code after Ctrl-C, SIGTERM or SIGHUP: 0 for a command that runs until it is told to end,
            `INTERRUPTED` for any other, whose result is then incomplete.
    """
    code = _run_guarded(function, interrupted)
    stderr.drain()
    if _hanging():
        os._exit(code)
    return code


def _temporary_folder() -> str:
    """Return the folder for temporary files, or an empty text if no such folder is writable."""
    import tempfile  # noqa: PLC0415  (5 ms)

    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return ""


def _hanging() -> bool:
    return any(thread.is_alive() for thread in _left_behind)


def _writable(stream: TextIO) -> bool:
    try:
        return takes_more(stream.fileno())
    except (OSError, ValueError):  # a stream without a descriptor
        return True


def _run_guarded(function: Callable[[], int | None], interrupted: int) -> int:
    if sys.stdout is None:
        tell_error("standard output is closed: redirect it, for example to /dev/null")
        return FerStreamError.exit_code
    told: list[int] = []  # signals that ask for the end
    try:
        with _endings_as_ctrl_c(told):  # until `install_stop` takes over
            code = function() or 0
            if not _hanging():  # a hanging thread may hold the lock of stdout
                sys.stdout.flush()
    except FerStreamError as error:
        _fail(redacted(str(error)))
        return error.exit_code
    except KeyboardInterrupt:
        if not _writable(sys.stdout):  # otherwise Python's flush at exit waits for the reader
            drop(sys.stdout)
        return interrupted
    except ImportError as error:
        if told:  # native code makes an error of its own of the interruption
            return interrupted
        logging.getLogger(__name__).debug("in detail", exc_info=True)
        _fail(f"a package cannot be imported: {error}; run fer-stream doctor to see what to install")
        return FerStreamError.exit_code
    except Exception as error:
        if told:
            return interrupted
        if isinstance(error, BrokenPipeError) and reader_gone(sys.stdout.fileno()):
            drop(sys.stdout)
            return 0
        # All other writers convert their errors to FerStreamError, so an error without a file name is stdout's.
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS and error.filename is None:
            tell_error(f"standard output cannot be written: {error.strerror}")
            drop(sys.stdout)
            return FerStreamError.exit_code
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            logging.getLogger(__name__).debug("in detail", exc_info=True)
            limit = limits.soft("RLIMIT_FSIZE")
            _fail(
                f"a file would become too large: {limit} bytes are allowed here; raise the limit "
                "(LimitFSIZE in a unit, ulimit -f)"
                if limit >= 0
                else "a file would become too large for its file system; choose another one"
            )
            return FerStreamError.exit_code
        if isinstance(error, OSError) and error.filename is not None:  # for example a folder without permission
            logging.getLogger(__name__).debug("in detail", exc_info=True)
            _fail(redacted(f"{error.filename} cannot be used: {error.strerror}; check the path and its permissions"))
            return FerStreamError.exit_code
        if isinstance(error, OSError) and not _temporary_folder():
            logging.getLogger(__name__).debug("in detail", exc_info=True)
            _fail("no folder for temporary files is writable: set TMPDIR to a writable folder, or mount one at /tmp")
            return FerStreamError.exit_code
        logging.getLogger(__name__).critical("unexpected error, please report it", exc_info=True)
        return 1
    return code
