"""Sections of a report on trials, zones and lines, from the tables of `fer_stream.analysis.statistics`.

The tables may be those of one film, or of several with the column ``film``. Shares are parts of the time that faces
were in view, summed over films, so a film with more of this time has more weight.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.analysis import plots
from fer_stream.analysis.page import Section
from fer_stream.events.rows import label_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from fer_stream.analysis.page import Cell

ALL = "all films"
"""The first cell of a row on all films together."""

UNCERTAIN = "uncertain"


class _Kind(NamedTuple):
    """A section: its table, its title, the columns that name a row, and the counts that are added up."""

    file: str
    title: str
    note: str
    by: tuple[str, ...]
    counts: tuple[str, ...] = ()


_FACES = "A face that leaves the picture and comes back counts again."
_KINDS = (
    _Kind(
        "statistics.csv", "Trials", f"Faces in view within each trial; trials of one name are added up. {_FACES}",
        ("trial",)),
    _Kind("zones.csv", "Zones", f"Time of the faces whose centre is in the zone. {_FACES}", ("zone",), ("visits",)),
    _Kind("lines.csv", "Lines", "How often faces crossed a line.", ("line", "direction"), ("crossings",)),
)  # fmt: skip


@dataclass(slots=True)
class Times:
    """Time of faces, in seconds, and what was counted."""

    in_view: float = 0.0
    faces: int = 0
    labels: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """With `UNCERTAIN` for time without a sure label."""
    counts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    withheld: int = 0
    """Number of rows without values, because they are about too few faces."""

    def shares(self) -> dict[str, float]:
        """Return the share of ``in_view`` of each label, 0 to 1; nothing if no face was in view."""
        return {label: part / self.in_view for label, part in self.labels.items()} if self.in_view > 0 else {}


def sections(folder: Path, labels: Collection[str] = ()) -> list[Section]:
    """Return a section for each table in a folder that has rows by trial, zone or line.

    Args:
        folder: where the tables are.
        labels: the order of the labels, as in the other sections of the page; further ones follow.

    Raises:
        OSError: a table cannot be read.
    """
    found = []
    for kind in _KINDS:
        path = folder / kind.file
        if not path.is_file():
            continue
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if rows and kind.by[0] in rows[0]:
            found.append(_section(kind, rows, labels))
    return found


def ordered(times: Iterable[Times], first: Collection[str] = ()) -> list[str]:
    """Return the labels of all these times: those of ``first``, then the longest, and `UNCERTAIN` last."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for each in times:
        for label, part in each.labels.items():
            seconds[label] += part
    rank = {label: place for place, label in enumerate(first)}
    return sorted(seconds, key=lambda label: (label == UNCERTAIN, rank.get(label, len(rank)), -seconds[label], label))


def percent(times: Times, labels: Sequence[str]) -> list[Cell]:
    """Return the shares of these labels in percent, to one place; ``-`` if no face was in view."""
    shares = times.shares()
    return [round(100 * shares.get(label, 0.0), 1) if shares else "-" for label in labels]


def _section(kind: _Kind, rows: Sequence[Mapping[str, str]], first: Collection[str]) -> Section:
    films, trials = "film" in rows[0], "trial" in rows[0] and "trial" not in kind.by
    by = (*(["film"] if films else []), *(["trial"] if trials else []), *kind.by)
    single = _added(rows, by)
    together = _added(rows, kind.by)
    timed = "in_view_s" in rows[0]
    labels = ordered(together.values(), first) if timed else []
    listed = dict(single)
    if films:
        between = [""] if trials else []
        listed |= {(ALL, *between, *key): times for key, times in together.items()}
    table: list[tuple[Cell, ...]] = []
    for key, times in listed.items():
        counted: list[Cell] = [times.faces, *(times.counts[name] for name in kind.counts)]
        if times.withheld and not times.faces:
            counted = ["withheld", *("-" for _ in kind.counts)]
        seconds = [round(times.in_view, 1)] if timed else []
        table.append((*key, *counted, *seconds, *percent(times, labels)))
    withheld = sum(times.withheld for times in together.values())
    note = f"{kind.note} Only time within the trials counts." if trials else kind.note
    if timed and len(together) > plots.MOST_BARS:
        note += f" The drawing has the first {plots.MOST_BARS}."
    if withheld:
        note += f" {withheld} row{'s are' if withheld > 1 else ' is'} withheld: too few faces (setting least_faces)."
    head = (*by, "faces", *kind.counts, *(["seconds in view"] if timed else []), *(f"{label} %" for label in labels))
    bars = {", ".join(key): times.shares() for key, times in together.items()}
    drawing = plots.stacked(kind.title.lower(), bars, labels, plots.OF_TIME) if timed else ""
    return Section(kind.title, note, head, table, alt(bars) if timed else "", drawing)


def alt(bars: Mapping[str, Mapping[str, float]]) -> str:
    """Return the text that replaces a drawing of shares."""
    return "; ".join(
        f"{name}: " + (", ".join(f"{label} {share:.1%}" for label, share in shares.items()) or "no face")
        for name, shares in bars.items()
    )


def _added(rows: Iterable[Mapping[str, str]], by: Sequence[str]) -> dict[tuple[str, ...], Times]:
    """Return the sums of the rows with the same cells in these columns. Rows outside all trials are left out."""
    found: dict[tuple[str, ...], Times] = {}
    for row in rows:
        if not row.get("trial", "-"):
            continue
        times = found.setdefault(tuple(row[column] for column in by), Times())
        if row["withheld"] == "1":
            times.withheld += 1
            continue
        times.faces += int(row["faces"] or 0)
        for name in ("visits", "crossings"):
            times.counts[name] += int(row.get(name) or 0)
        times.in_view += float(row.get("in_view_s") or 0)
        if "in_view_s" in row:
            times.labels[UNCERTAIN] += float(row["uncertain_s"] or 0)
            for column, value in row.items():
                if (label := label_of(column)) is not None and (seconds := float(value or 0)):
                    times.labels[label] += seconds
    return found
