"""Converts cursors between the text that users see and the numbers of events in their journals.

Users must not compute with cursors. The cursor of one journal, or of one camera, is a number. That of a whole cell has
a number for each of its partitions: ``00:17,01:4,...`` with all partitions, ascending, in hexadecimal.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fer_stream.types import Cursor

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMBER = "(?:0|[1-9][0-9]{0,18})"  # SQLite's integers have 64 bits
_ONE = re.compile(_NUMBER)
_SEVERAL = re.compile(rf"[0-9a-f]{{2}}:{_NUMBER}(?:,[0-9a-f]{{2}}:{_NUMBER}){{1,255}}")


def to_cursor(*numbers: int) -> Cursor:
    """Return the cursor of the event with this number, or of a cell with these numbers; 0 is a journal's beginning."""
    if len(numbers) == 1:
        return Cursor(str(numbers[0]))
    return Cursor(",".join([f"{partition:02x}:{number}" for partition, number in enumerate(numbers)]))


class CellCursor:
    """The cursor of a cell, of which one number changes at a time; `to_cursor` would write all of them each time."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._parts = to_cursor(*numbers).split(",")

    def at(self, partition: int, number: int) -> Cursor:
        """Return the cursor with another number for a partition, which it keeps."""
        self._parts[partition] = f"{partition:02x}:{number}"
        return Cursor(",".join(self._parts))


def to_number(cursor: str) -> int:
    """Return the number of the event at a cursor of one journal.

    Raises:
        ValueError: the text is not such a cursor.
    """
    if not _ONE.fullmatch(cursor):
        raise ValueError(f"{cursor!r:.80} is not a cursor: give the cursor of an event, or 0 for the beginning")
    return int(cursor)


def to_numbers(cursor: str) -> tuple[int, ...]:
    """Return the number of a cursor in each partition: one number, or as many as the cell has partitions.

    Raises:
        ValueError: the text is not a cursor.
    """
    if not _SEVERAL.fullmatch(cursor):
        return (to_number(cursor),)
    parts = [part.partition(":") for part in cursor.split(",")]
    for expected, (token, _, _) in enumerate(parts):
        if token != f"{expected:02x}":
            raise ValueError(
                f"{cursor!r:.80} is not a cursor: it has partition {token} in place of {expected:02x}; give the "
                "cursor of an event, complete, or 0 for the beginning"
            )
    return tuple(int(number) for _, _, number in parts)
