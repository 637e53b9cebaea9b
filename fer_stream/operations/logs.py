"""Output to stderr: the log, as text on a terminal and otherwise as JSON lines, and messages for people.

The reader of stderr may stop reading: a pager, a terminal after Ctrl-S, a slow log driver. Then a write blocks. So one
thread does all writes (`stderr`), and no other thread ever waits for the reader.
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
"""Maximum number of queued writes for a slow reader; further ones are dropped, and their number is logged."""

GRACE = 1.0
"""Maximum seconds that a process waits at its end for its last output to be written."""

GONE = (errno.EPIPE, errno.EIO)
"""Errors of a pipe without a reader and of a closed terminal."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

_log = logging.getLogger(__name__)


class Unhurried(io.TextIOBase):
    """A text stream to ``sys.stderr`` whose `write` never blocks: a thread writes the queued texts in order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[TextIO, str]] = deque()
        self._dropped = 0
        self._broken = False
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> int:
        """Queue ``text`` for the current ``sys.stderr``; drop it if the queue is full."""
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
        """Do nothing; `drain` waits until the queue is written."""

    def isatty(self) -> bool:
        """Return whether stderr is a terminal."""
        return sys.stderr is not None and sys.stderr.isatty()

    def drain(self, timeout: float = GRACE) -> bool:
        """Wait up to ``timeout`` seconds at the process's end until the queue is written; return whether it is."""
        with self._changed:
            drained = self._changed.wait_for(lambda: not self._waiting, timeout)
        if self._broken and sys.stderr is not None:  # otherwise Python's flush at exit fails and sets the exit code
            drop(sys.stderr)
        return drained

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                stream, text = self._waiting[0]  # removed only after the write, because `drain` waits for this
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
                _log.warning("%d log lines were dropped because stderr is not read fast enough", dropped)


stderr = Unhurried()
"""The queued stderr of this process."""


def drop(stream: TextIO) -> None:
    """Redirect a stream's buffered and further output to /dev/null, so that Python's flush at exit cannot fail."""
    with suppress(OSError, ValueError):  # a stream without a descriptor
        descriptor, null = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


class _Text(logging.Formatter):
    """Formats a record for people at a terminal: ``12:03:01 worker 2  warning  text  key=value``."""

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
    """Formats a record as one line of JSON for log collectors."""

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
    """Return a text without the secrets in its addresses."""
    if "://" not in text:
        return text
    return redact(text)


def setup_logging(level: str, role: str) -> None:
    """Log messages of at least ``level`` to stderr from now on: as text on a terminal, otherwise as JSON lines.

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
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it says when it lists the system's fonts
    logging.captureWarnings(capture=True)


def tell_error(text: str) -> None:
    """Print an error message on stderr."""
    stderr.write(f"fer-stream: error: {text}\n")
