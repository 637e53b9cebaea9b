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
    """Return the annotations in a table with the columns start, end and label, and optionally film, coder and track.

    Raises:
        AnnotationError: a column is missing, or a row has no label, or an end before its start.
    """
    start = sheet.column("the start", "start", "begin", "start time", "begin time")
    end = sheet.column("the end", "end", "stop", "end time")
    label = sheet.column("the label", "label", "annotation", "code", "behavior", "emotion")
    return _codings(sheet, "table", (start, end, label), sheet.seconds)


def read_bids(sheet: Sheet) -> list[Coding]:
    """Return the annotations in a BIDS events file: onset, duration, trial_type. Events without duration are left out.

    https://bids-specification.readthedocs.io, "Task events".

    Raises:
        AnnotationError: a column is missing, or a row has no onset or label, or a duration below 0.
    """
    label = sheet.column("the label", "trial_type", "label", "value")
    return _codings(sheet, "BIDS", ("onset", "duration", label), sheet.seconds)


def read_history(sheet: Sheet) -> list[Coding]:
    """Return annotations exported from the history page, with absolute times.

    If a coder annotated an interval several times, the last annotation counts. Track and start identify an interval,
    because its end may not have been known at the first annotation. The codings are sparse: annotators mark only wrong
    labels.

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
    annotations: dict[tuple[str | None, str | None], list[Annotation]] = {}
    for row in sheet.rows():
        began = time(row, start)
        ended = began if relative and row.cells[end].lower() in MISSING else time(row, end) + (began if relative else 0)
        if ended < began or not math.isfinite(ended):
            raise AnnotationError(f"{sheet.path}, line {row.line} ends before it starts: correct it")
        which, who = (_cell(row, column) for column in (film, coder))
        if not history:
            which = film_name(which, written=True)
        annotation = Annotation(began, ended, sheet.text(row, label), _cell(row, track))
        annotations.setdefault((which or None, who or None), []).append(annotation)
    if history:
        annotations = {
            key: list({(one.start, one.track): one for one in given}.values()) for key, given in annotations.items()
        }
    return codings(sheet.path, kind, annotations, absolute=history)


def _cell(row: Row, column: str) -> str:
    text = row.cells[column] if column else ""
    return "" if text.lower() in MISSING else text
