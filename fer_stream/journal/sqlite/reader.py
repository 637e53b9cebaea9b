"""Reads events after a cursor from the journal's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from fer_stream.errors import JournalError
from fer_stream.journal.contents import stored_gap
from fer_stream.journal.sqlite import notes
from fer_stream.journal.sqlite.database import Database, checksum
from fer_stream.types import AnnotationPage

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.types import AnnotationQuery


class Reader:
    """Reads a journal, also while another process writes it.

    Args:
        journal: the journal's path, or an open connection to it.

    Raises:
        JournalError: there is no journal of this format at the path.
    """

    partitions = 1
    """See `fer_stream.plugins.JournalReader.partitions`."""

    def __init__(self, journal: Path | Database) -> None:
        if isinstance(journal, Database):
            self._db = journal
            return
        if not journal.is_file():
            raise JournalError(f"there is no journal at {journal}: give the path that the aggregator was given")
        self._db = Database(journal)

    def cursor(self, partition: int = 0) -> int:  # noqa: ARG002
        """Return the number of the latest event's cursor, 0 if there is none yet. There is only one partition."""
        return int(self._db.rows("SELECT cursor FROM head", (), (int,), least=1)[0][0])

    def read(
        self,
        after: int,
        limit: int = 1000,
        camera: str | None = None,
        size: int | None = None,
        partition: int = 0,  # noqa: ARG002
    ) -> tuple[list[str], int]:
        """Return the events after a cursor, in order, and the number of the cursor to continue after.

        If events after the cursor were deleted by retention, the first text is a ``stream.gap``.

        Args:
            after: the cursor's number.
            limit: most events to return.
            camera: only this camera's events, and gaps.
            size: most bytes of text to return, but at least one event.
            partition: there is only one.

        Raises:
            JournalError: the file cannot be read, or a stored text was changed.
        """
        # "+" keeps SQLite from the camera index, with which it would sort all of the camera's events for every batch.
        where, values = ("AND +e.camera IN (?, '')", (camera,)) if camera else ("", ())  # a gap has no camera
        # One statement, so that it sees the changes of a concurrent writer all or not at all.
        rows = self._db.rows(
            "SELECT h.purged, h.cursor, e.cursor, e.crc, e.text FROM head h "  # noqa: S608
            f"LEFT JOIN events e ON e.cursor > max(?, h.purged) {where} WHERE h.one = 1 ORDER BY e.cursor LIMIT ?",
            (after, *values, limit),
            (int, int, int | None, int | None, str | None),
            least=1,
        )
        purged, newest, *_, text = rows[0]
        texts = [stored_gap(after, purged, "retention").text] if after < purged else []
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

    def annotations(self, wanted: AnnotationQuery) -> AnnotationPage:
        """See `fer_stream.plugins.JournalReader.annotations`."""
        return notes.read(self._db, wanted) if self._db.annotated else AnnotationPage([], 0)

    def _checked(self, text: str, crc: int) -> str:
        if checksum(text) != crc:  # a damaged text would end every subscription that receives it
            raise self._db.damage()
        return text

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
