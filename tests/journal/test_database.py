"""Files that are not journals are refused and left unchanged; which errors mean that a journal is damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from journals import event, execute, resets

from fer_stream.errors import JournalError
from fer_stream.journal.sqlite import FORMAT, Reader, Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def newer(path: Path) -> None:
    Writer(path).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()


def older(path: Path) -> None:
    """A format from before any release, with text that is invalid in this format."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript("""
            CREATE TABLE events (cursor INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL);
            INSERT INTO events VALUES (1, 'x', 'y');
            PRAGMA user_version = 1;
            PRAGMA application_id = 0x46455253;
        """)
    db.close()


def before_this(path: Path) -> None:
    """The format in which cursors and sequences were numbers in the events' text."""
    Writer(path).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 2")
    db.close()


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    db.close()


def foreign_with_version(path: Path) -> None:
    foreign(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"PRAGMA user_version = {FORMAT}")
    db.close()


def text(path: Path) -> None:
    path.write_text("Dear diary,\n" * 1000)


def short_text(path: Path) -> None:
    path.write_text("Dear diary,\n")


UNUSABLE: list[tuple[Callable[[Path], None], str]] = [
    (newer, f"has format {FORMAT + 1}, this program reads format {FORMAT}: update fer-stream, or give another path"),
    (
        older,
        f"events.db has format 1, this program reads format {FORMAT}: "
        "move it away, and a new one begins, or give another path",
    ),
    (
        before_this,
        f"events.db has format 2, this program reads format {FORMAT}: "
        "move it away, and a new one begins, or give another path",
    ),
    (foreign, "is not a journal of fer_stream: give another path"),
    (foreign_with_version, "is not a journal of fer_stream: give another path"),
    (text, r"the journal .*events.db cannot be"),
    (short_text, "is not a journal of fer_stream: give another path|cannot be read: file is not a database"),
]


@pytest.mark.parametrize(("spoil", "sentence"), UNUSABLE, ids=lambda value: getattr(value, "__name__", ""))
def test_a_file_that_is_not_a_journal_is_refused_and_left_unchanged(
    path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(JournalError, match=sentence):
        Writer(path)
    assert path.read_bytes() == before
    with pytest.raises(JournalError, match=sentence):
        Reader(path).read(0)
    # The refused path is not locked either.
    path.unlink()
    for companion in path.parent.glob("events.db-*"):
        companion.unlink()
    Writer(path).close()


def test_a_writer_makes_a_journal_of_an_empty_file_that_a_reader_refuses(path: Path) -> None:
    path.touch()
    with pytest.raises(JournalError, match="is not a journal"):
        Reader(path)
    writer = Writer(path)
    assert int(writer.append(resets(1))[0][0].cursor) == 1
    writer.close()


def test_a_journal_whose_tables_are_dropped_is_an_error(path: Path, journal: Writer) -> None:
    journal.append(resets(1))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE events")
    db.close()
    with pytest.raises(JournalError, match=r"events.db cannot be written: no such table"):
        journal.append(resets(1, first=2))
    with pytest.raises(JournalError, match=r"events.db cannot be read: no such table"):
        journal.read(0)
    journal.close()
    with pytest.raises(JournalError, match="cannot be written"):
        journal.append(resets(1, first=3))


def test_an_error_without_damage_sets_no_file_aside(path: Path, journal: Writer) -> None:
    """SQLITE_ERROR has many causes: here, a foreign trigger that cannot run."""
    journal.append(resets(1))
    execute(path, "CREATE TRIGGER theirs AFTER INSERT ON events BEGIN SELECT 1 FROM nowhere; END")
    with pytest.raises(JournalError, match=r"cannot be written: no such table: main\.nowhere"):
        journal.append(resets(1, first=2))
    assert journal.there()
    execute(path, "DROP TRIGGER theirs")
    assert len(journal.read(0)[0]) == 1
    assert int(journal.append(resets(1, first=2))[0][0].cursor) == 2
    with pytest.raises(JournalError, match="cannot be written: Python int too large"):
        journal.append([event("camera.reset", epoch=2**64)])
    assert journal.there(), "a number out of range is no damage either"
