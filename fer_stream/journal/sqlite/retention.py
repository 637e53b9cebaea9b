"""Deletes old events from the journal, also while an aggregator writes it."""

from __future__ import annotations

import time
from time import time as wall_clock
from typing import TYPE_CHECKING

from fer_stream.errors import JournalError
from fer_stream.journal.sqlite.claim import elsewhere
from fer_stream.journal.sqlite.database import Database
from fer_stream.journal.sqlite.files import lock_of, shared
from fer_stream.journal.sqlite.notes import forget
from fer_stream.journal.sqlite.reader import Reader

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


def purge(path: Path, older_than: float, patience: float = 10.0) -> int:
    """Delete the events that were journaled before a time, and their annotations, also while an aggregator writes.

    Args:
        path: the journal's path.
        older_than: Unix time in seconds.
        patience: seconds to wait for other readers and writers.

    Returns:
        The number of deleted events. Subscribers that request them get a ``stream.gap``.

    Raises:
        JournalError: there is no journal, it cannot be written, or its log still holds deleted text.
    """
    if shared(path) and (other := elsewhere(lock_of(path))):
        raise JournalError(
            f"the journal {path} is written by {other}, and file locks may not work between machines: "
            "purge it on that machine"
        )
    Reader(path).close()  # reports a missing journal more clearly than an error of opening it
    db = Database(path, "rw", patience)
    try:
        with db.transaction() as connection:
            count = delete(connection, older_than, wall_clock())
            if db.annotated:
                forget(connection, older_than)
        deadline = time.monotonic() + patience
        while not db.empty_log():
            if time.monotonic() > deadline:
                raise JournalError(
                    f"{count} events are deleted, but {path}-wal still holds their text, because another "
                    "process keeps reading the journal: purge again when it has ended"
                )
            time.sleep(0.05)
    finally:
        db.close()
    return count


def delete(db: sqlite3.Connection, older_than: float, now: float) -> int:
    """Delete old events up to the first one that is not old, and return how many were deleted.

    The wall clock may have been wrong for a while. An event that looks old but follows a newer one was journaled by a
    clock that was slow. An event from the future was journaled by a clock that was fast, so it does not count as new.
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
