"""The plug-in `fer_stream.plugins.Journal` for SQLite. A local disk is fast, so its futures are done at once."""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fer_stream.errors import AnnotationRefusedError, JournalError, RivalError
from fer_stream.journal.sqlite.files import shared
from fer_stream.journal.sqlite.reader import Reader
from fer_stream.journal.sqlite.retention import purge
from fer_stream.journal.sqlite.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fer_stream.plugins.journals import Stored
    from fer_stream.settings.tree import JournalSettings
    from fer_stream.types import Annotation, AnnotationPage, AnnotationQuery, Event

RETRY = 0.5
"""Seconds between attempts to write a file that could not be written."""

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class SQLite:
    """See `fer_stream.plugins.Journal`."""

    def __init__(self, settings: JournalSettings) -> None:
        self._path = Path(settings.path)
        self.name = str(self._path)

    def writer(self) -> SQLiteWriter:
        """See `fer_stream.plugins.Journal.writer`."""
        opened = SQLiteWriter(Writer(self._path))
        if warning := self._warning():
            _log.warning(warning)
        return opened

    def reader(self) -> Reader:
        """See `fer_stream.plugins.Journal.reader`."""
        return Reader(self._path)

    def purge(self, older_than: float) -> int:
        """See `fer_stream.plugins.Journal.purge`."""
        return purge(self._path, older_than)

    def examine(self) -> tuple[str, str]:
        """See `fer_stream.plugins.Journal.examine`."""
        path = self._path
        try:
            exists = path.exists()
        except OSError as error:
            raise JournalError(
                f"the journal {path} cannot be used: {error.strerror}; give another path with --journal"
            ) from error
        if exists:
            with Reader(path) as reader:
                found = f"{reader.cursor()} events so far"
            if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
                raise JournalError(f"the journal {path} cannot be written: give another path with --journal")
            return found, self._warning()
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise JournalError(f"the journal {path} cannot be made in {folder}: give another path with --journal")
        return "can be made", self._warning()

    def _warning(self) -> str:
        if not (kind := shared(self._path)):
            return ""
        return (
            f"the journal {self._path} is on {kind}, where file locks may not work between machines: "
            "keep it on a disk of this machine, which is safer and faster"
        )


class SQLiteWriter:
    """See `fer_stream.plugins.JournalWriter`. It writes in the caller's thread, and repairs the file when it must."""

    def __init__(self, writer: Writer) -> None:
        self.trouble = ""
        self.cursor = writer.cursor()
        self._writer = writer
        self._waiting: tuple[Sequence[Event], int, Future[list[Stored]]] | None = None
        self._retry = 0.0

    def append(self, events: Sequence[Event], lost: int = 0) -> Future[list[Stored]]:
        """See `fer_stream.plugins.JournalWriter.append`."""
        future: Future[list[Stored]] = Future()
        self._waiting = events, lost, future
        self.check()
        return future

    def epoch(self, camera: str) -> Future[int]:
        """See `fer_stream.plugins.JournalWriter.epoch`."""
        return _done(lambda: self._writer.epoch(camera))

    def read(
        self, after: int, limit: int = 1000, camera: str | None = None, size: int | None = None
    ) -> Future[tuple[list[str], int]]:
        """See `fer_stream.plugins.JournalWriter.read`. A file that is found to be damaged is replaced by `check`."""
        return _done(lambda: self._writer.read(after, limit, camera, size))

    def purge(self, older_than: float) -> Future[int]:
        """See `fer_stream.plugins.JournalWriter.purge`."""
        return _done(lambda: self._writer.purge(older_than))

    def annotate(self, annotation: Annotation) -> Future[Annotation]:
        """See `fer_stream.plugins.JournalWriter.annotate`."""
        return _done(lambda: self._writer.annotate(annotation))

    def annotations(self, wanted: AnnotationQuery) -> Future[AnnotationPage]:
        """See `fer_stream.plugins.JournalWriter.annotations`."""
        return _done(lambda: self._writer.annotations(wanted))

    def unclosed(self) -> list[Event]:
        """See `fer_stream.plugins.JournalWriter.unclosed`."""
        return self._writer.unclosed()

    def check(self) -> None:
        """See `fer_stream.plugins.JournalWriter.check`. It writes a batch that waits, and replaces a damaged file."""
        self._writer.check()
        self._tell()
        if not (self._waiting or self._writer.broken) or (self.trouble and time.monotonic() < self._retry):
            return
        try:
            if not self._writer.there():
                self._writer.renew()
                self._tell()
            if self._waiting:
                events, lost, future = self._waiting
                stored = self._writer.append(events, lost)
                self._waiting = None
                future.set_result(stored)
        except RivalError as error:
            if not self._waiting:
                raise
            self._waiting[2].set_exception(error)
            self._waiting = None
        except JournalError as error:
            self.trouble, self._retry = str(error), time.monotonic() + RETRY
        else:
            self.trouble = ""

    def _tell(self) -> None:
        if self._writer.notice:
            _log.error(self._writer.notice)
            self._writer.notice = ""

    def close(self) -> None:
        """See `fer_stream.plugins.JournalWriter.close`."""
        self._writer.close()


def _done(action: Callable[[], Result]) -> Future[Result]:
    future: Future[Result] = Future()
    try:
        future.set_result(action())
    except (JournalError, AnnotationRefusedError) as error:
        future.set_exception(error)
    return future
