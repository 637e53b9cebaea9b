"""Reads trial markers: named spans of films."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fer_stream.errors import AnnotationError
from fer_stream.interchange.sheets import MISSING, Row, Sheet, read_sheet

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Marker:
    """A trial: a named span of a film, in seconds of the film's clock.

    ``film`` is ``None`` where the file has no such column.
    """

    name: str
    start: float
    end: float
    film: str | None = None


def read_markers(path: Path) -> list[Marker]:
    """Return the markers in a table, in the order of its rows.

    The table is CSV or TSV (`fer_stream.interchange.sheets`) with a heading: the columns ``start``, ``end``, ``name``
    and optionally ``film``; or a BIDS events file with ``onset``, ``duration`` and ``trial_type``. Other columns are
    ignored. Markers may overlap, and several may have the same name.

    Raises:
        AnnotationError: the file cannot be read or has no rows, a column is missing, or a row has no name, no times, or
            an end that is not after its start.
    """
    sheet = read_sheet(path)
    onset = "onset" in sheet and "start" not in sheet
    start = sheet.column("the start", "onset" if onset else "start")
    end = sheet.column("the duration" if onset else "the end", "duration" if onset else "end")
    name = sheet.column("the name", *(["trial_type", "name"] if onset else ["name", "trial", "label"]))
    film = sheet.column("the film", "film", "video", "file", needed=False)
    found = [_marker(sheet, row, (start, end, name, film), relative=onset) for row in sheet.rows()]
    if not found:
        raise AnnotationError(f"{path} has a heading, but no markers below it")
    return found


def _marker(sheet: Sheet, row: Row, columns: tuple[str, str, str, str], *, relative: bool) -> Marker:
    start, end, name, film = columns
    where = f"{sheet.path}, line {row.line}"
    began = round(sheet.seconds(row, start), 9)
    if row.cells[end].lower() in MISSING:
        raise AnnotationError(f"{where}: the column {end} is empty, but a marker needs an end")
    # To the nanosecond: the sum 0.1 + 0.2 would overlap a trial that starts at 0.3.
    ended = round(sheet.seconds(row, end) + (began if relative else 0.0), 9)
    if ended <= began:
        what = f"lasts {ended - began:g} s" if relative else f"ends at {ended:g} s, not after its start at {began:g} s"
        raise AnnotationError(f"{where}: the marker {what}")
    which = row.cells[film] if film else ""
    return Marker(sheet.text(row, name), began, ended, None if which.lower() in MISSING else which)
