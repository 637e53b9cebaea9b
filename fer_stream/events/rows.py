"""The rows of statistics (`fer_stream.events.statistics`), as JSON values and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

from fer_stream.events.cloudevents import to_rfc3339
from fer_stream.system.csv_rows import CsvWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fer_stream.types import Nanoseconds

Group = Literal["camera", "track", "zone", "line"]
"""What a row is about."""


@dataclass(frozen=True, slots=True)
class Faces:
    """Faces in a period, of a camera or in a zone. Durations are in nanoseconds."""

    count: int
    """How many faces there were: a face that leaves the picture and comes back counts again."""
    unseen: int
    """Time in which the camera was online and none of the faces was there."""
    in_view: int
    """Time that the faces were there, summed over the faces."""
    uncertain: int
    """The part of ``in_view`` in which the face had no label."""
    labels: dict[str, int]
    """The part of ``in_view`` of each label."""


@dataclass(frozen=True, slots=True)
class Visits:
    """Visits to a zone in a period: only what lies in the period counts. Durations are in nanoseconds."""

    count: int
    median: int
    longest: int


@dataclass(frozen=True, slots=True)
class Row:
    """Faces in one period. Durations are in nanoseconds; ``online + offline + unknown`` is the whole period.

    A row is about all faces of a camera, or about one ``track`` (its epoch and its number), or about one ``zone``.
    """

    camera: str
    start: Nanoseconds
    end: Nanoseconds
    online: int
    offline: int
    unknown: int
    faces: Faces | None
    """``None``: withheld, because there were faces, but fewer than ``least_faces``."""
    trial: str = ""
    track: tuple[int, int] | None = None
    zone: str = ""
    visits: Visits | None = None
    """Only in a row about a zone, unless it is withheld."""

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON values: durations in seconds, ``share`` as a part of ``in_view_s``."""
        found = _about(self, {"zone": self.zone} if self.zone else {})
        if self.track:
            found |= {"epoch": self.track[0], "track": self.track[1]}
        found |= _times(self) | {"withheld": self.faces is None}
        if self.faces is None:
            return found
        faces = self.faces
        found |= {
            "faces": faces.count,
            "unseen_s": _seconds(faces.unseen),
            "in_view_s": _seconds(faces.in_view),
            "uncertain_s": _seconds(faces.uncertain),
        }
        if self.visits:
            found |= {
                "visits": self.visits.count,
                "median_visit_s": _seconds(self.visits.median),
                "longest_visit_s": _seconds(self.visits.longest),
            }
        return found | {
            "labels_s": {label: _seconds(part) for label, part in faces.labels.items()},
            "share": {label: round(part / faces.in_view, 4) for label, part in faces.labels.items() if faces.in_view},
        }


@dataclass(frozen=True, slots=True)
class LineRow:
    """How often a line was crossed in one direction in one period; times are those of `Row`."""

    camera: str
    start: Nanoseconds
    end: Nanoseconds
    online: int
    offline: int
    unknown: int
    line: str
    direction: str
    faces: int | None
    """How many faces crossed it; ``None``: withheld, as in `Row`."""
    crossings: int | None
    trial: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        found = _about(self, {"line": self.line, "direction": self.direction})
        found |= _times(self) | {"withheld": self.faces is None}
        return found if self.faces is None else found | {"faces": self.faces, "crossings": self.crossings}


def _about(row: Row | LineRow, what: dict[str, Any]) -> dict[str, Any]:
    return {"camera": row.camera} | ({"trial": row.trial} if row.trial else {}) | what


def _times(row: Row | LineRow) -> dict[str, Any]:
    return {
        "start": to_rfc3339(row.start),
        "end": to_rfc3339(row.end),
        "online_s": _seconds(row.online),
        "offline_s": _seconds(row.offline),
        "unknown_s": _seconds(row.unknown),
    }


def _seconds(nanoseconds: int) -> float:
    return round(nanoseconds / 1e9, 3)


_TIMES = ("start", "end", "online_s", "offline_s", "unknown_s", "withheld", "faces")
_LABELLED = ("unseen_s", "in_view_s", "uncertain_s")
_GROUPS = {
    "camera": ((), _LABELLED),
    "track": (("epoch", "track"), _LABELLED),
    "zone": (("zone",), (*_LABELLED, "visits", "median_visit_s", "longest_visit_s")),
    "line": (("line", "direction"), ("crossings",)),
}
"""The columns of a table of each kind of row, before and after `_TIMES`."""

_COLUMNS = frozenset(_TIMES).union(*(names for both in _GROUPS.values() for names in both))
_SUFFIX, _PREFIX = "_s", "label_"


def column_of(label: str) -> str:
    """Return the column of a label: ``LABEL_s``, or ``label_LABEL_s`` if another column has that name."""
    name = f"{label}{_SUFFIX}"
    return f"{_PREFIX}{name}" if name in _COLUMNS else name


def label_of(column: str) -> str | None:
    """Return the label whose column this is, as `column_of` names it; ``None``: it is another column."""
    if column in _COLUMNS or not column.endswith(_SUFFIX):
        return None
    label = column.removesuffix(_SUFFIX)
    without = label.removeprefix(_PREFIX)
    return without if column_of(without) == column else label


def labels(rows: Iterable[Row | LineRow]) -> list[str]:
    """Return all labels in rows."""
    return sorted({label for row in rows if isinstance(row, Row) and row.faces for label in row.faces.labels})


def write_csv(
    rows: Sequence[Row | LineRow],
    file: IO[str],
    group: Group,
    films: Sequence[str] = (),
    possible: Iterable[str] = (),
) -> None:
    """Write rows of one kind as CSV: all durations in seconds. Withheld cells are empty.

    Args:
        rows: from `fer_stream.events.statistics`.
        file: where to write.
        group: what the rows are about.
        films: the film of each row, if they have one.
        possible: labels that have a column, too, because the model may give them.
    """
    before, after = _GROUPS[group]
    names = sorted({*labels(rows), *possible}) if "in_view_s" in after else []
    columns = [*(["film"] if films else []), "camera", *(["trial"] if any(row.trial for row in rows) else [])]
    columns += [*before, *_TIMES, *after]
    writer = CsvWriter(file)
    writer.writerow([*columns, *map(column_of, names)])
    for number, row in enumerate(rows):
        values = row.as_dict()
        empty: Any = "" if values["withheld"] else 0.0
        values["withheld"] = int(values["withheld"])
        if films:
            values["film"] = films[number]
        parts = [values.get("labels_s", {}).get(label, empty) for label in names]
        writer.writerow([*(values.get(column, "") for column in columns), *parts])


def cells(rows: Sequence[Row | LineRow], group: Group, films: Sequence[str] = ()) -> list[list[str]]:
    """Return the cells of a table for people: seconds, and the shares of the time that faces were there."""
    names = labels(rows)
    before, after = _GROUPS[group]
    trials = any(row.trial for row in rows)
    first = [*(["film"] if films else []), "camera", *(["trial"] if trials else []), *before]
    shares = [f"{name} %" for name in ("uncertain", *names)] if "in_view_s" in after else []
    times = ["online s", "offline s", "unknown s"]
    if "in_view_s" in after:
        times.append("unseen s")
    further = [name for name in after if name not in ("unseen_s", "uncertain_s")]
    heads = [
        *first,
        "from",
        *times,
        "faces",
        *(name.replace("_s", " s").replace("_", " ") for name in further),
        *shares,
    ]
    found = [heads]
    for number, row in enumerate(rows):
        values = row.as_dict() | ({"film": films[number]} if films else {})
        start = values["start"].replace("T", " ").removesuffix("Z").removesuffix(".000000")
        line = [str(values.get(column, "")) for column in first] + [start]
        columns = (*(f"{head[:-2]}_s" for head in times), "faces", *further)
        line += [_cell(values.get(name)) for name in columns]
        found.append(line + [_share(row, name) for name in ("uncertain", *names) if shares])
    return found


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _share(row: Row | LineRow, label: str) -> str:
    faces = row.faces
    if not isinstance(faces, Faces) or not faces.in_view:
        return "-"
    part = faces.uncertain if label == "uncertain" else faces.labels.get(label, 0)
    return f"{100 * part / faces.in_view:.1f}"
