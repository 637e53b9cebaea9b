"""Trials: named spans of a film, from a file of markers. They become the column ``trial`` of its tables.

Times are in the film's clock, in seconds. A trial includes its start, but not its end, so a frame belongs to only one
of two trials that follow each other.
"""

from __future__ import annotations

import csv
import logging
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from fer_stream.analysis.tables import PROVENANCE, sink
from fer_stream.errors import AnnotationError, ModelError
from fer_stream.events.spans import Trial
from fer_stream.system.csv_rows import CsvWriter
from fer_stream.system.extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fer_stream.interchange.markers import Marker

TRIAL = "trial"
"""The name of the column, which is the last one."""

TABLES = ("faces", "events", "frames")
"""The tables that have the column."""

_TIME = "time"

_log = logging.getLogger(__name__)


def by_film(markers: Sequence[Marker], films: Mapping[str, str]) -> dict[str, list[Marker]]:
    """Return the trials of each film, in order of time. Markers without a film belong to every film.

    Args:
        markers: the markers of all films.
        films: the file name of each film, by the name of its camera. A marker names a film by either, with or without
            the suffix.

    Raises:
        AnnotationError: a film is unknown, or several have its name; a trial begins before the film, or two overlap.
    """
    found: dict[str, list[Marker]] = {film: [] for film in films}
    for marker in markers:
        for film in films if marker.film is None else [_film(marker.film, films)]:
            found[film].append(marker)
    for film, trials in found.items():
        trials.sort(key=lambda trial: (trial.start, trial.end))
        if trials and trials[0].start < 0:
            raise AnnotationError(
                f"the trial {trials[0].name!r} of {films[film]} starts at {trials[0].start:g} s, before the film: "
                "times are seconds from the film's beginning"
            )
        for one, other in pairwise(trials):
            if other.start < one.end:
                raise AnnotationError(
                    f"the trials {one.name!r} and {other.name!r} of {films[film]} overlap: one ends at {one.end:g} s, "
                    f"the other starts at {other.start:g} s"
                )
    return found


def _film(name: str, films: Mapping[str, str]) -> str:
    wanted = name if name in films.values() else PureWindowsPath(name).name  # the parts of any system's path
    if wanted in films:
        return wanted
    same = [film for film, file in films.items() if wanted == file]
    same = same or [film for film, file in films.items() if wanted == Path(file).stem]
    if len(same) > 1:
        raise AnnotationError(f"a trial's film {name!r} may be {' or '.join(same)}: name it by one of these")
    if not same:
        known = ", ".join(films.values())
        raise AnnotationError(f"a trial's film {name!r} is none of those to analyse ({known}): correct or remove it")
    return same[0]


def check(trials: Sequence[Marker], film: str, duration: float) -> None:
    """Check that trials lie within a film whose last frame has this time; warn of one that ends later.

    Raises:
        AnnotationError: a trial starts after the last frame.
    """
    for trial in trials:
        if trial.start > duration:
            raise AnnotationError(
                f"the trial {trial.name!r} starts at {trial.start:g} s, but the last frame of {film} is at "
                f"{duration:g} s: no trials were added to its tables; correct the markers"
            )
    if trials and trials[-1].end > duration + 1:
        late = trials[-1]
        _log.warning("%s: the trial %r ends at %g s, but the film at %g s", film, late.name, late.end, duration)


def spans(trials: Sequence[Marker], start: int) -> list[Trial]:
    """Return trials in nanoseconds since the Unix epoch, of a film that begins at ``start``."""
    return [Trial(each.name, start + round(each.start * 1e9), start + round(each.end * 1e9)) for each in trials]


class Marking:
    """Copies tables with a last column `TRIAL`: the trial at the row's time, empty outside all trials.

    Args:
        trials: in order of time, without overlaps.
        marked: the tables already have the column, which is replaced.
    """

    def __init__(self, trials: Sequence[Marker], *, marked: bool) -> None:
        self._trials, self._marked = trials, marked
        self._starts = [trial.start for trial in trials]

    def name_at(self, time: float) -> str | None:
        """Return the name of the trial at a time of the film."""
        at = bisect_right(self._starts, time) - 1
        return self._trials[at].name if at >= 0 and time < self._trials[at].end else None

    def copy(self, source: Path, target: Path) -> None:
        """Copy a CSV or Parquet table in parts, so that memory does not grow with the table.

        Raises:
            ModelError: another column has the name `TRIAL`.
            OSError: a file cannot be read or written.
        """
        (self._parquet if source.suffix == ".parquet" else self._csv)(source, target)

    def _columns(self, header: list[str]) -> list[str]:
        columns = header[: len(header) - self._marked]
        if TRIAL in columns:
            raise ModelError(
                f"the model has a label or measure {TRIAL!r}, which is also the name of the column for trials"
            )
        return columns

    def _csv(self, source: Path, target: Path) -> None:
        with (
            source.open(encoding="utf-8", newline="") as old,
            target.open("w", encoding="utf-8", newline="") as new,
        ):
            rows, writer = csv.reader(old), CsvWriter(new)
            header = next(rows)
            columns = self._columns(header)
            width, time = len(columns), columns.index(_TIME)
            writer.writerow([*columns, TRIAL])
            writer.writerows([*row[:width], self.name_at(float(row[time]))] for row in rows)

    def _parquet(self, source: Path, target: Path) -> None:
        polars = require("polars", "analyze")

        def names(times: Any) -> Any:
            return polars.Series(times.name, [self.name_at(time) for time in times], dtype=polars.String)

        columns = self._columns(list(polars.read_parquet_schema(source)))
        about = polars.read_parquet_metadata(source)
        trial = polars.col(_TIME).map_batches(names, return_dtype=polars.String, is_elementwise=True)
        sink(polars.scan_parquet(source).select(*columns, trial.alias(TRIAL)), target, about.get(PROVENANCE))
