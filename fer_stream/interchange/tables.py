"""Reads annotations in plain tables: CSV and TSV, BIDS events, and annotations exported from the history page."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from fer_stream.errors import AnnotationError
from fer_stream.events.cloudevents import from_rfc3339
from fer_stream.interchange.annotations import HISTORY, Annotation, codings, film_name
from fer_stream.interchange.sheets import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_stream.interchange.annotations import Coding
    from fer_stream.interchange.sheets import Row, Sheet

HISTORY_COLUMNS = frozenset({"camera", "start", "end", "label", "annotator"})
"""Columns of annotations that were exported from the history page."""


def read_plain(sheet: Sheet) -> list[Coding]:
    """Return what a table says that has the columns start, end and label, and perhaps film, coder and track.

    Raises:
        AnnotationError: a column is missing, or a row has no label, or an end before its start.
    """
    start = sheet.column("the start", "start", "begin", "start time", "begin time")
    end = sheet.column("the end", "end", "stop", "end time")
    label = sheet.column("the label", "label", "annotation", "code", "behavior", "emotion")
    return _codings(sheet, "table", (start, end, label), sheet.seconds)


def read_bids(sheet: Sheet) -> list[Coding]:
    """Return what a BIDS events file says: onset, duration and trial_type. Events without a duration are left out.

    https://bids-specification.readthedocs.io, "Task events".

    Raises:
        AnnotationError: a column is missing, or a row has no onset or label, or a duration below 0.
    """
    label = sheet.column("the label", "trial_type", "label", "value")
    return _codings(sheet, "BIDS", ("onset", "duration", label), sheet.seconds)


def read_history(sheet: Sheet) -> list[Coding]:
    """Return annotations exported from the history page, with absolute times.

    Of a coder's annotations of an interval the last one counts. Intervals are told apart by their track and start: when
    one was annotated first, it may not have had its end. The codings are sparse: people mark what is wrong.

    Raises:
        AnnotationError: a time is not RFC 3339, or as `read_plain`.
    """

    def moment(row: Row, column: str) -> float:
        try:
            return from_rfc3339(row.cells[column]) / 1e9
        except ValueError as error:
            raise AnnotationError(f"{sheet.path}, line {row.line}, column {column}: {error}") from None

    found = _codings(sheet, HISTORY, ("start", "end", "label"), moment)
    return [replace(coding, sparse=True) for coding in found]


def _codings(sheet: Sheet, kind: str, columns: tuple[str, str, str], time: Callable[[Row, str], float]) -> list[Coding]:
    start, end, label = columns
    history, relative = kind == HISTORY, kind == "BIDS"
    film = sheet.column("the film", *(["camera"] if history else ["film", "video", "file", "stim_file"]), needed=False)
    coder = sheet.column("the coder", "coder", "annotator", "rater", needed=False)
    track = sheet.column("the track", "track", "tier", "subject", "face", needed=False)
    by: dict[tuple[str | None, str | None], list[Annotation]] = {}
    for row in sheet.rows():
        began = time(row, start)
        ended = began if relative and row.cells[end].lower() in MISSING else time(row, end) + (began if relative else 0)
        if ended < began or not math.isfinite(ended):
            raise AnnotationError(f"{sheet.path}, line {row.line} ends before it starts")
        which, who = (_cell(row, column) for column in (film, coder))
        if not history:
            which = film_name(which, written=True)
        spoken = Annotation(began, ended, sheet.text(row, label), _cell(row, track))
        by.setdefault((which or None, who or None), []).append(spoken)
    if history:
        by = {key: list({(one.start, one.track): one for one in rows}.values()) for key, rows in by.items()}
    return codings(sheet.path, kind, by, absolute=history)


def _cell(row: Row, column: str) -> str:
    text = row.cells[column] if column else ""
    return "" if text.lower() in MISSING else text
