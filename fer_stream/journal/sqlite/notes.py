"""Annotations in the journal's file: a table beside the events, with numbers of its own."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from fer_stream.errors import WireError
from fer_stream.events import cloudevents
from fer_stream.events.annotations import LONGEST, decode, encode, unknown_camera
from fer_stream.journal.sqlite.database import checksum
from fer_stream.types import AnnotationPage

if TYPE_CHECKING:
    import sqlite3

    from fer_stream.journal.sqlite.database import Database
    from fer_stream.types import Annotation, AnnotationQuery


def add(database: Database, db: sqlite3.Connection, annotation: Annotation) -> Annotation:
    """Store an annotation in a transaction, unless its id is there already; return the stored one, with its number.

    Raises:
        AnnotationRefusedError: no camera of this name has been in the journal.
        DamagedError: the stored one was changed.
    """
    if db.execute("SELECT 1 FROM cameras WHERE camera = ?", (annotation.camera,)).fetchone() is None:
        raise unknown_camera(annotation.camera)
    there = db.execute("SELECT number, crc, text FROM annotations WHERE id = ?", (annotation.id,)).fetchone()
    if there is not None:
        return _checked(database, *there)
    text = encode(annotation)
    values = (annotation.id, annotation.camera, annotation.start, annotation.end, annotation.made / 1e9)
    done = db.execute(
        "INSERT INTO annotations (id, camera, start, until, made, crc, text) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*values, checksum(text), text),
    )
    return replace(annotation, number=done.lastrowid or 0)


SHORT = 31 * LONGEST
"""Periods of up to this many nanoseconds are found by the index of starts; longer ones are read in the order stored."""


def read(database: Database, wanted: AnnotationQuery) -> AnnotationPage:
    """See `fer_stream.plugins.JournalReader.annotations`.

    Raises:
        JournalError: the file cannot be read, or a stored text was changed.
    """
    where, values = ("AND camera = ?", (wanted.camera,)) if wanted.camera is not None else ("", ())
    index = "INDEXED BY annotations_start" if wanted.until - wanted.since <= SHORT else "NOT INDEXED"
    rows = database.rows(
        f"SELECT number, crc, text FROM annotations {index} "  # noqa: S608
        f"WHERE start > ? AND start < ? AND until > ? AND number > ? {where} ORDER BY number LIMIT ?",
        (
            max(-(2**63), wanted.since - LONGEST - 1),
            wanted.until,
            wanted.since,
            wanted.after,
            *values,
            wanted.limit + 1,
        ),
        (int, int, str),
    )
    found = [_checked(database, *row) for row in rows[: wanted.limit]]
    return AnnotationPage(found, found[-1].number if len(rows) > wanted.limit else 0)


def forget(db: sqlite3.Connection, older_than: float) -> None:
    """Delete, in a transaction, annotations made before a time (Unix seconds), and those whose events are deleted.

    These are the annotations that end no later than the oldest event that the journal still has of their camera.
    """
    db.execute("DELETE FROM annotations WHERE made < ?", (older_than,))
    for (camera,) in db.execute("SELECT DISTINCT camera FROM annotations").fetchall():
        oldest = "SELECT text FROM events WHERE camera = ? ORDER BY sequence LIMIT 1"
        row = db.execute(oldest, (camera,)).fetchone()
        if row is None:
            db.execute("DELETE FROM annotations WHERE camera = ?", (camera,))
            continue
        with suppress(WireError):  # a damaged event; reading it reports the damage
            time = cloudevents.decode(row[0]).time
            db.execute("DELETE FROM annotations WHERE camera = ? AND until <= ?", (camera, time))


def _checked(database: Database, number: int, crc: int, text: str) -> Annotation:
    if checksum(text) != crc:
        raise database.damage()
    try:
        return decode(text, number)
    except WireError as error:
        raise database.damage() from error
