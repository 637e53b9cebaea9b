"""Joins the tables of several films into one table each, with the column ``film`` first, and makes their report.

A film is named like its folder and its camera, because two films may have the same file name. Films may have different
columns, such as the labels of other models: a column that a film does not have is empty in its rows.
"""

from __future__ import annotations

import csv
import hashlib
import json
from typing import TYPE_CHECKING, Any

from fer_stream.analysis import study_report
from fer_stream.analysis.output import SUMMARY, OutputFolder
from fer_stream.analysis.tables import PROVENANCE, sink
from fer_stream.errors import ConfigError, ModelError
from fer_stream.system.csv_rows import CsvWriter
from fer_stream.system.extras import require
from fer_stream.system.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

FILM = "film"
"""The name of the first column."""

REPORT = "report.html"

AGREEMENT = "agreement"
"""The subfolder in which the report looks for a comparison with coders."""


def check_names(films: Iterable[str]) -> None:
    """Check that no film's subfolder has the name of a common table, of the report or of the agreement.

    Raises:
        ConfigError: one has.
    """
    for film in films:
        if film.lower().endswith((".csv", ".parquet")) or film.lower() in (REPORT, SUMMARY, AGREEMENT):
            raise ConfigError(
                f"the folder of a film cannot be called {film}, like what the common folder has: give the film another "
                "name, such as film-1=FILE"
            )


def join(folder: Path, films: Sequence[str], inputs: Iterable[Path], *, force: bool) -> dict[str, Any] | None:
    """Join all tables of analyses in the subfolders of a folder, into the folder; return the summary of the tables.

    They, and a report on all films, replace those that were made earlier. The report also shows the agreement with
    coders in the subfolder `AGREEMENT`. If no film has been analysed, or if the tables are up to date, nothing is
    written and ``None`` is returned.

    Args:
        folder: the common folder.
        films: the names of the subfolders; one without a finished analysis is left out, and the summary says so.
        inputs: files, or folders of files, that are never changed.
        force: join even if the tables are up to date, and replace foreign files that have the name of a table.

    Raises:
        ConfigError: the folder cannot be written, or holds foreign files.
        ModelError: a film has a column with the name `FILM`.
    """
    output = OutputFolder(folder, inputs, force=force)
    found = {film: OutputFolder(folder / film, (), force=False).summary() for film in films}
    parts = [{"film": film} | _about(summary) for film, summary in found.items()]
    compared = OutputFolder(folder / AGREEMENT, (), force=False).summary()
    compared = compared if "raters" in compared else {}
    identity = hashlib.sha256(json.dumps([parts, compared, __version__], sort_keys=True).encode()).hexdigest()
    if not any(found.values()) or (not force and output.summary().get("identity") == identity):
        return None
    tables: dict[str, dict[str, Path]] = {}
    for film, summary in found.items():
        for name in summary.get("files", ()):
            if name.endswith((".csv", ".parquet")):
                tables.setdefault(name, {})[film] = folder / film / name
    with output.replacing([*tables, REPORT]) as part:
        for name, paths in tables.items():
            (_join_parquet if name.endswith(".parquet") else _join_csv)(paths, part / name)
        agreement = folder / AGREEMENT if compared else None
        page = study_report.page(folder.resolve().name, found, part, agreement)
        (part / REPORT).write_text(page, encoding="utf-8")
        return output.finish({"films": parts, "identity": identity})


def refresh(folder: Path) -> bool:
    """Bring the common tables and the report of a folder up to date, if it has any; return whether they changed.

    Raises:
        ConfigError, ModelError: as `join`.
    """
    films = [each["film"] for each in OutputFolder(folder, (), force=False).summary().get("films", ())]
    return bool(films) and join(folder, films, (), force=False) is not None


def _about(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return one film's entry in the summary of all films; its digest changes with its analysis."""
    if not summary:
        return {"error": "not analysed"}
    kept = {key: summary[key] for key in ("source", "frames", "images", "faces", "error") if key in summary}
    return kept | {"digest": summary["digest"]}


def _columns(headers: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the columns of all films, each once, and each behind the one that is before it in its film."""
    columns: list[str] = []
    for header in headers.values():
        place = 0
        for name in header:
            if name not in columns:
                columns.insert(place, name)
            place = columns.index(name) + 1
    if FILM in columns:
        film = next(film for film, header in headers.items() if FILM in header)
        raise ModelError(f"the model of {film} has a label or measure {FILM!r}, which is also the name of a column")
    return columns


def _join_csv(paths: Mapping[str, Path], target: Path) -> None:
    headers = {}
    for film, path in paths.items():
        with path.open(encoding="utf-8", newline="") as file:
            headers[film] = next(csv.reader(file))
    columns = _columns(headers)
    with target.open("w", encoding="utf-8", newline="") as joined:
        writer = CsvWriter(joined)
        writer.writerow([FILM, *columns])
        for film, path in paths.items():
            place = {name: at for at, name in enumerate(headers[film])}
            order = [place.get(name, len(place)) for name in columns]
            with path.open(encoding="utf-8", newline="") as file:
                rows = csv.reader(file)
                next(rows)
                writer.writerows([film, *((*row, None)[at] for at in order)] for row in rows)


def _join_parquet(paths: Mapping[str, Path], target: Path) -> None:
    polars = require("polars", "analyze")
    headers, about = {}, {}
    for film, path in paths.items():
        headers[film] = list(polars.read_parquet_schema(path))
        about[film] = json.loads(polars.read_parquet_metadata(path).get(PROVENANCE, "{}"))
    columns = _columns(headers)
    parts = [
        polars.scan_parquet(path).with_columns(polars.lit(film, dtype=polars.String).alias(FILM))
        for film, path in paths.items()
    ]
    joined = polars.concat(parts, how="diagonal_relaxed").select(FILM, *columns)
    sink(joined, target, json.dumps({"films": about}, ensure_ascii=False))
