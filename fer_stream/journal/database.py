"""The journal's file: its schema, transactions, and which of SQLite's errors mean that the file itself is damaged."""

from __future__ import annotations

import os
import sqlite3
import zlib
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fer_stream.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 3
"""Of the file and of the events in it, in ``PRAGMA user_version``. Other formats are refused."""

APPLICATION = 0x46455253
"""``PRAGMA application_id``, which other SQLite files do not have."""

FAILURES = (sqlite3.Error, OverflowError, UnicodeDecodeError)
"""What Python's module raises: also of numbers beyond 64 bits, and of texts and messages that are none."""

_HEADER = 100
"""Bytes (SQLite's file format, section 1.3)."""

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT)
"""SQLite's codes for a damaged file; the last is of numbers that are there already, or that nobody knows of."""

# An event's id follows from its camera, epoch and frame, among others: an index that begins with these is as unique as
# one of the id alone, and new events stand next to each other in it rather than all over the file.
_SCHEMA = (
    """CREATE TABLE events (
    cursor INTEGER PRIMARY KEY, id TEXT NOT NULL, camera TEXT NOT NULL, epoch INTEGER NOT NULL, frame INTEGER NOT NULL,
    sequence INTEGER NOT NULL, journaled REAL NOT NULL, crc INTEGER NOT NULL, text TEXT NOT NULL,
    UNIQUE (camera, epoch, frame, id), UNIQUE (camera, sequence)
)""",
    "CREATE INDEX events_journaled ON events (journaled)",
    "CREATE TABLE cameras (camera TEXT PRIMARY KEY, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL)",
    "CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), cursor INTEGER NOT NULL, purged INTEGER NOT NULL)",
)


class Numbers(NamedTuple):
    """What a new journal begins with: where it goes on, and what is known of its cameras."""

    cursor: int = 0
    cameras: tuple[tuple[str, int, int], ...] = ()
    """Name, epoch and sequence of each."""


AFRESH = Numbers()
"""Where there was no journal before."""


class DamagedError(JournalError):
    """The file itself is damaged."""


class Database:
    """One connection to a journal's file. Every error is raised as `JournalError`.

    Args:
        path: the journal's.
        mode: ``ro`` to read; ``rw`` to write what is there; ``rwc`` to make it where there is none.
        patience: seconds to wait for another process that writes.
        numbers: what it begins with where it is made.
        log: whether to write ahead into a log beside it, where all who read it share this machine's memory; SQLite's
            rollback journal else.

    Raises:
        JournalError: there is none of this format, or it cannot be opened.
        DamagedError: it is damaged.
    """

    def __init__(
        self,
        path: Path,
        mode: Literal["ro", "rw", "rwc"] = "ro",
        patience: float = 5.0,
        numbers: Numbers = AFRESH,
        log: bool = True,
    ) -> None:
        self.path = path
        self.new = False
        """Whether it was made just now."""
        self.damaged = False
        """Whether the file was found to be damaged."""
        try:
            if mode == "rwc":  # SQLite would give it the mode that the umask leaves, and its log the same
                with suppress(FileExistsError):
                    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            uri = f"{path.absolute().as_uri()}?mode={mode}"
            if mode == "ro" and self._rests():
                uri += "&immutable=1"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=patience)
        except (*FAILURES, OSError) as error:
            raise self.failure(error, "read" if mode == "ro" else "written") from error
        try:
            self._prepare(mode, numbers, "WAL" if log else "TRUNCATE")
        except FAILURES as error:
            failure = self.failure(error, "read")
            self._db.close()
            raise failure from error
        except JournalError:
            self._db.close()
            raise

    def _rests(self) -> bool:
        """Whether nobody has the file open, and this process may not make the log without which SQLite reads nothing.

        So it is on read-only media, in a snapshot, and for a user who may only read. Who writes has a log there.
        """
        return not os.access(self.path.absolute().parent, os.W_OK) and not self._log.exists()

    @property
    def _log(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")

    def _prepare(self, mode: Literal["ro", "rw", "rwc"], numbers: Numbers, journal_mode: str) -> None:
        version, mine = self._pragma("user_version"), self._pragma("application_id")
        tables = self._db.execute("SELECT 1 FROM sqlite_master").fetchone()
        # SQLite takes a file that is shorter than its own header for an empty one.
        foreign = 0 < self.path.stat().st_size < _HEADER
        self.new = mode == "rwc" and version == mine == 0 and not tables and not foreign
        if not self.new and mine != APPLICATION:
            raise JournalError(f"{self.path} is not a journal of fer_stream: give another path")
        if not self.new and version != FORMAT:
            way = "update fer-stream" if version > FORMAT else "move it away, and a new one begins"
            raise JournalError(
                f"the journal {self.path} has format {version}, this program reads format {FORMAT}: "
                f"{way}, or give another path"
            )
        if mode == "ro":
            return
        self._db.execute("PRAGMA secure_delete = ON")  # what is purged is overwritten, not only forgotten
        if mode == "rwc":
            self._db.execute(f"PRAGMA journal_mode = {journal_mode}")
            self._db.execute("PRAGMA synchronous = FULL")
        if self.new:
            self._make(numbers)

    def _make(self, numbers: Numbers) -> None:
        # All of it at once: a journal that has a format has its numbers, whatever ends this process meanwhile.
        with self.transaction() as db:
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute("INSERT INTO head VALUES (1, ?, ?)", (numbers.cursor, numbers.cursor))
            db.executemany("INSERT INTO cameras VALUES (?, ?, ?)", numbers.cameras)
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute(f"PRAGMA application_id = {APPLICATION}")
        self.empty_log()  # whose file it is has to stand in the file itself

    def _pragma(self, name: str) -> Any:
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    def rows(
        self, statement: str, values: tuple[object, ...], kinds: tuple[Any, ...], least: int = 0
    ) -> list[tuple[Any, ...]]:
        """Return at least ``least`` rows, with columns of these types: SQLite stores any type in any column."""
        try:
            rows = self._db.execute(statement, values).fetchall()
        except FAILURES as error:
            raise self.failure(error, "read") from error
        if len(rows) < least or not all(all(map(isinstance, row, kinds)) for row in rows):
            raise self.damage()
        return rows

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """``BEGIN IMMEDIATE`` to ``COMMIT``, after which the disk has it; or all of it is undone."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite may have rolled back by itself, on a full disk for one
                    self._db.execute("ROLLBACK")
                raise
        except FAILURES as error:
            raise self.failure(error, "written") from error

    def empty_log(self) -> bool:
        """Bring the write-ahead log into the file; ``False`` where somebody reads an older state and needs it."""
        try:
            return not self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except FAILURES as error:
            raise self.failure(error, "written") from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._db.close()

    def damage(self) -> DamagedError:
        """Note that the file is damaged, and return the error to raise."""
        self.damaged = True
        return DamagedError(f"the journal {self.path} is damaged: move it away, and a new one begins")

    def failure(self, error: Exception, what: str) -> JournalError:
        """Translate an error. A `DamagedError`, also noted in ``damaged``, means that the file itself is damaged."""
        reason = self._refusal(error) if what == "read" else None
        text = f"the journal {self.path} cannot be {what}: {reason or getattr(error, 'strerror', None) or error}"
        if not self._means_damage(error):
            return JournalError(text)
        self.damaged = True
        return DamagedError(text)

    def _refusal(self, error: Exception) -> str | None:
        """Say why a reader is refused where SQLite's own words ("attempt to write a readonly database") mislead."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            return None
        for path in (self.path, self._log):
            if path.exists() and not os.access(path, os.R_OK):
                return f"this user may not read {path}; let its owner grant that, or copy the events with subscribe"
        if not os.access(self.path.absolute().parent, os.W_OK):
            return (
                f"what was written last is in {self._log}, which SQLite reads only where it may write to the folder; "
                "copy both files to a folder of your own"
            )
        return None

    def _means_damage(self, error: Exception) -> bool:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # Python's own: of what is no text. One of a number of ours, or of misuse, is not the file's.
            return isinstance(error, UnicodeDecodeError) or type(error) is sqlite3.OperationalError
        code &= 0xFF  # the other bits are detail
        # SQLite's "error" may mean anything, so look: also a missing table, after which nothing can be written.
        return not self._whole() if code == sqlite3.SQLITE_ERROR else code in _DAMAGE

    def _whole(self) -> bool:
        """Whether all that we made is in the schema."""
        try:
            return _expected() <= set(self._db.execute("SELECT name, sql FROM sqlite_master"))
        except FAILURES as error:
            return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGE


@cache
def _expected() -> frozenset[tuple[str, str]]:
    with sqlite3.connect(":memory:") as db:
        for statement in _SCHEMA:
            db.execute(statement)
        found = frozenset(db.execute("SELECT name, sql FROM sqlite_master"))
    db.close()
    return found


def checksum(text: str) -> int:
    """Return the CRC-32 that is stored beside an event's text: SQLite itself does not notice a byte that changed."""
    return zlib.crc32(text.encode())


def is_journal(path: Path) -> bool:
    """Whether what SQLite cannot read is a journal nevertheless, by the one number in its header."""
    try:
        with path.open("rb") as file:
            return file.read(_HEADER)[68:72] == APPLICATION.to_bytes(4, "big")
    except OSError:
        return False
