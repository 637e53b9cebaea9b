"""What a process writes to stderr: its log, as text on a terminal and else as JSON lines, and sentences for people.

Its reader may have stopped: a pager that waits, a terminal after Ctrl-S, a slow log driver. Then a write blocks. So one
thread does all writing (`stderr`), and no other thread ever waits for a reader.
"""

from __future__ import annotations

import atexit
import errno
import io
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fer_stream.settings.redaction import redact

if TYPE_CHECKING:
    from typing import TextIO

ROOM = 10_000
"""Writes that are kept for a slow reader; further ones are dropped, and their number is logged."""

GRACE = 1.0
"""Seconds that a process waits at its end until its last output is read."""

GONE = (errno.EPIPE, errno.EIO)
"""Errors of a pipe without a reader and of a terminal that was closed."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

_log = logging.getLogger(__name__)


class Unhurried(io.TextIOBase):
    """A text stream to ``sys.stderr`` whose `write` never waits: a thread passes on what it is given, in order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[TextIO, str]] = deque()
        self._dropped = 0
        self._broken = False
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> int:
        """Queue ``text`` for the present ``sys.stderr``; drop it if the queue is full."""
        stream = sys.stderr
        if stream is None or not text:
            return len(text)
        with self._changed:
            if len(self._waiting) >= ROOM:
                self._dropped += 1
                return len(text)
            self._waiting.append((stream, text))
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stderr", daemon=True)
                self._thread.start()
                atexit.register(self.drain)
        return len(text)

    def flush(self) -> None:
        """Do nothing: `drain` waits for what was written."""

    def isatty(self) -> bool:
        """Return whether stderr is a terminal."""
        return sys.stderr is not None and sys.stderr.isatty()

    def drain(self, timeout: float = GRACE) -> bool:
        """Wait, at a process's end, up to ``timeout`` seconds until everything is written; return whether it is."""
        with self._changed:
            drained = self._changed.wait_for(lambda: not self._waiting, timeout)
        if self._broken and sys.stderr is not None:  # or the exit code would be Python's own, for its last flush fails
            drop(sys.stderr)
        return drained

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                stream, text = self._waiting[0]  # it stays until it is written: see `drain`
            try:
                stream.write(text)
                stream.flush()
                self._broken = False
            except OSError as error:
                self._broken = True
                if error.errno in GONE:
                    drop(stream)
            except ValueError:  # the stream is closed
                pass
            with self._changed:
                self._waiting.popleft()
                dropped, self._dropped = self._dropped, 0
                self._changed.notify_all()
            if dropped:
                _log.warning("%d log lines were dropped because nobody read them", dropped)


stderr = Unhurried()
"""The one of this process."""


def drop(stream: TextIO) -> None:
    """Send what a stream still holds, and what follows, to nowhere: Python flushes at exit, and would fail or wait."""
    with suppress(OSError, ValueError):  # a stream without a descriptor
        descriptor, nowhere = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


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
        return redacted(f"{clock} {self._role}  {level}  {record.getMessage()}{extras}{trace}")


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
            "message": redacted(record.getMessage()),
        }
        line |= {key: value if _plain(value) else redacted(str(value)) for key, value in _extras(record).items()}
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def redacted(text: str) -> str:
    """Return a text without the passwords of the addresses in it."""
    if "://" not in text:
        return text
    return redact(text)


def setup_logging(level: str, role: str) -> None:
    """Log to stderr from here on, everything of at least ``level``: as text on a terminal, else as JSON lines.

    Args:
        level: debug, info, warning or error.
        role: the name of this process in the log, such as ``worker 2``.
    """
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler.formatter, _Text | _JsonLines)]:
        root.removeHandler(old)
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(_Text(role) if stderr.isatty() else _JsonLines(role))
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)


def tell_error(text: str) -> None:
    """Print an error message on stderr."""
    stderr.write(f"fer-stream: error: {text}\n")
