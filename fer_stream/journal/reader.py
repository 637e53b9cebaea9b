"""Events after a cursor, from the journal's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from fer_stream.errors import JournalError
from fer_stream.events.cloudevents import encode
from fer_stream.events.cursor import to_cursor
from fer_stream.journal.database import Database, checksum
from fer_stream.types import Event, EventType, GapData, Nanoseconds

if TYPE_CHECKING:
    from pathlib import Path


class Reader:
    """Reads a journal, also while another process writes it.

    Args:
        journal: its path, or a connection to it that is open already.

    Raises:
        JournalError: there is no journal of this format at the path.
    """

    def __init__(self, journal: Path | Database) -> None:
        if isinstance(journal, Database):
            self._db = journal
            return
        if not journal.is_file():
            raise JournalError(f"there is no journal at {journal}: give the path that the aggregator was given")
        self._db = Database(journal)

    def cursor(self) -> int:
        """Return the number of the latest event's cursor, 0 where there is none yet."""
        return int(self._db.rows("SELECT cursor FROM head", (), (int,), least=1)[0][0])

    def read(
        self, after: int, limit: int = 1000, camera: str | None = None, size: int | None = None
    ) -> tuple[list[str], int]:
        """Return the events after a cursor, in order, and the number of the cursor to continue after.

        Where events after the cursor are past the retention, the first text is a ``stream.gap``.

        Args:
            after: the cursor's number.
            limit: so many at most.
            camera: of this camera alone.
            size: so many bytes of text at most, but one event at least.

        Raises:
            JournalError: the file cannot be read, or holds another text than was written.
        """
        # The plus keeps SQLite from an index that would have to sort all of a camera's events for every batch.
        where, values = ("AND +e.camera IN (?, '')", (camera,)) if camera else ("", ())  # a gap is of no camera
        # One statement, so that what a writer adds or purges meanwhile is all in it or all not.
        rows = self._db.rows(
            "SELECT h.purged, h.cursor, e.cursor, e.crc, e.text FROM head h "  # noqa: S608
            f"LEFT JOIN events e ON e.cursor > max(?, h.purged) {where} WHERE h.one = 1 ORDER BY e.cursor LIMIT ?",
            (after, *values, limit),
            (int, int, int | None, int | None, str | None),
            least=1,
        )
        purged, newest, *_, text = rows[0]
        texts = [encode(gap(after, purged, "retention"))] if after < purged else []
        if text is None:
            return texts, max(after, newest)
        taken, reached = 0, after
        for _, _, cursor, crc, text in rows:
            taken += len(text.encode())
            if size is not None and taken > size and reached > after:
                return texts, reached
            texts.append(self._checked(text, crc))
            reached = cursor
        return texts, reached if len(rows) == limit else max(after, newest)

    def _checked(self, text: str, crc: int) -> str:
        if checksum(text) != crc:  # a damaged text would end every subscription that gets it
            raise self._db.damage()
        return text

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def gap(after: int, upto: int, reason: str) -> Event:
    """Return the event that tells a subscriber which events it will not get, by the numbers of their cursors."""
    data = GapData(to_cursor(after), to_cursor(upto), reason)
    return Event(EventType.STREAM_GAP, "", 0, 0, 0, Nanoseconds(0), data, sequence=0, cursor=data.to_cursor)
