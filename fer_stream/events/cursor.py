"""Cursors as text, as users see them, and as the number by which one journal counts its events.

Users must not compute with a cursor: one that covers several journals will be more than a number. Only the code that
follows a single journal converts it.
"""

from __future__ import annotations

import re

from fer_stream.types import Cursor

_FORM = re.compile("0|[1-9][0-9]{0,18}")  # SQLite holds the number in 64 bits


def to_cursor(number: int) -> Cursor:
    """Return the cursor of a journal's event with this number; 0 is the beginning."""
    return Cursor(str(number))


def to_number(cursor: str) -> int:
    """Return the number of the event at a cursor.

    Raises:
        ValueError: the text is not a cursor.
    """
    if not _FORM.fullmatch(cursor):
        raise ValueError(f"{cursor!r} is not a cursor: give the cursor of an event, or 0 for the beginning")
    return int(cursor)
