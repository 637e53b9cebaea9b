"""The record of deliveries: how far each sink has come, its dead letters, and what the operator has asked for.

It is one SQLite file. ``fer-stream deliver`` has it open all the time; its commands ``status``, ``retry``, ``skip`` and
``discard`` read and change it meanwhile.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fer_stream.errors import DeliveryError
from fer_stream.settings.redaction import redact
from fer_stream.system import files, folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fer_stream.settings.tree import Settings
    from fer_stream.types import Cursor

    Action = Literal["retry", "skip"]

FORMAT = 1
"""``PRAGMA user_version`` of the file."""

APPLICATION = 0x46455244
"""``PRAGMA application_id`` of the file, which distinguishes it from other SQLite files."""

PATIENCE = 5.0
"""Seconds to wait for another process that writes."""

_SCHEMA = (
    """CREATE TABLE sinks (
    name TEXT PRIMARY KEY, cursor TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'new', error TEXT NOT NULL DEFAULT '',
    changed REAL NOT NULL, delivered INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0,
    filtered INTEGER NOT NULL DEFAULT 0
)""",
    """CREATE TABLE dead_letters (
    number INTEGER PRIMARY KEY, sink TEXT NOT NULL, id TEXT NOT NULL, text TEXT NOT NULL, reason TEXT NOT NULL,
    since REAL NOT NULL, UNIQUE (sink, id)
)""",
    """CREATE TABLE requests (
    number INTEGER PRIMARY KEY, sink TEXT NOT NULL, action TEXT NOT NULL, id TEXT NOT NULL, UNIQUE (sink, action, id)
)""",
)


class SinkState(NamedTuple):
    """What is recorded of a sink."""

    name: str
    cursor: Cursor
    """Up to here every event is delivered, left out by the sink's filters, or a dead letter."""
    state: str
    """``new``, ``ok``, ``failing`` (it tries again), ``stopped`` (for the operator) or ``idle`` (it is not served)."""
    error: str
    changed: float
    """When the state began, in Unix seconds."""
    delivered: int
    dead: int
    """How many events became dead letters in all; some of them may have been delivered since."""
    filtered: int


_ALL = "SELECT name, cursor, state, error, changed, delivered, dead, filtered FROM sinks"
"""The columns are the fields of `SinkState`."""


class DeadLetter(NamedTuple):
    """An event that a sink's receiver has refused for good, or that the operator has skipped."""

    id: str
    text: str
    reason: str
    since: float = 0.0
    """When it became one, in Unix seconds."""


class Request(NamedTuple):
    """Something that the operator has asked of a sink: of one event, or with an empty id of all."""

    number: int
    action: Action
    id: str


def path_of(settings: Settings) -> Path:
    """Return where the record is: as the settings say, or else beside the journal.

    A journal on servers has its record in the user's state folder, under the name of its cell or else of its servers.
    """
    journal = settings.journal.path
    if settings.deliveries:
        return settings.deliveries
    if isinstance(journal, Path):
        return journal.with_name(f"{journal.name}.deliveries.db")
    hosts = redact(journal).partition("://")[2].rpartition("@")[2]
    name = settings.fleet.cell or re.sub(r"[^A-Za-z0-9.-]+", "-", hosts).strip("-")
    return folders.state() / f"{name}.deliveries.db"


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep every other ``fer-stream deliver`` from using the record while the context lasts.

    Raises:
        DeliveryError: another one uses it, or its folder cannot be written.
    """
    lock_path = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DeliveryError(
            f"the record of deliveries {path} cannot be written: {error.strerror}; give another path (deliveries)"
        ) from error
    try:
        try:
            files.lock(lock)
        except BlockingIOError as error:
            raise DeliveryError(
                f"the record of deliveries {path} is in use by another fer-stream deliver: stop that one, or give "
                "another path (deliveries)"
            ) from error
        yield
    finally:
        os.close(lock)


def in_use(path: Path) -> bool:
    """Return whether a ``fer-stream deliver`` uses the record now."""
    try:
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDONLY)
    except OSError:  # there was never one, or it belongs to somebody else
        return False
    try:
        files.lock(lock, shared=True)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


class DeliveryState:
    """The record's file. Several threads may use one object."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open it.

        Args:
            path: the file.
            create: make it if there is none.

        Raises:
            DeliveryError: there is none, it is not one, or it cannot be used.
        """
        self.path = path
        self._lock = threading.Lock()
        if not create and not path.exists():
            raise self._missing()
        try:
            if create:  # SQLite would create it, and its log, with the umask's mode
                with suppress(FileExistsError):
                    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise self._failure(error) from error
        try:
            self._prepare(create)
            self._inode = path.stat().st_ino
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise self._failure(error) from error
            raise

    def _prepare(self, create: bool) -> None:
        # In this order: another process may be making the tables and setting both numbers, in one transaction.
        empty = not self._db.execute("SELECT 1 FROM sqlite_master").fetchone()
        mine, version = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if empty and not create:
            raise self._missing()  # or it is being made now
        if not empty and mine != APPLICATION:
            raise DeliveryError(f"{self.path} is not a record of deliveries: give another path (deliveries)")
        if not empty and version != FORMAT:
            raise DeliveryError(
                f"the record of deliveries {self.path} has format {version}, this program uses format {FORMAT}: update "
                "fer-stream, or give another path (deliveries)"
            )
        self._db.execute("PRAGMA secure_delete = ON")  # a discarded event is overwritten, not only unlinked
        if create:
            self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if empty:
            with self._transaction() as db:
                for statement in _SCHEMA:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {FORMAT}")
                db.execute(f"PRAGMA application_id = {APPLICATION}")

    # What sinks have done

    def begin(self, sink: str, cursor: Cursor) -> None:
        """Record where a sink begins, unless it is known already."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO sinks (name, cursor, changed) VALUES (?, ?, ?)", (sink, cursor, time.time())
            )

    def sinks(self) -> list[SinkState]:
        """Return what is recorded of all sinks, by name."""
        return [SinkState(*row) for row in self._rows(f"{_ALL} ORDER BY name")]

    def sink(self, name: str) -> SinkState | None:
        """Return what is recorded of a sink; ``None`` if it is new."""
        found = self._rows(f"{_ALL} WHERE name = ?", name)
        return SinkState(*found[0]) if found else None

    def advance(
        self, sink: str, cursor: Cursor, *, delivered: int, filtered: int, dead: Sequence[DeadLetter] = ()
    ) -> None:
        """Record in one transaction that a sink is done with all events up to a cursor, and what became of them."""
        with self._transaction() as db:
            db.execute(
                "UPDATE sinks SET cursor = ?, delivered = delivered + ?, filtered = filtered + ?, dead = dead + ? "
                "WHERE name = ?",
                (cursor, delivered, filtered, len(dead), sink),
            )
            self._bury(db, sink, dead)

    def tell(self, sink: str, state: str, error: str) -> None:
        """Record a sink's state."""
        with self._transaction() as db:
            db.execute(
                "UPDATE sinks SET changed = CASE state WHEN ? THEN changed ELSE ? END, state = ?, error = ? "
                "WHERE name = ?",
                (state, time.time(), state, error, sink),
            )

    def rest(self, served: Iterable[str]) -> None:
        """Record that all sinks except these are idle: no process serves them."""
        known = set(served)
        for sink in self.sinks():
            if sink.name not in known:
                self.tell(sink.name, "idle", sink.error)

    def forget(self, sink: str) -> None:
        """Delete everything that is recorded of a sink."""
        with self._transaction() as db:
            for statement in ("sinks WHERE name = ?", "dead_letters WHERE sink = ?", "requests WHERE sink = ?"):
                db.execute(f"DELETE FROM {statement}", (sink,))  # noqa: S608  (constants)

    # Dead letters

    def dead_letters(
        self, sink: str, identity: str = "", after: int = 0, limit: int = -1
    ) -> list[tuple[int, DeadLetter]]:
        """Return a sink's dead letters after a number, or the one with an id, each with its number, oldest first."""
        rows = self._rows(
            "SELECT number, id, text, reason, since FROM dead_letters WHERE sink = ? AND number > ? AND ? IN ('', id) "
            "ORDER BY number LIMIT ?",
            *(sink, after, identity, limit),
        )
        return [(row[0], DeadLetter(*row[1:])) for row in rows]

    def count_dead_letters(self) -> dict[str, int]:
        """Return the number of dead letters of each sink that has any."""
        return dict(self._rows("SELECT sink, COUNT(*) FROM dead_letters GROUP BY sink"))

    def revived(self, sink: str, delivered: Iterable[str], dead: Sequence[DeadLetter]) -> None:
        """Record that dead letters were delivered after all, by their ids, and why others are still refused."""
        with self._transaction() as db:
            gone = list(delivered)
            db.executemany(
                "DELETE FROM dead_letters WHERE sink = ? AND id = ?", [(sink, identity) for identity in gone]
            )
            db.execute("UPDATE sinks SET delivered = delivered + ? WHERE name = ?", (len(gone), sink))
            self._bury(db, sink, dead)

    def discard(self, sink: str, identity: str = "") -> int:
        """Delete a sink's dead letters, or the one with an id; return how many."""
        with self._transaction() as db:
            return db.execute("DELETE FROM dead_letters WHERE sink = ? AND ? IN ('', id)", (sink, identity)).rowcount

    def purge(self, older_than: float) -> int:
        """Delete the dead letters since before a time (Unix seconds); return how many."""
        with self._transaction() as db:
            return db.execute("DELETE FROM dead_letters WHERE since < ?", (older_than,)).rowcount

    @staticmethod
    def _bury(db: sqlite3.Connection, sink: str, dead: Sequence[DeadLetter]) -> None:
        db.executemany(
            "INSERT INTO dead_letters (sink, id, text, reason, since) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET reason = excluded.reason",
            [(sink, letter.id, letter.text, letter.reason, time.time()) for letter in dead],
        )

    # What the operator asks for

    def ask(self, sink: str, action: Action, identity: str = "") -> None:
        """Ask a sink for something: it sees that within a second."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO requests (sink, action, id) VALUES (?, ?, ?)", (sink, action, identity))

    def asked(self, sink: str) -> list[Request]:
        """Return what a sink is asked for, in order."""
        return [
            Request(*row)
            for row in self._rows("SELECT number, action, id FROM requests WHERE sink = ? ORDER BY 1", sink)
        ]

    def answered(self, *requests: Request) -> None:
        """Forget requests that have been carried out."""
        with self._transaction() as db:
            db.executemany("DELETE FROM requests WHERE number = ?", [(request.number,) for request in requests])

    def gone(self) -> bool:
        """Return whether the file was moved, deleted or replaced, so that what is recorded now is lost at the end."""
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            self._db.close()

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise self._failure(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run ``BEGIN IMMEDIATE`` to ``COMMIT``, after which the changes are on disk; or roll all of them back."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:  # SQLite may have rolled back by itself, for example on a full disk
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._failure(error) from error

    def _missing(self) -> DeliveryError:
        return DeliveryError(f"there is no record of deliveries at {self.path}: start fer-stream deliver first")

    def _failure(self, error: Exception) -> DeliveryError:
        reason = getattr(error, "strerror", None) or error
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return DeliveryError(
                f"the record of deliveries {self.path} is damaged ({reason}): move it away, and every sink begins anew"
            )
        return DeliveryError(
            f"the record of deliveries {self.path} cannot be used: {reason}; check the path and the disk"
        )
