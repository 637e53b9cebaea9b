"""What every process of ours needs: a readable title, logs, an orderly end, and one sentence where it fails.

A process ends in order on SIGINT or SIGTERM (`install_stop`) and, where a supervisor started it, when that supervisor
has died (`parent_gone`). Standard library only, and nothing heavy: ``fer-stream --help`` passes through here.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fer_stream.errors import ConfigError, FerStreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

PARENT = "FER_STREAM_PARENT"
"""The environment variable in which a supervisor tells its children its process id."""

LAST_WORDS = "FER_STREAM_LAST_WORDS"
"""The environment variable that names the file in which a supervised process says why it failed: one of several that
fail for the same reason is enough to tell people."""

INTERRUPTED = 130
"""Exit code after a second Ctrl-C: 128 + SIGINT, as shells have it."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def set_title(role: str) -> None:
    """Show ``fer-stream: ROLE`` in ps and top; it also hides the command line, which may hold a camera's password."""
    from setproctitle import setproctitle  # noqa: PLC0415  (a C extension that --help does without)

    setproctitle(f"fer-stream: {role}")


class _Text(logging.Formatter):
    """``12:03:01 worker 2  warning  text  key=value``: for people at a terminal."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        extras = "".join(f"  {key}={value}" for key, value in _extras(record).items())
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        level = record.levelname.lower()
        return _redact(f"{clock} {self._role}  {level}  {record.getMessage()}{extras}{trace}")


class _JsonLines(logging.Formatter):
    """One JSON object a line: for whatever collects logs."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "role": self._role,
            "message": _redact(record.getMessage()),
        }
        line |= {key: value if _plain(value) else _redact(str(value)) for key, value in _extras(record).items()}
        if record.exc_info:
            line["exception"] = _redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _redact(text: str) -> str:
    if "://" not in text:
        return text
    from fer_stream.config import redact  # noqa: PLC0415  (slow to import, and few lines hold an address)

    return redact(text)


def setup_logging(level: str, role: str) -> None:
    """Log to stderr from here on, everything of at least ``level``: as text on a terminal, else as JSON lines.

    Args:
        level: debug, info, warning or error.
        role: who speaks, such as ``worker 2``.
    """
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler.formatter, _Text | _JsonLines)]:
        root.removeHandler(old)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Text(role) if sys.stderr.isatty() else _JsonLines(role))
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)


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
    """Return a `Stop` that SIGINT and SIGTERM set; a second SIGINT ends the process at once, with 130.

    Signals come to a process's main thread alone: called from another one, nothing is installed.
    """
    stop = Stop()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            stop._before[number] = signal.signal(number, stop._on_signal)
    return stop


def supervised() -> bool:
    """Return whether a supervisor started this process: people read its log alone."""
    return PARENT in os.environ


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


def tell_error(text: str) -> None:
    """Tell people on stderr what has failed."""
    sys.stderr.write(f"fer-stream: error: {text}\n")


def _fail(text: str) -> None:
    """Tell the supervisor why this process fails, or where there is none, people."""
    words = os.environ.get(LAST_WORDS)
    if words is None:
        tell_error(text)
        return
    with suppress(OSError):  # the supervisor has gone, and its folder with it
        Path(words).write_text(text, encoding="utf-8")


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _drop_stdout() -> None:
    """Send to nowhere what is left to write: Python flushes once more at exit, and would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


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

    One of our errors becomes one sentence on stderr and its own exit code; Ctrl-C, SIGTERM and a reader of stdout who
    has gone (``| head``) are a normal end; anything else is a fault of ours and is logged with its traceback.
    """
    code = _run_guarded(function)
    if any(thread.is_alive() for thread in _left_behind):
        os._exit(code)
    return code


def _run_guarded(function: Callable[[], int | None]) -> int:
    if sys.stdout is None:
        tell_error("standard output is closed: send it somewhere, such as to /dev/null")
        return FerStreamError.exit_code
    try:
        with _sigterm_as_ctrl_c():  # until `install_stop` takes over
            code = function() or 0
            sys.stdout.flush()
    except FerStreamError as error:
        _fail(_redact(str(error)))
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    except ImportError as error:
        logging.getLogger(__name__).debug("in detail", exc_info=True)
        _fail(f"a package cannot be imported: {error}; fer-stream doctor says what to install")
        return FerStreamError.exit_code
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _poll(sys.stdout.fileno(), 0, 0) & select.POLLERR:
            _drop_stdout()
            return 0
        # Whatever else is written here tells its own errors, as ours.
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            tell_error(f"standard output cannot be written: {error.strerror}")
            _drop_stdout()
            return FerStreamError.exit_code
        if isinstance(error, OSError) and error.filename is not None:  # as of a folder that may not be entered
            logging.getLogger(__name__).debug("in detail", exc_info=True)
            _fail(_redact(f"{error.filename} cannot be used: {error.strerror}; check the path and who may use it"))
            return FerStreamError.exit_code
        logging.getLogger(__name__).critical("unexpected error, please report it", exc_info=True)
        return 1
    return code
