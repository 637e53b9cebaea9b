"""Writes the rows of an analysis into CSV and Parquet files, or returns them as data frames.

CSV files are UTF-8 with a header, commas and decimal points. Truth values are ``TRUE`` and ``FALSE``, because R reads
``true`` as a text. An empty cell is a missing value.

Parquet files have the same columns, and the provenance of the analysis as JSON in their metadata, under `PROVENANCE`.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fer_stream.analysis.rows import Rows
from fer_stream.system.csv_rows import CsvWriter
from fer_stream.system.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from fer_stream.analysis.columns import Columns, Layout
    from fer_stream.analysis.observe import Observation
    from fer_stream.analysis.rows import Row
    from fer_stream.errors import SourceError

PROVENANCE = "fer_stream"
"""The key of the provenance in the metadata of a Parquet file."""

OPENFACE = "openface"
"""The table that is written as CSV alone: programs that read OpenFace's output read CSV."""


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of a recording, or of pictures, each a ``polars.DataFrame``. Their columns: docs/reference/tables.md.

    ``faces`` has a row for each face and frame, ``events`` one for each event, and ``frames`` one for each frame, also
    those without a face. For unrelated pictures, ``frames`` has a row for each picture, and ``events`` has none.

    ``errors`` lists the parts of the input that could not be analysed. ``provenance`` describes how the tables were
    made: the version of fer_stream, the models and their SHA-256, the settings, and the name and SHA-256 of the source.
    """

    faces: Any
    events: Any
    frames: Any
    errors: tuple[SourceError, ...]
    provenance: dict[str, Any]

    def to_pandas(self) -> Tables:
        """Return the same with each table as a ``pandas.DataFrame``; pyarrow is not needed.

        Whole numbers, truth values and texts have pandas' nullable types ``Int64``, ``boolean`` and ``string``; other
        numbers are ``float64``, with NaN where one is missing.

        Raises:
            PluginError: the extra ``pandas`` is not installed.
        """
        faces, events, frames = (_to_pandas(table) for table in (self.faces, self.events, self.frames))
        return replace(self, faces=faces, events=events, frames=frames)


def _to_pandas(table: Any) -> Any:
    pandas, polars = require("pandas", "pandas"), require("polars", "analyze")
    kinds = {polars.Int64: "Int64", polars.Boolean: "boolean", polars.Float64: "float64", polars.String: "string"}
    return pandas.DataFrame(
        {column.name: pandas.Series(column.to_list(), dtype=kinds[column.dtype]) for column in table}
    )


class TableFiles:
    """Writes tables into ``NAME.csv``, row by row, and at the end into ``NAME.parquet``, in constant memory.

    Args:
        folder: where the files are written.
        tables: the columns of each table, by the table's name.

    Raises:
        OSError: a file cannot be written.
    """

    def __init__(self, folder: Path, tables: Mapping[str, Columns]) -> None:
        self._folder, self._tables = folder, dict(tables)
        self._writers = {}
        with ExitStack() as opened:
            for name, columns in self._tables.items():
                file = opened.enter_context((folder / f"{name}.csv").open("w", encoding="utf-8", newline=""))
                self._writers[name] = CsvWriter(file)
                self._writers[name].writerow(columns)
            self._files = opened.pop_all()

    @staticmethod
    def names(tables: Iterable[str]) -> list[str]:
        """Return the names of all files of tables with these names."""
        return [f"{name}.{kind}" for name in tables for kind in ("csv", *(["parquet"] if name != OPENFACE else []))]

    def write(self, table: str, row: Row) -> None:
        """Append a row to a table."""
        self._writers[table].writerow(map(_cell, row))

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Close the CSV files and convert them to Parquet, in parts."""
        self.close()
        for name, columns in self._tables.items():
            if name != OPENFACE:
                _to_parquet(self._folder / f"{name}.csv", columns, provenance)

    def close(self) -> None:
        """Close the CSV files; a second call does nothing."""
        self._files.close()


class RecordingFiles(TableFiles):
    """The tables of a recording as files: faces, events, frames, and ``openface.csv``.

    Args:
        folder: where the files are written.
        layout: the columns.
        start: the capture time that counts as 0, in nanoseconds.

    Raises:
        OSError: a file cannot be written.
    """

    TABLES = ("faces", "events", "frames", OPENFACE)

    def __init__(self, folder: Path, layout: Layout, start: int) -> None:
        super().__init__(folder, {name: getattr(layout, name) for name in self.TABLES})
        self._rows = Rows(start, layout)

    def add(self, observation: Observation) -> int:
        """Write the rows that the next observation completes, and return the number of faces found in their frames."""
        found = 0
        for event, _ in observation.events:
            self.write("events", self._rows.event(event))
        for frame in self._rows.of(observation):
            self.write("frames", frame.row)
            found += frame.found
            for face in frame.faces:
                self.write("faces", face.row)
                self.write(OPENFACE, self._rows.openface(face))
        return found


def _cell(value: bool | float | str | None) -> float | str | None:
    return str(value).upper() if isinstance(value, bool) else value


def _schema(columns: Columns) -> dict[str, Any]:
    polars = require("polars", "analyze")
    kinds = {int: polars.Int64, float: polars.Float64, str: polars.String, bool: polars.Boolean}
    return {name: kinds[column.kind] for name, column in columns.items()}


def _to_parquet(source: Path, columns: Columns, provenance: Mapping[str, Any]) -> None:
    """Convert a CSV table to Parquet beside it, in parts, so that memory does not grow with the table."""
    # The header is skipped, because Polars does not undo the doubling of quotes in it.
    polars = require("polars", "analyze")
    table = polars.scan_csv(source, has_header=False, skip_rows=1, schema=_schema(columns))
    sink(table, source.with_suffix(".parquet"), json.dumps(provenance, ensure_ascii=False, sort_keys=True))


def sink(rows: Any, target: Path, provenance: str | None) -> None:
    """Write a ``polars.LazyFrame`` as Parquet, in parts, with its provenance as JSON.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    polars = require("polars", "analyze")
    try:
        rows.sink_parquet(target, metadata=None if provenance is None else {PROVENANCE: provenance})
    except polars.exceptions.ComputeError as error:  # the writer of Parquet wraps errors of the system
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(target)) from error
        raise


def frame(found: Sequence[Row], columns: Columns) -> Any:
    """Return rows as a ``polars.DataFrame``."""
    return require("polars", "analyze").DataFrame(found, schema=_schema(columns), orient="row")
