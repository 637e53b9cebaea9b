"""Makes table rows from observations, and writes them as ``faces.csv`` and ``faces.parquet``, or as a data frame.

| column                     | meaning                                                                         |
|----------------------------|---------------------------------------------------------------------------------|
| ``frame``                  | number of the frame, from 1                                                     |
| ``time``                   | seconds from the recording's start                                              |
| ``track``                  | the track's number: a face followed by its motion, never an identity            |
| ``x y width height``       | the face's bounding box in pixels, not clipped to the frame                     |
| ``detection``              | the detector's confidence, 0 to 1                                               |
| ``label``                  | the smoothed label; empty while uncertain, as in the first 0.2 s of a face      |
| ``happy`` ...              | the smoothed probability of each label                                          |
| ``quality``                | the weight of the score, 0 to 1, if the face was scored in this frame           |
| ``scored_happy`` ...       | the model's own probabilities, if the face was scored in this frame             |
| ``valence`` ...            | each smoothed measure, if the model has any                                     |
| ``scored_valence`` ...     | the model's own measures, if the face was scored in this frame                  |

The table of unrelated pictures has the column ``image`` instead of the first three. Nothing is smoothed there:
``label`` is the most probable label, and ``happy`` ... are the model's own probabilities, ``valence`` ... its measures.
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
"""Decimal places of probabilities, confidence and quality. Boxes have one, times six."""

TRACK = 2
"""Index of the column ``track``."""

GONE = -1
"""Track number of a face that the tracker gave up before it became a track."""

BOX = ("x", "y", "width", "height")

Row = list[int | float | str | None]


def columns(labels: Sequence[str], model_labels: Sequence[str], measures: Sequence[str] = ()) -> dict[str, type]:
    """Return the columns' names and types, in order, for a label set, and a model's labels and measures.

    Raises:
        ModelError: as `join`.
    """
    return join(
        {"frame": int, "time": float, "track": int},
        dict.fromkeys((*BOX, "detection"), float),
        {"label": str},
        dict.fromkeys(labels, float),
        {"quality": float},
        dict.fromkeys((f"scored_{label}" for label in model_labels), float),
        dict.fromkeys(measures, float),
        dict.fromkeys((f"scored_{measure}" for measure in measures), float),
    )


def join(*parts: Mapping[str, type]) -> dict[str, type]:
    """Return the columns of all parts, in order.

    Raises:
        ModelError: a label or a measure has the name of another column.
    """
    count = Counter(name for part in parts for name in part)
    if twice := [name for name, n in count.items() if n > 1]:
        raise ModelError(
            f"the model's label or measure {twice[0]!r} is also the name of a column: rename it in the model"
        )
    return {name: kind for part in parts for name, kind in part.items()}


def box(face: Face) -> list[float]:
    """Return a face's values of the columns `BOX`, in pixels."""
    x1, y1, x2, y2 = face.box
    return [round(side, 1) for side in (x1, y1, x2 - x1, y2 - y1)]


class Rows:
    """Makes one row per frame for each face, from the first frame in which the face was seen.

    The tracker makes a face a track only after it was seen for a while. Therefore the rows of a frame are held back
    until it is known which of its faces became tracks. Faces that never become tracks have no rows.

    Args:
        start: the capture time that counts as 0, in nanoseconds.
        labels: the labels of the smoothed probabilities.
        model_labels: the labels of the model.
        measures: the names of its measures.
    """

    def __init__(
        self, start: int, labels: Sequence[str], model_labels: Sequence[str], measures: Sequence[str] = ()
    ) -> None:
        self._start, self._labels, self._model_labels, self._measures = start, labels, model_labels, measures
        self._waiting: deque[tuple[list[Row], dict[int, Row]]] = deque()

    def of(self, observation: Observation) -> list[Row]:
        """Take the next observation, and return the rows that are now complete, in the order of their frames."""
        frame = observation.frame
        if frame is not None:
            tracks = [self._row(frame, track.id, track.face, observation) for track in observation.tracks]
            early = {key: self._row(frame, 0, face, observation) for key, face in observation.candidates.items()}
            self._waiting.append((tracks, early))
            if not observation.looked_at:  # it has no fates, which does not mean that the faces were given up
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
        levels = estimate.measures.as_dict() if estimate and estimate.measures else {}
        measured = face.measures.as_dict() if face.measures else {}
        return [
            frame.number,
            round((frame.time - self._start) / 1e9, 6),
            track,
            *box(face),
            round(face.confidence, PLACES),
            estimate.label if estimate else None,
            *(_rounded(smoothed.get(label)) for label in self._labels),
            round(face.quality, PLACES) if face.probabilities else None,
            *(_rounded(scored.get(label)) for label in self._model_labels),
            *(_rounded(levels.get(measure)) for measure in self._measures),
            *(_rounded(measured.get(measure)) for measure in self._measures),
        ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, PLACES)


class CsvTable:
    """Writes rows to a CSV file one at a time.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(names)

    def write(self, row: Row) -> None:
        """Append a row."""
        self._writer.writerow(row)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()


def _schema(types: dict[str, type]) -> dict[str, Any]:
    polars = require("polars", "analyze")
    return {name: {int: polars.Int64, float: polars.Float64, str: polars.String}[kind] for name, kind in types.items()}


def to_parquet(source: Path, target: Path, types: dict[str, type]) -> None:
    """Convert a CSV table to Parquet in parts, so that memory does not grow with the table."""
    require("polars", "analyze").scan_csv(source, schema=_schema(types)).sink_parquet(target)


def frame(found: Sequence[Row], types: dict[str, type]) -> Any:
    """Return rows as a ``polars.DataFrame``."""
    return require("polars", "analyze").DataFrame(found, schema=_schema(types), orient="row")
