"""The file sink: appends events to a file as JSON lines."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.sinks.lines import Lines
from fer_stream.system import folders

if TYPE_CHECKING:
    from fer_stream.plugins import Sink
    from fer_stream.types import Event


def open_sink(argument: str) -> Sink:
    """Open the file with the path ``argument``; create it if it is missing.

    Raises:
        ConfigError: ``argument`` is empty.
        FerStreamError: the file cannot be written.
    """
    if not argument:
        raise ConfigError("the file sink needs the name of a file, as in file:events.jsonl")
    return JsonLines(folders.expand(Path(argument)))


class JsonLines:
    """Appends each event at once, so that a reader can follow the file.

    If the file was moved or deleted, for example by logrotate, the next event creates a new file at the path; no signal
    is needed. A named pipe (FIFO) is opened at the first event; the open blocks until the pipe has a reader.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: Lines | None = None
        self._identity: tuple[int, int] | None = None
        if not self._is_pipe():
            self._open()

    def write(self, event: Event, text: str) -> None:  # noqa: ARG002
        """Append one event.

        Raises:
            FerStreamError: the file cannot be written, for example on a full disk, or the pipe has lost its reader.
        """
        try:
            lines = self._lines
            if lines is None or self._moved():
                self.close()
                lines = self._open()
            lines.write(text)
        except BrokenPipeError as error:
            self.close()
            raise self._unwritable(error) from error
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def _open(self) -> Lines:
        try:
            raw = self._path.open("ab", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from error
        found = os.fstat(raw.fileno())
        self._identity = (found.st_dev, found.st_ino)
        self._lines = Lines(raw)
        return self._lines

    def _moved(self) -> bool:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != self._identity

    def _is_pipe(self) -> bool:
        try:
            return stat.S_ISFIFO(self._path.stat().st_mode)
        except OSError:  # the path does not exist yet, or opening it reports the error
            return False

    def _unwritable(self, error: OSError) -> FerStreamError:
        return FerStreamError(f"events cannot be written to {str(self._path)!r}: {error.strerror}")
