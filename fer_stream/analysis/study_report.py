"""Makes the HTML report on several films: side by side, by trial and zone, and the agreement with coders."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from html import escape
from typing import TYPE_CHECKING, Any

from fer_stream.analysis import plots
from fer_stream.analysis.page import CAUTION, LAW, TRACKS, Cell, Link, Section, html
from fer_stream.analysis.statistics_report import ALL, UNCERTAIN, Times, alt, ordered, percent, sections

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MEASURES = (
    ("all time", "agreement"), ("all time", "kappa"), ("labelled time", "kappa"), ("labelled time", "macro_f1"),
    ("events", "f1"), ("events", "onset_error_s"),
)  # fmt: skip
"""The scope and the name of each value of a pair of raters that is shown, as in ``agreement.csv``."""

_TOGETHER = {"alpha": "Krippendorff's alpha", "fleiss_kappa": "Fleiss' kappa"}
"""The measures over all raters together, with their names in the report."""


def page(title: str, films: Mapping[str, Mapping[str, Any]], folder: Path, agreement: Path | None = None) -> str:
    """Return the report as HTML.

    Args:
        title: its heading.
        films: the summary of each film's analysis, by the name of its subfolder; empty if it was not analysed.
        folder: where the common tables of statistics are.
        agreement: a folder that `fer-stream agree` wrote beside the films' folders, if there is one.

    Raises:
        OSError: a table cannot be read.
    """
    recordings = {film: summary for film, summary in films.items() if "frames" in summary}
    pictures = {film: summary for film, summary in films.items() if "images" in summary}
    times = {film: _times(summary) for film, summary in recordings.items()}
    whole = _sum(times.values())
    found = []
    figures = {}
    if recordings or not pictures:
        figures["films"] = f"{len(recordings):,}"
    if recordings:
        found.append(_side_by_side(recordings, times, whole))
        labels = sorted(whole.shares().items(), key=lambda item: -item[1])
        figures |= {
            "minutes": f"{sum(summary['duration_s'] for summary in recordings.values()) / 60:,.1f}",
            "tracks": f"{sum(summary['tracks'] for summary in recordings.values()):,}",
            "face-seconds": f"{whole.in_view:,.1f}",
            "most frequent label": next((label for label, _ in labels if label != UNCERTAIN), "none"),
            "without a sure label": f"{whole.shares().get(UNCERTAIN, 0):.0%}",
        }
    if pictures:
        found.append(_pictures(pictures))
        for key, what in (("images", "pictures"), ("faces", "faces in pictures")):
            figures[what] = f"{sum(summary[key] for summary in pictures.values()):,}"
    found += sections(folder, ordered([whole]))
    if agreement:
        found += _agreement(agreement)
    models = dict.fromkeys(summary["model"] for summary in films.values() if summary)
    return html(
        title,
        "apparent expressions",
        f"Apparent expressions of the faces in {_what(recordings, pictures)}.",
        figures,
        found,
        CAUTION + TRACKS + LAW,
        "model " + ", ".join(f"<code>{escape(model)}</code>" for model in models),
        _warnings(films),
    )


def _what(recordings: Mapping[str, Any], pictures: Mapping[str, Any]) -> str:
    if not pictures:
        return "several recordings"
    return "recordings and pictures" if recordings else "pictures"


def _times(summary: Mapping[str, Any]) -> Times:
    times = Times(in_view=summary["face_seconds"])
    for label, share in summary["share"].items():
        times.labels[label] = share * times.in_view
    return times


def _sum(parts: Any) -> Times:
    whole = Times()
    for times in parts:
        whole.in_view += times.in_view
        for label, seconds in times.labels.items():
            whole.labels[label] += seconds
    return whole


def _side_by_side(recordings: Mapping[str, Mapping[str, Any]], times: Mapping[str, Times], whole: Times) -> Section:
    labels = ordered([whole])
    counts = ("frames", "tracks")
    rows: list[tuple[Cell, ...]] = []
    for film, summary in recordings.items():
        about = (round(summary["duration_s"], 1), *(summary[name] for name in counts))
        rows.append((_link(film), *about, round(times[film].in_view, 1), *percent(times[film], labels)))
    sums = [sum(summary[name] for summary in recordings.values()) for name in ("duration_s", *counts)]
    rows.append((ALL, round(sums[0], 1), *sums[1:], round(whole.in_view, 1), *percent(whole, labels)))
    bars = {film: each.shares() for film, each in times.items()}
    return Section(
        "Films",
        "Share of the time from entering to leaving, added up over the tracks of a film. The row of all films adds up "
        "the time, so a film with more face-seconds has more weight. A film's name leads to its own report."
        + (f" The drawing has the first {plots.MOST_BARS} films." if len(bars) > plots.MOST_BARS else ""),
        ("film", "seconds", *counts, "face-seconds", *(f"{label} %" for label in labels)),
        rows,
        alt(bars),
        plots.stacked("films", bars, labels, plots.OF_TIME),
        listed=True,  # its links lead to the films
    )  # fmt: skip


def _pictures(found: Mapping[str, Mapping[str, Any]]) -> Section:
    faces: Counter[str] = Counter()
    for summary in found.values():
        faces.update({label: share * summary["faces"] for label, share in summary["share"].items()})
    labels = [label for label, _ in faces.most_common()]
    rows: list[tuple[Cell, ...]] = [
        (
            _link(name),
            summary["images"],
            summary["faces"],
            *(round(100 * summary["share"].get(label, 0.0), 1) if summary["faces"] else "-" for label in labels),
        )
        for name, summary in found.items()
    ]
    note = (
        "Each face counts for its most probable label. Pictures have no times, and are not part of the films' figures."
    )
    return Section("Pictures", note, ("folder", "pictures", "faces", *(f"{label} %" for label in labels)), rows)


def _link(film: str) -> Link:
    return Link(film, f"{film}/report.html")


def _agreement(folder: Path) -> list[Section]:
    """Return the most important values of a comparison."""
    pairs: defaultdict[tuple[str, str], dict[tuple[str, str], Mapping[str, str]]] = defaultdict(dict)
    together: list[tuple[Cell, ...]] = []
    with (folder / "agreement.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["first"] == "all":
                together.append((_TOGETHER[row["measure"]], row["scope"], row["films"], _value(row)))
            elif not row["label"]:
                pairs[row["first"], row["second"]][row["scope"], row["measure"]] = row
    rows: list[tuple[Cell, ...]] = []
    for (first, second), values in pairs.items():
        films = next(iter(values.values()))["films"]
        shown = [_value(values[key]) if key in values else "" for key in _MEASURES]
        rows.append((Link(f"{first} and {second}", f"{folder.name}/agreement.html"), films, *shown))
    head = (
        "raters",
        "films",
        "agreement",
        "kappa",
        "kappa, labelled time",
        "macro F1, labelled time",
        "event F1",
        "onset error in s",
    )
    note = (
        "Labelled time: only moments at which both raters give a label. In square brackets: 95% intervals over films. "
        "The names of the raters lead to the report on agreement."
    )
    return [
        Section("Agreement with coders", note, head, rows),
        Section("Agreement of all raters", "", ("measure", "time", "films", "value"), together),
    ]


def _value(row: Mapping[str, str]) -> str:
    if not row["value"]:
        return "undefined"
    value, low, high = (
        f"{round(float(row[key]), 2) + 0.0:.2f}" if row[key] else "" for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]" if low else value  # the sum makes a negative zero positive


def _warnings(films: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = [f"{film} was not analysed." for film, summary in films.items() if not summary]
    found += [f"{film} is incomplete: {summary['error']}." for film, summary in films.items() if "error" in summary]
    for key, what in (("version", "versions of fer_stream"), ("models", "models"), ("settings", "settings")):
        if len({json.dumps(summary.get(key), sort_keys=True) for summary in films.values() if summary}) > 1:
            found.append(f"The films were analysed with different {what}: their figures may differ for that reason.")
    return found
