"""Numbers events and writes each once to the journal, on disk before they are published."""

from __future__ import annotations

from contextlib import contextmanager
from time import time as wall_clock
from typing import TYPE_CHECKING, Self

from fer_stream.errors import JournalError, RivalError, WireError
from fer_stream.events.cloudevents import decode, event_id
from fer_stream.journal.contents import Numbered, OpenEvents, number, stored_gap
from fer_stream.journal.sqlite import notes
from fer_stream.journal.sqlite.database import AFRESH, DamagedError, Database, Numbers, checksum, is_journal
from fer_stream.journal.sqlite.files import JournalFiles
from fer_stream.journal.sqlite.notes import forget
from fer_stream.journal.sqlite.reader import Reader
from fer_stream.journal.sqlite.retention import delete

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from fer_stream.plugins.journals import Stored
    from fer_stream.types import Annotation, AnnotationPage, AnnotationQuery, Event

_NEWCOMERS = ""
"""Row of the cameras table, in place of a name, that holds the first epoch of cameras not in the table."""

MAX_EPOCH = 2**32
"""Upper limit of a camera's epoch, which has 32 bits in the protocol."""

MOST = 2**62
"""Upper limit of cursors and sequences; larger ones mean damage."""

_INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (camera, epoch, frame, id) DO NOTHING"


class Writer:
    """A journal that this process writes. Methods that write return when the data is on disk.

    A corrupt file is renamed, and a new one is created (`renew`). A missing file of an earlier journal is also replaced
    by a new one. The new file's numbers are greater than any used before, because subscribers may hold old cursors.

    Raises:
        JournalError: the file cannot be created or written, has another format, or another process writes it.
        RivalError: raised by methods that write: another process writes the journal, too.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = wall_clock) -> None:
        self.notice = ""
        """What happened to the previous file, for display; empty if there was none."""
        self._clock = clock
        self._cursor = 0
        self._first_epoch = 1
        self._epochs: dict[str, int] = {}
        self._sequences: dict[str, int] = {}
        self._inode = -1
        self._files = JournalFiles(path)
        self._fate = "was taken away"
        try:
            self._begin()
        except JournalError:
            self._files.release(withdraw=True)
            raise

    def _begin(self) -> None:
        path = self._files.path
        if self._files.known and not path.exists():
            self._go_beyond()
            self._anew()
            return
        try:
            # An empty file of an earlier journal was truncated, or its creation was interrupted.
            self._db, self._inode = self._open(self._beyond() if self._files.known else AFRESH)
            try:
                self._take_up()
            except JournalError:
                self._db.close()
                raise
            if self._files.known and self._db.new:
                self._fate = "was emptied"
                self._report()
        except JournalError as error:
            if not (isinstance(error, DamagedError) and is_journal(path)):
                raise
            self._set_aside()
            self._go_beyond()
            self._anew()

    def _open(self, numbers: Numbers) -> tuple[Database, int]:
        db = Database(self._files.path, "rwc", numbers=numbers, log=not self._files.shared)
        return db, self._files.inode()

    def _take_up(self) -> None:
        """Continue with the numbers in the file."""
        cursor = Reader(self._db).cursor()
        if not 0 <= cursor < MOST:
            raise self._db.damage()
        self._cursor = cursor
        rows = self._db.rows("SELECT camera, epoch, sequence FROM cameras", (), (str, int, int))
        if not all(0 <= epoch < MAX_EPOCH - 1 and 0 <= sequence < MOST for _, epoch, sequence in rows):
            self._first_epoch += max((epoch for _, epoch, _ in rows if 0 <= epoch < MAX_EPOCH - 1), default=0)
            raise self._db.damage()
        for camera, epoch, sequence in rows:
            self._epochs[camera], self._sequences[camera] = epoch, sequence
        self._first_epoch = self._epochs.get(_NEWCOMERS, 1)

    def _beyond(self) -> Numbers:
        """Return numbers above all used ones: no id is repeated, and subscribers with an older cursor get a gap."""
        first_epoch = max(self._first_epoch, int(self._clock()))
        return Numbers(max(self._cursor + 1, first_epoch), ((_NEWCOMERS, first_epoch, 0),))

    def _go_beyond(self) -> None:
        numbers = self._beyond()
        self._cursor, (_, self._first_epoch, _) = numbers.cursor, numbers.cameras[0]

    def cursor(self) -> int:
        """Return the number of the latest event's cursor, 0 if there is none yet."""
        return self._cursor

    def cameras(self) -> dict[str, tuple[int, int]]:
        """Return each camera's latest epoch and sequence."""
        return {name: (self._epochs.get(name, 0), count) for name, count in self._sequences.items() if name}

    def read(
        self, after: int, limit: int = 1000, camera: str | None = None, size: int | None = None
    ) -> tuple[list[str], int]:
        """See `Reader.read`."""
        return Reader(self._db).read(after, limit, camera, size)

    @property
    def broken(self) -> bool:
        """Whether the file was found to be corrupt; `renew` then sets it aside."""
        return self._db.damaged

    @property
    def shared(self) -> str:
        """The file system and mount point, for display, if other machines may share the file; otherwise empty."""
        return self._files.shared

    def there(self) -> bool:
        """Whether the open file is still the one at its path, and not known to be corrupt."""
        return not self.broken and self._files.holds(self._inode)

    def renew(self) -> None:
        """Create a new file if this one was removed or is corrupt; ``notice`` says which.

        Numbering continues, and the events of the old file become a gap. A corrupt file is kept under another name.

        Raises:
            JournalError: the file cannot be created.
        """
        self._inode = -1  # the new file may get the same inode number, and is incomplete for now
        self._db.close()
        if self.broken:
            self._set_aside()
            self._db.damaged = False
        self._anew()

    def _set_aside(self) -> None:
        with self._translated():
            self._fate = f"is corrupt and was set aside as {self._files.set_aside()}"

    def _anew(self) -> None:
        known = [(camera, self._epochs.get(camera, 0), n) for camera, n in self._sequences.items() if camera]
        known.append((_NEWCOMERS, self._first_epoch, 0))
        with self._translated():
            self._files.make_folder()
            self._files.clear()
            self._db, inode = self._open(Numbers(self._cursor, tuple(known)))
        if not self._db.new:  # another process created a journal meanwhile: continue it with our numbers
            try:
                with self._db.transaction() as db:
                    db.execute("UPDATE head SET cursor = ?, purged = ?", (self._cursor, self._cursor))
                    db.executemany("INSERT OR REPLACE INTO cameras VALUES (?, ?, ?)", known)
            except JournalError:
                self._db.close()
                raise
        self._inode = inode
        self._report()

    def _report(self) -> None:
        fate, self._fate = self._fate, "was taken away"
        self.notice = f"the journal {self._files.path} {fate}: a new one begins, and a gap covers the old one's events"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JournalError(f"the journal {self._files.path} cannot be written: {error.strerror}") from error

    def epoch(self, camera: str) -> int:
        """Begin a new epoch of a camera and return its number, from 1."""
        with self._db.transaction() as db:
            self._advance(db, self._cursor)
            row = db.execute(
                "INSERT INTO cameras VALUES (?, ?, 0) ON CONFLICT (camera) DO UPDATE SET epoch = epoch + 1 "
                "RETURNING epoch, sequence",
                (camera, self._first_epoch),
            ).fetchone()
            if type(row[0]) is not int or not 0 < row[0] < MAX_EPOCH:
                raise self._db.damage()
            known = self._epochs.get(camera, 0 if camera in self._sequences else self._first_epoch - 1)
            if row != (known + 1, self._sequences.get(camera, 0)):
                raise self._rival()  # another writer began an epoch and has not written an event yet
        self._epochs[camera], self._sequences[camera] = row
        return self._epochs[camera]

    def append(self, events: Iterable[Event], lost: int = 0) -> list[Stored]:
        """Write events in one transaction, and return them numbered, with the text that was stored.

        An event whose id is stored already is left out, so writing it again is harmless.

        Args:
            events: the events.
            lost: number of further events that are lost; a ``stream.gap`` of as many cursors follows the others.
        """
        new = [(event, event_id(event)) for event in events]
        if not (new or lost):
            return []
        numbered, rows = self._numbered(new)
        with self._db.transaction() as db:
            # First, or another writer's rows would look like damage.
            self._advance(db, self._cursor + len(numbered) + lost)
            if db.executemany(_INSERT, rows).rowcount < len(
                rows
            ):  # repeats are rare, so check only when an insert was ignored
                db.execute("DELETE FROM events WHERE cursor > ?", (self._cursor,))
                numbered, rows = self._numbered(_without_repeats(db, new))
                db.executemany(_INSERT, rows)
                db.execute("UPDATE head SET cursor = ?", (self._cursor + len(numbered) + lost,))
            sequences = {each.event.camera: each.event.sequence for each in numbered}
            db.executemany(
                "INSERT INTO cameras VALUES (?, 0, ?) ON CONFLICT DO UPDATE SET sequence = excluded.sequence",
                sequences.items(),
            )
            reached = self._cursor + len(numbered)
            if lost:
                numbered.append(stored_gap(reached, reached + lost, "journal full"))
                db.execute(_INSERT, _row(numbered[-1], reached + lost, self._clock()))
        self._cursor = reached + lost
        self._sequences |= sequences
        return [(event, text) for event, text, _ in numbered]

    def check(self) -> None:
        """Check that this is still the only writer. Writing checks it, too; this is for times without events.

        Raises:
            RivalError: another process writes the journal.
        """
        if self._files.rival:
            raise self._rival()

    def _advance(self, db: sqlite3.Connection, cursor: int) -> None:
        """Advance the head's cursor from the last value written. Any other value was written by another process.

        Raises:
            RivalError: another process writes this journal.
            JournalError: the file was restored to an older state; `renew` continues with it.
        """
        self.check()
        if db.execute("UPDATE head SET cursor = ? WHERE cursor = ?", (cursor, self._cursor)).rowcount == 1:
            return
        found = db.execute("SELECT cursor FROM head").fetchone()
        if found is None or type(found[0]) is not int:
            raise self._db.damage()
        if found[0] > self._cursor:
            raise self._rival()
        self._fate, self._inode = "was put back to an older state", -1
        raise JournalError(f"the journal {self._files.path} {self._fate}: a gap reports the events in between")

    def _rival(self) -> RivalError:
        who = f" ({self._files.rival})" if self._files.rival else ""
        return RivalError(
            f"the journal {self._files.path} is written by another aggregator, too{who}: this one ends; give each its "
            "own journal with --journal"
        )

    def _numbered(self, new: Iterable[tuple[Event, str]]) -> tuple[list[Numbered], list[tuple[object, ...]]]:
        """Number events as if none were a repeat; return them with their table rows."""
        numbered, now = number(new, self._cursor, self._sequences), self._clock()
        rows = [_row(each, cursor, now) for cursor, each in enumerate(numbered, self._cursor + 1)]
        return numbered, rows

    def unclosed(self) -> list[Event]:
        """Return what a killed aggregator left open: see `fer_stream.journal.contents.OpenEvents`."""
        # A new epoch may have begun before everything of the previous one was closed.
        found = OpenEvents()
        try:
            rows = self._db.rows(
                "SELECT e.text FROM cameras c CROSS JOIN events e ON e.camera = c.camera AND e.epoch >= c.epoch - 1 "
                "ORDER BY e.cursor",
                (),
                (str,),
            )
            for (text,) in rows:
                found.see(self._decoded(text))
        except DamagedError:
            self.renew()
            return []  # the gap covers the open intervals
        return found.unclosed()

    def _decoded(self, text: str) -> Event:
        try:
            return decode(text)
        except WireError as error:
            raise self._db.damage() from error

    def purge(self, older_than: float) -> int:
        """Delete the events journaled before ``older_than`` (Unix seconds), and return how many were deleted."""
        with self._db.transaction() as db:
            self._advance(db, self._cursor)
            count = delete(db, older_than, self._clock())
            forget(db, older_than)
            return count

    def annotate(self, annotation: Annotation) -> Annotation:
        """Store an annotation; see `fer_stream.plugins.JournalWriter.annotate`."""
        with self._db.transaction() as db:
            self._advance(db, self._cursor)
            return notes.add(self._db, db, annotation)

    def annotations(self, wanted: AnnotationQuery) -> AnnotationPage:
        """See `Reader.annotations`."""
        return Reader(self._db).annotations(wanted)

    def close(self) -> None:
        """Close the file and let others write it; a second call does nothing."""
        self._db.close()
        self._files.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _row(numbered: Numbered, cursor: int, now: float) -> tuple[object, ...]:
    event, text, identity = numbered
    frame = event.frame % 2**63  # SQLite's integers are signed
    sequence = event.sequence or cursor  # a gap has none, and the table needs one that is unique
    return (cursor, identity, event.camera, event.epoch, frame, sequence, now, checksum(text), text)


def _without_repeats(db: sqlite3.Connection, new: Iterable[tuple[Event, str]]) -> list[tuple[Event, str]]:
    there = "SELECT 1 FROM events WHERE camera = ? AND epoch = ? AND frame = ? AND id = ?"
    kept: dict[str, Event] = {}
    for event, identity in new:
        key = (event.camera, event.epoch, event.frame % 2**63, identity)
        if identity not in kept and db.execute(there, key).fetchone() is None:
            kept[identity] = event
    return [(event, identity) for identity, event in kept.items()]
