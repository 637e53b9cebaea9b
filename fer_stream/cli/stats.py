"""``fer-stream stats``: statistics of a period, computed from a journal (`fer_stream.events.statistics`)."""

from __future__ import annotations

import csv
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from fer_stream.cli.options import begin
from fer_stream.cli.reading import table
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

    from fer_stream.events.statistics import Row

FIXED = (
    "camera",
    "start",
    "end",
    "online_s",
    "offline_s",
    "unknown_s",
    "withheld",
    "faces",
    "unseen_s",
    "in_view_s",
    "uncertain_s",
)
"""The columns before those of the labels."""


def stats(arguments: Namespace) -> None:
    """Print statistics as a table, as CSV or as JSON lines."""
    from fer_stream.client import read_journal  # noqa: PLC0415
    from fer_stream.events.statistics import FOREVER, Record  # noqa: PLC0415

    settings = begin(arguments, "stats")
    since, until = _nanoseconds(arguments.since), _nanoseconds(arguments.to)
    record = Record(since or 0, FOREVER if until is None else until)
    for event, _ in read_journal(settings, camera=arguments.camera):
        record.take(event)
    if record.first == FOREVER:
        whose = f" of the camera {arguments.camera}" if arguments.camera else ""
        raise ConfigError(f"the journal holds no event{whose}: give another journal with --journal")
    every = None if arguments.every is None else round(arguments.every * 1e9)
    if since is None:  # whole parts, such as from 08:00 to 08:05, are easier to read
        since = record.first - record.first % (every or 1)
    rows = record.rows(
        since,
        record.last + 1 if until is None else until,
        every,
        least_faces=settings.least_faces,
        groups=settings.valence if arguments.by == "valence" else None,
    )
    if arguments.format == "jsonl":
        sys.stdout.writelines(json.dumps(row.as_dict(), ensure_ascii=False) + "\n" for row in rows)
    elif arguments.format == "csv":
        _write_csv(rows)
    else:
        sys.stdout.write("\n".join(table(_cells(rows))) + "\n")


def _nanoseconds(moment: int | float | None) -> int | None:
    """Return a point in time in nanoseconds; a float is an age in seconds."""
    return time.time_ns() - round(moment * 1e9) if isinstance(moment, float) else moment


def _labels(rows: Iterable[Row]) -> list[str]:
    return sorted({label for row in rows if row.faces for label in row.faces.labels})


def _write_csv(rows: list[Row]) -> None:
    """Write all durations in seconds; what is withheld is empty."""
    labels = _labels(rows)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*FIXED, *(f"{label}_s" for label in labels)])
    for row in rows:
        found = row.as_dict()
        found["withheld"] = int(found["withheld"])
        empty: Any = "" if row.faces is None else 0.0
        parts = [found.get("labels_s", {}).get(label, empty) for label in labels]
        writer.writerow([*(found.get(column, "") for column in FIXED), *parts])


def _cells(rows: list[Row]) -> list[list[str]]:
    """Return the cells of a table for people: seconds, and the shares of the time that faces were in view."""
    labels = _labels(rows)
    shares = [f"{name} %" for name in ("uncertain", *labels)]
    cells = [["camera", "from", "online s", "offline s", "unknown s", "unseen s", "faces", "in view s", *shares]]
    for row in rows:
        start = row.as_dict()["start"].replace("T", " ").removesuffix("Z").removesuffix(".000000")
        line = [row.camera, start, *(f"{part / 1e9:.1f}" for part in (row.online, row.offline, row.unknown))]
        if row.faces is None:
            line += ["-"] * (4 + len(labels))
        else:
            faces = row.faces
            line += [f"{faces.unseen / 1e9:.1f}", str(faces.count), f"{faces.in_view / 1e9:.1f}"]
            parts = (faces.uncertain, *(faces.labels.get(label, 0) for label in labels))
            line += [f"{100 * part / faces.in_view:.1f}" if faces.in_view else "-" for part in parts]
        cells.append(line)
    return cells
