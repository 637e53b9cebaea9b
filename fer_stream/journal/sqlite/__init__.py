"""The journal in an SQLite file on this machine.

A lock file keeps a second writer out. A damaged file is set aside, and a new one continues::

    claim        ensures a single writer if other machines may share the file
    files        the path: the lock file beside it, permissions, files set aside
    database     the file: its schema, and which SQLite errors mean damage
    reader       reads events after a cursor
    writer       numbers and writes events
    retention    deletes old events
    store        the plug-in
"""

from fer_stream.journal.sqlite.database import APPLICATION, FORMAT
from fer_stream.journal.sqlite.files import shared
from fer_stream.journal.sqlite.reader import Reader
from fer_stream.journal.sqlite.retention import purge
from fer_stream.journal.sqlite.store import SQLite
from fer_stream.journal.sqlite.writer import Writer

__all__ = ["APPLICATION", "FORMAT", "Reader", "SQLite", "Writer", "purge", "shared"]
