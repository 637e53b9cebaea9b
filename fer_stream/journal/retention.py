"""Old events out of the journal, also while an aggregator writes it."""

from __future__ import annotations

import time
from time import time as wall_clock
from typing import TYPE_CHECKING

from fer_stream.errors import JournalError
from fer_stream.journal.claim import elsewhere
from fer_stream.journal.database import Database
from fer_stream.journal.files import lock_of, shared
from fer_stream.journal.reader import Reader

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


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
    if shared(path) and (other := elsewhere(lock_of(path))):
        raise JournalError(
            f"the journal {path} is written by {other}, and locks may not reach that far: purge it on that machine"
        )
    Reader(path).close()  # which says that there is none, rather than that it cannot be opened
    db = Database(path, "rw", patience)
    try:
        with db.transaction() as connection:
            count = delete(connection, older_than, wall_clock())
        deadline = time.monotonic() + patience
        while not db.empty_log():
            if time.monotonic() > deadline:
                raise JournalError(
                    f"{count} events are deleted, but {path}-wal still holds their text, because somebody keeps "
                    "reading the journal: purge once more when they have ended"
                )
            time.sleep(0.05)
    finally:
        db.close()
    return count


def delete(db: sqlite3.Connection, older_than: float, now: float) -> int:
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
