"""The journal's SQLite file: schema, transactions, and which SQLite errors mean that the file is damaged."""

from __future__ import annotations

import os
import sqlite3
import zlib
from contextlib import closing, contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fer_stream.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 4
"""Format number of the file and its events, stored in ``PRAGMA user_version``. Others are refused, but `BEFORE`."""

BEFORE = 3
"""The format that had no annotations. It is read as it is; a writer adds their table."""

APPLICATION = 0x46455253
"""``PRAGMA application_id`` of a journal, which distinguishes it from other SQLite files."""

FAILURES = (sqlite3.Error, OverflowError, UnicodeDecodeError)
"""What Python's sqlite3 raises, also for integers beyond 64 bits and for texts that are not UTF-8."""

_HEADER = 100
"""Bytes of SQLite's file header (https://sqlite.org/fileformat2.html, section 1.3)."""

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT)
"""SQLite's codes for a damaged file. The last one means a number that exists already, or is missing."""

# An event's id is derived from its camera, epoch and frame, among others. An index that begins with these is as unique
# as one on the id alone, and new events are adjacent in it instead of scattered over the file.
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

# AUTOINCREMENT: a number that was deleted is not used again.
_ANNOTATIONS = (
    """CREATE TABLE annotations (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, camera TEXT NOT NULL, start INTEGER NOT NULL,
    until INTEGER NOT NULL, made REAL NOT NULL, crc INTEGER NOT NULL, text TEXT NOT NULL
)""",
    "CREATE INDEX annotations_start ON annotations (start)",
)


class Numbers(NamedTuple):
    """The numbers of a new journal: the cursor to continue after, and its cameras' epochs and sequences."""

    cursor: int = 0
    cameras: tuple[tuple[str, int, int], ...] = ()
    """Name, epoch and sequence of each camera."""


AFRESH = Numbers()
"""Numbers of a journal that had no predecessor."""


class DamagedError(JournalError):
    """The journal's file is damaged."""


class Database:
    """One connection to a journal's file. Every error is raised as `JournalError`.

    Args:
        path: the journal's path.
        mode: ``ro`` to read; ``rw`` to write an existing file; ``rwc`` to create it if there is none.
        patience: seconds to wait for another process that writes.
        numbers: the numbers of a new file.
        log: use SQLite's write-ahead log, which needs all readers on this machine; otherwise its rollback journal.

    Raises:
        JournalError: there is no file of this format, or it cannot be opened.
        DamagedError: the file is damaged.
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
        """Whether this connection created the file."""
        self.annotated = True
        """Whether it has the table of annotations."""
        self.damaged = False
        """Whether the file was found to be damaged."""
        try:
            if mode == "rwc":  # SQLite would create the file, and its log, with the umask's mode
                with suppress(FileExistsError):
                    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            uri = f"{path.absolute().as_uri()}?mode={mode}"
            if mode == "ro" and self._unused_and_read_only():
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

    def _unused_and_read_only(self) -> bool:
        """Whether no writer has the file open, and this process may not create the log that SQLite needs to read.

        This is so on read-only media, in a snapshot, and for a user who may only read. A writer's log would exist.
        """
        return not os.access(self.path.absolute().parent, os.W_OK) and not self._log.exists()

    @property
    def _log(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")

    def _prepare(self, mode: Literal["ro", "rw", "rwc"], numbers: Numbers, journal_mode: str) -> None:
        version, mine = self._pragma("user_version"), self._pragma("application_id")
        tables = self._db.execute("SELECT 1 FROM sqlite_master").fetchone()
        # SQLite takes a file shorter than its header for an empty one.
        foreign = 0 < self.path.stat().st_size < _HEADER
        self.new = mode == "rwc" and version == mine == 0 and not tables and not foreign
        if not self.new and mine != APPLICATION:
            raise JournalError(f"{self.path} is not a journal of fer_stream: give another path")
        if not self.new and version not in (FORMAT, BEFORE):
            way = "update fer-stream" if version > FORMAT else "move it away, and a new one begins"
            raise JournalError(
                f"the journal {self.path} has format {version}, this program reads format {FORMAT}: "
                f"{way}, or give another path"
            )
        self.annotated = self.new or version == FORMAT
        if mode == "ro":
            return
        self._db.execute("PRAGMA secure_delete = ON")  # purged data is overwritten, not only unlinked
        if mode == "rwc":
            self._db.execute(f"PRAGMA journal_mode = {journal_mode}")
            self._db.execute("PRAGMA synchronous = FULL")
        if self.new:
            self._make(numbers)
        elif mode == "rwc" and not self.annotated:
            self._add_annotations()

    def _make(self, numbers: Numbers) -> None:
        # One transaction: a journal with a format also has its numbers, even if this process is killed here.
        with self.transaction() as db:
            for statement in (*_SCHEMA, *_ANNOTATIONS):
                db.execute(statement)
            db.execute("INSERT INTO head VALUES (1, ?, ?)", (numbers.cursor, numbers.cursor))
            db.executemany("INSERT INTO cameras VALUES (?, ?, ?)", numbers.cameras)
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute(f"PRAGMA application_id = {APPLICATION}")
        self.empty_log()  # the application id must be in the file itself

    def _add_annotations(self) -> None:
        with self.transaction() as db:
            for statement in _ANNOTATIONS:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {FORMAT}")
        self.annotated = True

    def _pragma(self, name: str) -> Any:
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    def rows(
        self, statement: str, values: tuple[object, ...], kinds: tuple[Any, ...], least: int = 0
    ) -> list[tuple[Any, ...]]:
        """Return at least ``least`` rows. Check the columns' types, as SQLite stores any type in any column."""
        try:
            rows = self._db.execute(statement, values).fetchall()
        except FAILURES as error:
            raise self.failure(error, "read") from error
        if len(rows) < least or not all(all(map(isinstance, row, kinds)) for row in rows):
            raise self.damage()
        return rows

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run ``BEGIN IMMEDIATE`` to ``COMMIT``, after which the changes are on disk; or roll all of them back."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite may have rolled back by itself, for example on a full disk
                    self._db.execute("ROLLBACK")
                raise
        except FAILURES as error:
            raise self.failure(error, "written") from error

    def empty_log(self) -> bool:
        """Move the write-ahead log into the file; ``False`` if a reader of an older state still needs the log."""
        try:
            return not self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except FAILURES as error:
            raise self.failure(error, "written") from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._db.close()

    def damage(self) -> DamagedError:
        """Mark the file as damaged, and return the error to raise."""
        self.damaged = True
        return DamagedError(f"the journal {self.path} is damaged: move it away, and a new one begins")

    def failure(self, error: Exception, what: str) -> JournalError:
        """Translate an error. For a damaged file, set ``damaged`` and return a `DamagedError`."""
        reason = self._refusal(error) if what == "read" else None
        text = f"the journal {self.path} cannot be {what}: {reason or getattr(error, 'strerror', None) or error}"
        if not self._means_damage(error):
            return JournalError(text)
        self.damaged = True
        return DamagedError(text)

    def _refusal(self, error: Exception) -> str | None:
        """Return why a reader is refused if SQLite's message ("attempt to write a readonly database") misleads."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            return None
        for path in (self.path, self._log):
            if path.exists() and not os.access(path, os.R_OK):
                return f"this user may not read {path}; let its owner grant that, or copy the events with subscribe"
        if not os.access(self.path.absolute().parent, os.W_OK):
            return (
                f"the latest events are in {self._log}, which SQLite reads only if it may write to the folder; "
                "copy both files to a folder of your own"
            )
        return None

    def _means_damage(self, error: Exception) -> bool:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # Python's errors: of invalid text. An OverflowError or a misuse is not the file's fault.
            return isinstance(error, UnicodeDecodeError) or type(error) is sqlite3.OperationalError
        code &= 0xFF  # the other bits are SQLite's extended code
        # SQLITE_ERROR may also mean a missing table, after which nothing can be written, so check the schema.
        return not self._whole() if code == sqlite3.SQLITE_ERROR else code in _DAMAGE

    def _whole(self) -> bool:
        """Whether the schema contains all tables and indexes of `_SCHEMA`."""
        try:
            return _expected(self.annotated) <= set(self._db.execute("SELECT name, sql FROM sqlite_master"))
        except FAILURES as error:
            return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGE


@cache
def _expected(annotated: bool) -> frozenset[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as db:
        for statement in (*_SCHEMA, *(_ANNOTATIONS if annotated else ())):
            db.execute(statement)
        return frozenset(db.execute("SELECT name, sql FROM sqlite_master"))


def checksum(text: str) -> int:
    """Return the CRC-32 stored with an event's text, as SQLite does not detect changed bytes."""
    return zlib.crc32(text.encode())


def is_journal(path: Path) -> bool:
    """Whether a file that SQLite cannot read is a journal, by the application id in its header."""
    try:
        with path.open("rb") as file:
            return file.read(_HEADER)[68:72] == APPLICATION.to_bytes(4, "big")
    except OSError:
        return False
