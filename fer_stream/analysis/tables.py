"""Observations -> rows: ``faces.csv`` as they come, and from it ``faces.parquet`` or a data frame.

| column                     | what                                                                            |
|----------------------------|---------------------------------------------------------------------------------|
| ``frame``                  | number of the frame, from 1                                                     |
| ``time``                   | seconds from the recording's start                                              |
| ``track``                  | the track's number: a face followed by its motion, never an identity            |
| ``x y width height``       | the face's box in pixels, from its upper left corner; it may reach out of view  |
| ``detection``              | the detector's confidence                                                       |
| ``label``                  | the smoothed label, or nothing while none is sure, as in a face's first 0.2 s   |
| ``happy`` ...              | the smoothed probability of each label                                          |
| ``quality``                | what a look at the face is worth, where it was scored in this frame             |
| ``scored_happy`` ...       | the model's own probabilities, where it was scored in this frame                |

Of pictures that do not follow one another the first three are ``image``, and nothing is smoothed: ``label`` is the most
probable one, and ``happy`` ... are the model's own probabilities.
"""

from __future__ import annotations

import csv
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ModelError
from fer_stream.system.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from fer_stream.analysis.observe import Observation
    from fer_stream.types import Face, Frame

PLACES = 4
"""Decimal places of probabilities; of boxes one is enough, of times six."""

TRACK = 2
"""Index of the column ``track``."""

GONE = -1
"""Instead of a track's number, for a face that was given up before it had one."""

BOX = ("x", "y", "width", "height")

Row = list[int | float | str | None]


def columns(labels: Sequence[str], model_labels: Sequence[str]) -> dict[str, type]:
    """Return the columns' names and types, in order, for a label set and a model's labels.

    Raises:
        ModelError: as `whole`.
    """
    return whole(
        {"frame": int, "time": float, "track": int},
        dict.fromkeys((*BOX, "detection"), float),
        {"label": str},
        dict.fromkeys(labels, float),
        {"quality": float},
        dict.fromkeys((f"scored_{label}" for label in model_labels), float),
    )


def whole(*parts: Mapping[str, type]) -> dict[str, type]:
    """Return a table's columns, put together.

    Raises:
        ModelError: a label is called as another column is.
    """
    count = Counter(name for part in parts for name in part)
    if twice := [name for name, n in count.items() if n > 1]:
        raise ModelError(f"the model's label {twice[0]!r} is called as a column of the tables is: rename it there")
    return {name: kind for part in parts for name, kind in part.items()}


def box(face: Face) -> list[float]:
    """Return the values of the columns `BOX`."""
    x1, y1, x2, y2 = face.box
    return [round(side, 1) for side in (x1, y1, x2 - x1, y2 - y1)]


class Rows:
    """Makes rows of observations: one for each face that a frame shows, from the first frame in which it was seen.

    The tracker calls a face a track only once it was seen for a while. So the rows of a frame wait until it is known of
    each face in it whether it is one; those of faces that never become tracks are left out.

    Args:
        start: the capture time that counts as 0.
        labels: of the smoothed probabilities.
        model_labels: of the model's own.
    """

    def __init__(self, start: int, labels: Sequence[str], model_labels: Sequence[str]) -> None:
        self._start, self._labels, self._model_labels = start, labels, model_labels
        self._waiting: deque[tuple[list[Row], dict[int, Row]]] = deque()

    def of(self, observation: Observation) -> list[Row]:
        """Take the next observation, and return the rows that are ready, in the order of their frames."""
        frame = observation.frame
        if frame is not None:
            tracks = [self._row(frame, track.id, track.face, observation) for track in observation.tracks]
            early = {key: self._row(frame, 0, face, observation) for key, face in observation.candidates.items()}
            self._waiting.append((tracks, early))
            if not observation.looked_at:  # nothing new is known of any face
                return []
        ready: list[Row] = []
        for rows, early in self._waiting:
            for key in [key for key in early if observation.fates.get(key, GONE)]:
                row = early.pop(key)
                row[TRACK] = observation.fates.get(key, GONE)
                rows.extend([row] if row[TRACK] != GONE else [])
        while self._waiting and not self._waiting[0][1]:
            rows, _ = self._waiting.popleft()
            ready += sorted(rows, key=lambda row: row[TRACK])  # type: ignore[arg-type,return-value]
        return ready

    def _row(self, frame: Frame, track: int, face: Face, observation: Observation) -> Row:
        estimate = observation.estimates.get(track)
        smoothed = estimate.probabilities.as_dict() if estimate else {}
        scored = face.probabilities.as_dict() if face.probabilities else {}
        return [
            frame.seq,
            round((frame.time - self._start) / 1e9, 6),
            track,
            *box(face),
            round(face.confidence, PLACES),
            estimate.label if estimate else None,
            *(_rounded(smoothed.get(label)) for label in self._labels),
            round(face.quality, PLACES) if face.probabilities else None,
            *(_rounded(scored.get(label)) for label in self._model_labels),
        ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, PLACES)


class CsvTable:
    """Writes rows to a file as they come.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(names)

    def write(self, row: Row) -> None:
        """Add a row."""
        self._writer.writerow(row)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()


def _schema(types: dict[str, type]) -> dict[str, Any]:
    polars = require("polars", "analyze")
    return {name: {int: polars.Int64, float: polars.Float64, str: polars.String}[kind] for name, kind in types.items()}


def to_parquet(source: Path, target: Path, types: dict[str, type]) -> None:
    """Write a CSV table as Parquet, a part at a time: memory does not grow with it."""
    require("polars", "analyze").scan_csv(source, schema=_schema(types)).sink_parquet(target)


def frame(found: Sequence[Row], types: dict[str, type]) -> Any:
    """Return rows as a ``polars.DataFrame``."""
    return require("polars", "analyze").DataFrame(found, schema=_schema(types), orient="row")
