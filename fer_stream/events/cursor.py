"""Converts cursors between the text that users see and the number of the event in its journal.

Users must not compute with cursors: a later cursor that covers several journals will not be a plain number. Only code
that follows a single journal converts them.
"""

from __future__ import annotations

import re

from fer_stream.types import Cursor

_FORM = re.compile("0|[1-9][0-9]{0,18}")  # SQLite's integers have 64 bits


def to_cursor(number: int) -> Cursor:
    """Return the cursor of the event with this number; 0 is the journal's beginning."""
    return Cursor(str(number))


def to_number(cursor: str) -> int:
    """Return the number of the event at a cursor.

    Raises:
        ValueError: the text is not a cursor.
    """
    if not _FORM.fullmatch(cursor):
        raise ValueError(f"{cursor!r} is not a cursor: give the cursor of an event, or 0 for the beginning")
    return int(cursor)
