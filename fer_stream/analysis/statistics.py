"""Writes the statistics of a recording into its folder, with the rows of `fer-stream stats`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_stream.events.rows import write_csv
from fer_stream.events.spans import Parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from fer_stream.events.rows import Group
    from fer_stream.events.spans import Trial
    from fer_stream.events.statistics import Record
    from fer_stream.types import Places

FILES: dict[str, Group] = {"statistics.csv": "camera", "zones.csv": "zone", "lines.csv": "line"}
"""The files, and what a row of each is about."""


def write(
    record: Record,
    folder: Path,
    labels: Iterable[str],
    places: Places | None,
    least_faces: int,
    trials: Sequence[Trial] = (),
) -> None:
    """Write the tables of a recording: one of all faces, and those of zones and lines if the camera has any.

    Args:
        record: the recording's events.
        folder: where to write.
        labels: those that the model may give: a label that was never given has a column, too.
        places: the camera's zones and lines.
        least_faces: rows about fewer faces are withheld.
        trials: a row for each of them; by default one row for the whole recording.

    Raises:
        OSError: a file cannot be written.
    """
    parts = Parts(trials) if trials else Parts.of(record.first, max(record.last, record.first) + 1)
    has = {"camera": True, "zone": bool(places and places.zones), "line": bool(places and places.lines)}
    for name, group in FILES.items():
        if has[group]:
            with (folder / name).open("w", encoding="utf-8", newline="") as file:
                write_csv(record.rows(parts, group, least_faces=least_faces), file, group, possible=labels)
