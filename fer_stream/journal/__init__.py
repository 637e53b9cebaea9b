"""The journal: an SQLite event log that is written before an event is published, and can be read from any cursor.

One process writes it (a lock file keeps a second one out), any number of processes read it. It stores the exact text
that subscribers get, so that a replay returns the same events::

    claim        ensures a single writer if other machines may share the file
    files        the path: the lock file beside it, permissions, files set aside
    database     the file: its schema, and which SQLite errors mean damage
    reader       reads events after a cursor
    writer       numbers and writes events
    retention    deletes old events
"""

from fer_stream.journal.database import APPLICATION, FORMAT
from fer_stream.journal.files import shared
from fer_stream.journal.reader import Reader, gap
from fer_stream.journal.retention import purge
from fer_stream.journal.writer import Journal

__all__ = ["APPLICATION", "FORMAT", "Journal", "Reader", "gap", "purge", "shared"]
