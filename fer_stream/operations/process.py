"""What every process of ours needs: a readable title, an orderly end, and one sentence where it fails.

A process ends in order on SIGINT, SIGTERM or SIGHUP (`install_stop`) and, where a supervisor started it, when that
supervisor has died (`parent_gone`). Standard library only, and nothing heavy: ``fer-stream --help`` comes through here.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import select
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.operations.logs import drop, redacted, stderr, tell_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType
    from typing import TextIO

PARENT = "FER_STREAM_PARENT"
"""The environment variable in which a supervisor tells its children its process id."""

LAST_WORDS = "FER_STREAM_LAST_WORDS"
"""The environment variable that names the file in which a supervised process says why it failed: one of several that
fail for the same reason is enough to tell people."""

DELIVERIES = "FER_STREAM_DELIVERIES"
"""The environment variable that names the file in which a supervisor tells its children what its sinks do (JSON)."""

_supervising = 0

INTERRUPTED = 130
"""Exit code after a second Ctrl-C: 128 + SIGINT, as shells have it."""

LEAST_DESCRIPTORS = 64
"""File descriptors without which libzmq aborts the process: an aggregator without any peer has 40 open."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def raise_limits() -> None:
    """Let this process, which must be our own, have as many file descriptors, and files as long, as the system lets it.

    Each connection takes a descriptor, and the usual limit of 1024 is for programs that wait by ``select``.

    Raises:
        ConfigError: it may have too few for anything.
    """
    with suppress(OSError, ValueError):  # a unit may forbid it, and sets the limit itself
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if 0 <= hard < LEAST_DESCRIPTORS:
            raise ConfigError(
                f"a process may open {hard} files here, and {LEAST_DESCRIPTORS} are needed: raise the limit "
                "(LimitNOFILE in a unit, ulimit -n)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def reset_signals() -> None:
    """Undo what this process, which must be our own, may have inherited: blocked signals, and SIGCHLD ignored.

    Both outlive ``exec``. A signal that is blocked never ends a process in order. While SIGCHLD is ignored, the kernel
    drops the exit codes of children, and Python takes them to be 0.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD})
    on_main_thread = threading.current_thread() is threading.main_thread()
    if on_main_thread and signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def set_title(role: str) -> None:
    """Show ``fer-stream: ROLE`` in ps and top; it also hides the command line, which may hold a camera's password."""
    from setproctitle import setproctitle  # noqa: PLC0415  (a C extension that --help does without)

    setproctitle(f"fer-stream: {role}")


def _poll(fd: int, events: int, timeout: float | None) -> int:
    """Return what of ``events``, or of errors, a file descriptor has to tell within ``timeout`` seconds."""
    poll = select.poll()
    poll.register(fd, events)
    return next((flags for _, flags in poll.poll(None if timeout is None else timeout * 1000)), 0)


class Stop:
    """Whether this process has been asked to end.

    A loop looks at `is_set` or waits with `wait`. As a context manager it gives the signals back to whom they belonged
    before.
    """

    def __init__(self) -> None:
        # A pipe and a plain flag: the lock in threading.Event can deadlock when a signal's handler takes it again.
        self._set = False
        self._reader, self._writer = os.pipe()
        self._before: dict[int, Any] = {}

    def is_set(self) -> bool:
        """Return whether to end."""
        return self._set

    def set(self) -> None:
        """Ask to end; a second call does nothing."""
        if not self._set and self._writer >= 0:
            self._set = True
            os.write(self._writer, b"\0")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds (for ever without), and return whether to end."""
        if self._reader >= 0:
            _poll(self._reader, select.POLLIN, timeout)
        return self._set

    def close(self) -> None:
        """Give the signals back; a second call does nothing."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._reader >= 0:
            os.close(self._reader)
            os.close(self._writer)
            self._reader = self._writer = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.is_set():
            os._exit(INTERRUPTED)  # who presses Ctrl-C twice does not want to wait for anything
        self.set()


def install_stop() -> Stop:
    """Return a `Stop` that SIGINT, SIGTERM and SIGHUP set; a second SIGINT ends the process at once, with 130.

    Signals come to a process's main thread alone: called from another one, nothing is installed.
    """
    stop = Stop()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *_endings()):
            stop._before[number] = signal.signal(number, stop._on_signal)
    return stop


def _endings() -> list[signal.Signals]:
    """Return the signals, beside SIGINT, that ask for an orderly end.

    SIGHUP is one: it comes when a terminal is closed. Under ``nohup`` it is ignored, and stays so.
    """
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGHUP]


def supervised() -> bool:
    """Return whether a supervisor started this process: people read its log alone."""
    return PARENT in os.environ


@contextmanager
def supervising() -> Iterator[None]:
    """Within this, the process is a supervisor: it starts the aggregator, and logs that one's failures."""
    global _supervising  # noqa: PLW0603
    _supervising += 1
    try:
        yield
    finally:
        _supervising -= 1


def starts_aggregator() -> bool:
    """Return whether this process or its supervisor starts the aggregator, and so logs it where that is missing."""
    return supervised() or _supervising > 0


def parent_gone() -> bool:
    """Return whether the supervisor that started this process has died; never, where none did.

    Raises:
        ConfigError: `PARENT` is not a process id.
    """
    parent = os.environ.get(PARENT)
    if parent is None:
        return False
    if not parent.isdigit():
        raise ConfigError(f"{PARENT} must be a process id, not {parent!r}; only fer-stream's own supervisor sets it")
    return os.getppid() != int(parent)


def deliveries() -> dict[str, Any]:
    """Return what the supervisor of this process has told of its sinks, by their names; empty where there is none."""
    try:
        found: dict[str, Any] = json.loads(Path(os.environ[DELIVERIES]).read_bytes())
    except (KeyError, OSError):
        return {}
    return found


def _fail(text: str) -> None:
    """Tell the supervisor why this process fails, or where there is none, people."""
    words = os.environ.get(LAST_WORDS)
    if words is None:
        tell_error(text)
        return
    try:
        Path(words).write_text(text, encoding="utf-8")
    except OSError as error:
        if not parent_gone():  # else its folder has gone with it
            tell_error(
                f"{text}; the supervisor does not learn this, because {words} cannot be written: {error.strerror}"
            )


@contextmanager
def _endings_as_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in _endings()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_left_behind: list[threading.Thread] = []


def leave_behind(thread: threading.Thread, grace: float) -> None:
    """Wait so many seconds for a daemon thread; from one that hangs in native code `main_guard` ends the process.

    Coming back while the interpreter ends, or still in there when libraries are unloaded, it would abort the process.
    """
    thread.join(grace)
    if thread.is_alive():
        _left_behind.append(thread)


def main_guard(function: Callable[[], int | None]) -> int:
    """Run a command and return its exit code; whatever goes wrong leaves as it should.

    One of our errors becomes one sentence on stderr and its own exit code; Ctrl-C, SIGTERM, SIGHUP and a reader of
    stdout who has gone (``| head``) are a normal end; anything else is a fault of ours, logged with its traceback.
    """
    code = _run_guarded(function)
    stderr.drain()
    if _hanging():
        os._exit(code)
    return code


def _temporary_folder() -> str:
    """Return the folder for temporary files, or an empty text where none can be written."""
    import tempfile  # noqa: PLC0415  (5 ms)

    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return ""


def _hanging() -> bool:
    return any(thread.is_alive() for thread in _left_behind)


def _takes_more(stream: TextIO) -> bool:
    try:
        return bool(_poll(stream.fileno(), select.POLLOUT, 0) & select.POLLOUT)
    except (OSError, ValueError):  # a stream without a descriptor
        return True


def _run_guarded(function: Callable[[], int | None]) -> int:
    if sys.stdout is None:
        tell_error("standard output is closed: send it somewhere, such as to /dev/null")
        return FerStreamError.exit_code
    try:
        with _endings_as_ctrl_c():  # until `install_stop` takes over
            code = function() or 0
            if not _hanging():  # what hangs may hold it
                sys.stdout.flush()
    except FerStreamError as error:
        _fail(redacted(str(error)))
        return error.exit_code
    except KeyboardInterrupt:
        if not _takes_more(sys.stdout):  # or Python waits for a reader when it flushes at exit
            drop(sys.stdout)
        return 0
    except ImportError as error:
        logging.getLogger(__name__).debug("in detail", exc_info=True)
        _fail(f"a package cannot be imported: {error}; fer-stream doctor says what to install")
        return FerStreamError.exit_code
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _poll(sys.stdout.fileno(), 0, 0) & select.POLLERR:
            drop(sys.stdout)
            return 0
        # Whatever else is written here tells its own errors, as ours.
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            tell_error(f"standard output cannot be written: {error.strerror}")
            drop(sys.stdout)
            return FerStreamError.exit_code
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            logging.getLogger(__name__).debug("in detail", exc_info=True)
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            _fail(
                f"a file would become too large: {limit} bytes are allowed here; raise the limit "
                "(LimitFSIZE in a unit, ulimit -f)"
                if limit >= 0
                else "a file would become too large for its file system; choose another one"
            )
            return FerStreamError.exit_code
        if isinstance(error, OSError) and error.filename is not None:  # as of a folder that may not be entered
            logging.getLogger(__name__).debug("in detail", exc_info=True)
            _fail(redacted(f"{error.filename} cannot be used: {error.strerror}; check the path and who may use it"))
            return FerStreamError.exit_code
        if isinstance(error, OSError) and not _temporary_folder():
            logging.getLogger(__name__).debug("in detail", exc_info=True)
            _fail("no folder for temporary files can be written: set TMPDIR to one, or mount one at /tmp")
            return FerStreamError.exit_code
        logging.getLogger(__name__).critical("unexpected error, please report it", exc_info=True)
        return 1
    return code
