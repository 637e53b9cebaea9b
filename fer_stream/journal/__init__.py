"""The event log: SQLite, written before anything is published, read from any cursor.

One process writes (a lock beside the file keeps a second one out), any number read. It stores the text that
subscribers get, byte for byte, so a replay gives them the same events::

    claim        one writer, where other machines may share the file
    files        the path: the lock beside the file, who may read it, what is set aside
    database     the file: its schema, and which of SQLite's errors mean that it is damaged
    reader       events after a cursor
    writer       events in, numbered
    retention    old events out
"""

from fer_stream.journal.database import APPLICATION, FORMAT
from fer_stream.journal.files import shared
from fer_stream.journal.reader import Reader, gap
from fer_stream.journal.retention import purge
from fer_stream.journal.writer import Journal

__all__ = ["APPLICATION", "FORMAT", "Journal", "Reader", "gap", "purge", "shared"]
