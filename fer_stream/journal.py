"""The event log: SQLite, written before anything is published, read from any cursor.

One process writes (a lock beside the file keeps a second one out), any number read. What is stored is the text that
subscribers get, byte for byte, so a replay is the same as having been there.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import sqlite3
import time
from contextlib import suppress
from dataclasses import replace
from time import time as wall_clock
from typing import TYPE_CHECKING, Any, Self

from fer_stream.cloudevents import decode, encode, event_id
from fer_stream.errors import JournalError, WireError
from fer_stream.types import Event, EventType, GapData, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_NEWCOMERS = ""
"""In the table of cameras, in place of a name: the first epoch of a camera that is not in it."""

FORMAT = 1
"""Of the file, in ``PRAGMA user_version``."""

APPLICATION = 0x46455253
"""``PRAGMA application_id``: tells our journals from other SQLite files."""

MAX_EPOCH = 2**32
"""Of a camera: the protocol has 32 bits for it."""

_SQLITE_HEADER = 100
"""Bytes (SQLite's file format, section 1.3)."""

_FAILURES = (sqlite3.Error, OverflowError, UnicodeDecodeError)
"""What Python's module raises of a damaged file: also numbers beyond 64 bits, and messages that are not text."""

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT)
"""SQLite's codes for a damaged file; the last two are of a schema or an index that is not ours any more."""

MOST = 2**62
"""No cursor and no sequence comes as far."""

_SCHEMA = """
CREATE TABLE events (
    cursor INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, camera TEXT NOT NULL, epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL, journaled REAL NOT NULL, text TEXT NOT NULL, UNIQUE (camera, sequence)
);
CREATE INDEX events_journaled ON events (journaled);
CREATE INDEX events_epoch ON events (camera, epoch);
CREATE TABLE cameras (camera TEXT PRIMARY KEY, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL);
CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), cursor INTEGER NOT NULL, purged INTEGER NOT NULL);
INSERT INTO head VALUES (1, 0, 0);
"""


class Reader:
    """Reads a journal, also while another process writes it.

    Raises:
        JournalError: there is no journal of this format at ``path``.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise JournalError(f"there is no journal at {path}: give the path that the aggregator was given")
        self._path = path
        self._broken = False
        self._db = self._open(f"{path.absolute().as_uri()}?mode=ro")

    def _open(self, uri: str) -> sqlite3.Connection:
        db: sqlite3.Connection | None = None
        try:
            db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5)
            version = db.execute("PRAGMA user_version").fetchone()[0]
            mine = db.execute("PRAGMA application_id").fetchone()[0]
            tables = db.execute("SELECT 1 FROM sqlite_master").fetchone()
        except _FAILURES as error:
            if db is not None:
                db.close()
            raise self._error(error, "read") from error
        # SQLite takes a file that is shorter than its own header for an empty one.
        foreign = 0 < self._path.stat().st_size < _SQLITE_HEADER
        if isinstance(self, Journal) and version == mine == 0 and not tables and not foreign:
            return db
        if mine != APPLICATION:
            db.close()
            raise JournalError(f"{self._path} is not a journal of fer_stream: give another path")
        if version != FORMAT:
            db.close()
            raise JournalError(
                f"the journal {self._path} has format {version}, this program reads format {FORMAT}: "
                "update fer-stream, or give another path"
            )
        return db

    def cursor(self) -> int:
        """Return the cursor of the latest event, 0 where there is none yet."""
        return int(self._query("SELECT cursor FROM head", (), (int,), least=1)[0][0])

    def read(self, after: int, limit: int = 1000, camera: str | None = None) -> tuple[list[str], int]:
        """Return up to ``limit`` events with a cursor greater than ``after``, in order, and where to go on from.

        Where events after the cursor are past the retention, the first text is a ``stream.gap``.
        """
        # The plus keeps SQLite from an index that would have to sort all of a camera's events for every batch.
        where, values = ("AND +e.camera IN (?, '')", (camera,)) if camera else ("", ())  # a gap is of no camera
        # One statement, so that what a writer adds or purges meanwhile is all in it or all not.
        rows = self._query(
            "SELECT h.purged, h.cursor, e.cursor, e.text FROM head h "  # noqa: S608
            f"LEFT JOIN events e ON e.cursor > max(?, h.purged) {where} WHERE h.one = 1 ORDER BY e.cursor LIMIT ?",
            (after, *values, limit),
            (int, int, int | None, str | None),
            least=1,
        )
        purged, newest, last, text = rows[-1]
        texts = [] if text is None else [text for *_, text in rows]
        if after < purged:
            texts.insert(0, encode(gap(after, purged, "retention")))
        reached = last if len(rows) == limit and text is not None else max(after, newest)
        return texts, int(reached)

    def _query(
        self, statement: str, values: tuple[object, ...], kinds: tuple[Any, ...], least: int = 0
    ) -> list[tuple[Any, ...]]:
        """Return the rows, so many at least, whose columns are of these types: SQLite holds anything anywhere."""
        try:
            rows = self._db.execute(statement, values).fetchall()
        except _FAILURES as error:
            raise self._error(error, "read") from error
        if len(rows) < least or not all(all(map(isinstance, row, kinds)) for row in rows):
            raise self._damaged()
        return rows

    def _decoded(self, text: str) -> Event:
        try:
            return decode(text)
        except WireError as error:
            raise self._damaged() from error

    def _damaged(self) -> JournalError:
        self._broken = True
        return JournalError(f"the journal {self._path} is damaged: move it away, and a new one begins")

    def _error(self, error: Exception, what: str) -> JournalError:
        """Translate SQLite's error, and note where it says that the file itself is damaged."""
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # Python's own: what is no text, or beyond 64 bits
            self._broken = self._broken or not isinstance(error, sqlite3.ProgrammingError)
        else:  # the other bits are detail
            self._broken = self._broken or code & 0xFF in _DAMAGE
        return JournalError(f"the journal {self._path} cannot be {what}: {error}")

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Journal(Reader):
    """The writer's side. Every method that writes has returned only when the disk has it.

    A file that is found to be corrupt is set aside under another name, and a new one begins (`renew`).

    Raises:
        JournalError: the file cannot be made or written, is of another format, or another process writes it.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = wall_clock) -> None:
        self.notice = ""
        """What became of the file before this one, for people; empty where there was none."""
        self._path = path.resolve()  # whoever names the file by a link meets the same lock
        self._clock = clock
        self._broken = False
        self._aside: Path | None = None
        self._cursor = 0
        self._first_epoch = 1
        self._epochs: dict[str, int] = {}
        self._sequences: dict[str, int] = {}
        self._lock = self._take_lock()
        try:
            self._open_or_begin()
        except JournalError:
            self._give_up()
            raise

    def _give_up(self) -> None:
        os.close(self._lock)
        if hasattr(self, "_db"):
            self._db.close()

    def _open_or_begin(self) -> None:
        try:
            self._db, self._inode = self._begin()
            cursor = super().cursor()
            if not 0 <= cursor < MOST:
                raise self._damaged()
            self._cursor = cursor
            rows = self._query("SELECT camera, epoch, sequence FROM cameras", (), (str, int, int))
            if not all(0 <= epoch < MAX_EPOCH - 1 and 0 <= sequence < MOST for _, epoch, sequence in rows):
                self._first_epoch += max((epoch for _, epoch, _ in rows if 0 <= epoch < MAX_EPOCH - 1), default=0)
                raise self._damaged()
            for camera, epoch, sequence in rows:
                self._epochs[camera], self._sequences[camera] = epoch, sequence
            self._first_epoch = self._epochs.get(_NEWCOMERS, 1)
        except (*_FAILURES, JournalError) as error:
            failure = error if isinstance(error, JournalError) else self._error(error, "written")
            if not (self._broken and self._ours()):
                if failure is error:
                    raise
                raise JournalError(f"{failure}; give another path") from error
            # Numbers that no event had before: no id comes again, and whoever holds an older cursor is told of the gap.
            self._first_epoch = max(self._first_epoch, int(self._clock()))
            self._cursor = max(self._cursor + 1, self._first_epoch)
            self._anew()

    def _ours(self) -> bool:
        """Whether what SQLite cannot read is a journal nevertheless, by the one number in its header."""
        try:
            with self._path.open("rb") as file:
                return file.read(_SQLITE_HEADER)[68:72] == APPLICATION.to_bytes(4, "big")
        except OSError:
            return False

    def _begin(self) -> tuple[sqlite3.Connection, int]:
        db = self._db = self._open(f"{self._path.absolute().as_uri()}?mode=rwc")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")  # what is purged is overwritten, not only forgotten
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            db.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA user_version = {FORMAT}; PRAGMA application_id = {APPLICATION}; COMMIT;"
            )
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # whose file it is has to stand in the file itself
        return db, self._path.stat().st_ino

    def cursor(self) -> int:
        """Return the cursor of the latest event, 0 where there is none yet."""
        return self._cursor

    @property
    def broken(self) -> bool:
        """Whether the file was found to be corrupt: `renew` sets it aside."""
        return self._broken

    def there(self) -> bool:
        """Whether the file that is written is still the one at its path, and not known to be corrupt."""
        if self._broken:
            return False
        try:  # SQLite itself does not notice
            return self._path.stat().st_ino == self._inode
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # the disk's trouble, of which writing will tell

    def renew(self) -> None:
        """Begin another file where somebody took this one away, or it is corrupt; ``notice`` says which.

        Numbers go on, and what was in the old one is a gap. A corrupt one is kept under another name.

        Raises:
            JournalError: it cannot be made.
        """
        self._inode = -1  # a new file may have the old one's, and is not whole before all is written
        self._db.close()
        self._anew()

    def _anew(self) -> None:
        try:
            if self._broken:
                self._set_aside()
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in ("-wal", "-shm"):  # of a file that is not there any more: they would spoil the new one
                self._path.with_name(self._path.name + left).unlink(missing_ok=True)
            self._db, inode = self._begin()
            known = [(camera, self._epochs.get(camera, 0), n) for camera, n in self._sequences.items()]
            known.append((_NEWCOMERS, self._first_epoch, 0))
            with self._transaction() as db:
                db.execute("UPDATE head SET cursor = ?, purged = ?", (self._cursor, self._cursor))
                db.executemany("INSERT OR REPLACE INTO cameras VALUES (?, ?, ?)", known)
            self._inode = inode
        except (*_FAILURES, OSError) as error:
            raise JournalError(f"the journal {self._path} cannot be written: {error}") from error
        fate = f"is corrupt and was set aside as {self._aside.name}" if self._aside else "was taken away"
        self.notice = f"the journal {self._path} {fate}: a new one begins, and what was in the old one is a gap"
        self._aside = None

    def _set_aside(self) -> None:
        """Give the file, and what may be left of its log, a name that no other has."""
        names = (f"{self._path.name}.corrupt-{number}" for number in itertools.count(1))
        aside = next(path for path in map(self._path.with_name, names) if not path.exists())
        for part in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                self._path.with_name(self._path.name + part).rename(aside.with_name(aside.name + part))
        self._aside, self._broken = aside, False

    def _take_lock(self) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Beside the file, not on it: closing a descriptor of the file itself would drop SQLite's own locks.
            lock = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise JournalError(
                f"the journal {self._path} cannot be written: {error.strerror}; give another path"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise JournalError(
                f"the journal {self._path} is in use by another aggregator: stop that one, or give another path"
            ) from error
        return lock

    def epoch(self, camera: str) -> int:
        """Begin a new epoch of a camera and return its number, from 1."""
        with self._transaction() as db:
            row = db.execute(
                "INSERT INTO cameras VALUES (?, ?, 0) ON CONFLICT (camera) DO UPDATE SET epoch = epoch + 1 "
                "RETURNING epoch, sequence",
                (camera, self._first_epoch),
            ).fetchone()
            if type(row[0]) is not int or not 0 < row[0] < MAX_EPOCH:
                raise self._damaged()
        self._epochs[camera], self._sequences[camera] = row
        return self._epochs[camera]

    def append(self, events: Iterable[Event]) -> list[tuple[Event, str]]:
        """Write events in one transaction, and return them numbered, with the text that was stored.

        An event whose id is there already is left out: a repeat is harmless.
        """
        cursor, sequences, stored = self._cursor, dict(self._sequences), []
        with self._transaction() as db:
            for event in events:
                identity, sequence = event_id(event), sequences.get(event.camera, 0) + 1
                numbered = replace(event, sequence=sequence, cursor=cursor + 1)
                text = encode(numbered, identity)
                row = (cursor + 1, identity, event.camera, event.epoch, sequence, self._clock(), text)
                insert = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
                if db.execute(insert, row).rowcount == 0:
                    continue
                cursor, sequences[event.camera] = cursor + 1, sequence
                stored.append((numbered, text))
            if stored:
                db.execute("UPDATE head SET cursor = ?", (cursor,))
                for camera in {event.camera for event, _ in stored}:
                    db.execute(
                        "INSERT INTO cameras VALUES (?, 0, ?) ON CONFLICT DO UPDATE SET sequence = excluded.sequence",
                        (camera, sequences[camera]),
                    )
        self._cursor, self._sequences = cursor, sequences
        return stored

    def lose(self, count: int, reason: str) -> tuple[Event, str]:
        """Write that so many events could not be written, and return the ``stream.gap`` that tells of them.

        Raises:
            JournalError: it cannot be written.
        """
        cursor = self._cursor + count
        event = gap(self._cursor, cursor, reason)
        identity = event_id(replace(event, seq=cursor))
        text = encode(event, identity)
        with self._transaction() as db:
            row = (cursor, identity, event.camera, 0, cursor, self._clock(), text)
            db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            db.execute("UPDATE head SET cursor = ?", (cursor,))
        self._cursor = cursor
        return event, text

    def unclosed(self) -> list[Event]:
        """Return what an aggregator that died left open: the latest event of every face and interval without an end.

        In the order in which they should be closed: a face's intervals before the face, the faces before the camera.
        Their time and frame are the last of which anything is known of that face, or of that camera.
        """
        still: dict[tuple[str, int, int, str], Event] = {}
        latest: dict[tuple[str, int, int], Event] = {}
        # An epoch may have begun before all of the one before it was closed.
        try:
            rows = self._query(
                "SELECT e.text FROM cameras c CROSS JOIN events e ON e.camera = c.camera AND e.epoch >= c.epoch - 1 "
                "ORDER BY e.cursor",
                (),
                (str,),
            )
            events = [self._decoded(text) for (text,) in rows]
        except JournalError:
            if not self._broken:
                raise
            self.renew()
            return []  # what was open is in the gap with all the rest
        for event in events:
            family, _, what = event.type.partition(".")
            if family == "stream":
                continue
            key = (event.camera, event.epoch, event.track, family)
            for track in {event.track, 0}:
                latest[event.camera, event.epoch, track] = event
            if what in ("ended", "left", "offline"):
                still.pop(key, None)
            elif what != "reset":
                still[key] = event
        known = [
            replace(event, time=last.time, seq=last.seq)
            for event in still.values()
            for last in (latest[event.camera, event.epoch, event.track],)
        ]
        order = {"emotion": 0, "valence": 0, "face": 1, "camera": 2}
        return sorted(known, key=lambda e: (e.camera, e.epoch, order[e.type.partition(".")[0]], e.track))

    def purge(self, older_than: float) -> int:
        """Delete the events journaled before ``older_than`` (Unix seconds), and return how many there were."""
        with self._transaction() as db:
            return _delete(db, older_than, self._clock())

    def close(self) -> None:
        """Close the file and let others write it; a second call does nothing."""
        self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db, self._error)


def purge(path: Path, older_than: float, patience: float = 10.0) -> int:
    """Delete from a journal, whether or not an aggregator writes it now, what was journaled before a Unix time.

    Args:
        path: the journal's.
        older_than: Unix seconds.
        patience: seconds that others who read or write it may take.

    Returns:
        How many events there were. Subscribers who ask for them get a ``stream.gap``.

    Raises:
        JournalError: there is no journal, or it cannot be written, or what is deleted can still be found in its log.
    """
    with Reader(path) as reader:
        failure = reader._error
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=patience)
    try:
        db.execute("PRAGMA secure_delete = ON")
        with _Transaction(db, failure):
            count = _delete(db, older_than, wall_clock())
        deadline = time.monotonic() + patience
        # Until then the write-ahead log still holds it; who reads an older state keeps the log as it is.
        while db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise JournalError(
                    f"{count} events are deleted, but {path}-wal still holds their text, because somebody keeps "
                    "reading the journal: purge once more when they have ended"
                )
            time.sleep(0.05)
    except _FAILURES as error:
        raise JournalError(f"the journal {path} cannot be written: {error}") from error
    finally:
        db.close()
    return count


def _delete(db: sqlite3.Connection, older_than: float, now: float) -> int:
    """Delete what is too old up to the first event that is not, and return how many events there were.

    The wall clock may have been wrong for a while. An event that seems old, after one that is not, was journaled by a
    clock that was late, and one from the future by a clock that was early: neither says anything about its neighbours.
    """
    fresh = "SELECT cursor FROM events WHERE +journaled BETWEEN ? AND ? ORDER BY cursor LIMIT 1"
    first = db.execute(fresh, (older_than, now)).fetchone()
    last = db.execute(
        "SELECT max(cursor) FROM events WHERE journaled < ? AND cursor < ?", (older_than, first[0] if first else 2**62)
    ).fetchone()[0]
    if last is None:
        return 0
    deleted = db.execute("DELETE FROM events WHERE cursor <= ?", (last,)).rowcount
    db.execute("UPDATE head SET purged = max(purged, ?)", (last,))
    return int(deleted)


class _Transaction:
    """``BEGIN IMMEDIATE`` to ``COMMIT``, or all of it undone; SQLite's errors come out as `JournalError`."""

    def __init__(self, db: sqlite3.Connection, failure: Callable[[Exception, str], JournalError]) -> None:
        self._db = db
        self._failure = failure

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except _FAILURES as error:
            raise self._translated(error) from error
        return self._db

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if error is None:
                self._db.execute("COMMIT")
            elif self._db.in_transaction:  # SQLite may have rolled back by itself, on a full disk for one
                self._db.execute("ROLLBACK")
        except _FAILURES as failure:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise self._translated(failure) from failure
        if isinstance(error, _FAILURES):
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> JournalError:
        return self._failure(error, "written")


def gap(after: int, upto: int, reason: str) -> Event:
    """Return the event that tells a subscriber which cursors it will not get. It is never journaled itself."""
    data = GapData(after, upto, reason)
    return Event(EventType.STREAM_GAP, "", 0, 0, 0, Nanoseconds(0), data, sequence=0, cursor=upto)
