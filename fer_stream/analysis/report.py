"""Makes the HTML report of an analysis. Every drawing is also given as a table."""

from __future__ import annotations

from html import escape
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fer_stream.analysis import plots
from fer_stream.analysis.page import CAUTION, LAW, TRACKS, Section, html

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fer_stream.analysis.pictures import Pictures
    from fer_stream.analysis.summary import Summary


def page(
    title: str,
    summary: Summary,
    drawings: Mapping[str, str],
    about: Mapping[str, Any],
    further: Iterable[Section] = (),
) -> str:
    """Return the report on a recording as HTML.

    Args:
        title: the name of the recording.
        summary: the summary of the whole recording.
        drawings: the result of `plots.draw`.
        about: ``version``, ``model``, ``settings`` (as JSON), ``error`` if the recording broke off, and ``hint`` if
            there is a suggestion.
        further: sections that trials may replace later: `fer_stream.analysis.page.with_further`.
    """
    shares, between = summary.shares, summary.uncertain_between
    figures = {
        "frames": f"{summary.frames:,}",
        "tracks": f"{len(summary.stays):,}",
        "face-seconds": f"{summary.face_seconds:,.1f}",
    }
    if summary.labelled:
        figures["most frequent label"] = next((label for label in shares if label != "uncertain"), "none")
        figures["without a sure label"] = f"{shares.get('uncertain', 0):.0%}"

    def longest(most: int) -> str:
        return f", the {most} longest" if len(summary.stays) > most else ""

    found = {
        "timeline": Section(
            "Labels over time",
            f"One line per track{longest(plots.MOST_TRACKS)}; thin while no label was sure.",
            ("track", "label", "from s", "to s"), _interval_rows(summary),
            f"Timeline of {len(summary.stays)} tracks over {_duration(summary.duration)}"),
        "shares": Section(
            "Share of each label",
            "Share of the time from entering to leaving, added up over all tracks of the timeline above.",
            ("label", "share in %"), [(label, round(100 * share, 1)) for label, share in shares.items()],
            "Shares: " + _list(f"{label} {share:.1%}" for label, share in shares.items())),
        "valence": Section(
            "Valence over time", "P(positive) minus P(negative), averaged over the faces in view.",
            ("second", "valence, -1 to 1"), [(at, round(value, 2)) for at, value in summary.valence],
            _range([value for _, value in summary.valence])),
        "measures": Section(
            "Measures over time",
            f"Each smoothed measure of the model, one line per track{longest(plots.MOST_CURVES)}.",
            ("track", "measure", "mean", "lowest", "highest"), _measure_rows(summary),
            "Curves by track: " + _list(summary.measures)),
        "uncertain": Section(
            "Time without a sure label",
            "By the two most probable labels, counted over frames that show the face.",
            ("labels", "face-seconds"), [(pair, round(value, 1)) for pair, value in between.items()],
            "Uncertain: " + _list(f"between {pair} {value:.1f} s" for pair, value in between.items())),
    }  # fmt: skip
    sections = [section._replace(drawing=drawings[name]) for name, section in found.items() if name in drawings]
    sections.append(Section("Events", "", ("type", "count"), sorted(summary.events.items())))
    lead = f"Apparent expressions of the faces in a recording of {_duration(summary.duration)}."
    return _page(title, lead, figures, sections, about, further)


def pictures_page(title: str, pictures: Pictures, drawing: str, about: Mapping[str, Any]) -> str:
    """Return the report on pictures as HTML; ``drawing`` shows the shares, other arguments are as for `page`."""
    figures = {
        "pictures": f"{pictures.count:,}",
        "faces": f"{pictures.faces.total():,}",
        "most frequent label": next(iter(pictures.shares), "none"),
    }
    section = Section(
        "Share of each label", "Each face counts for its most probable label.",
        ("label", "faces", "share in %"),
        [(label, pictures.faces[label], round(100 * share, 1)) for label, share in pictures.shares.items()],
        "Shares: " + _list(f"{label} {share:.1%}" for label, share in pictures.shares.items()), drawing,
    )  # fmt: skip
    return _page(title, "Apparent expressions of the faces in pictures.", figures, [section], about)


def _page(
    title: str,
    lead: str,
    figures: Mapping[str, str],
    sections: Iterable[Section],
    about: Mapping[str, Any],
    further: Iterable[Section] = (),
) -> str:
    error, hint = about.get("error"), about.get("hint")
    notes = [*([f"Incomplete: {error}."] if error else []), *([f"Note: {hint}."] if hint else [])]
    return html(
        title,
        "apparent expressions",
        lead,
        figures,
        sections,
        CAUTION + TRACKS + LAW,
        f"model <code>{escape(about['model'])}</code>, {escape(_settings(about['settings']))}",
        notes,
        further,
    )


def _interval_rows(summary: Summary) -> list[tuple[str | float | None, ...]]:
    """Return the intervals of each track as table rows; for a track without intervals its stay."""
    labelled = {interval.track for interval in summary.intervals}
    found = [*summary.intervals, *(stay for stay in summary.stays if stay.track not in labelled)]
    found.sort(key=lambda interval: (interval.track, interval.start))
    return [
        (str(interval.track), interval.label or "uncertain", round(interval.start, 2), round(interval.end, 2))
        for interval in found
    ]


def _measure_rows(summary: Summary) -> list[tuple[str | float | None, ...]]:
    """Return the mean, lowest and highest point of each curve."""
    rows: list[tuple[str | float | None, ...]] = []
    for track in dict.fromkeys(track for curves in summary.measures.values() for track in curves):
        for name, curves in summary.measures.items():
            values = [value for _, value in curves[track]]
            rows.append((str(track), name, *(round(one, 2) for one in (fmean(values), min(values), max(values)))))
    return rows


def _settings(settings: Mapping[str, Any]) -> str:
    least, interval = settings["detector"]["min_face"], settings["search"]["scan_interval"]
    search = f"full scan every {interval:g} s" if interval else "full scan of every frame"
    return f"labels: {settings['labels']}, smallest face {least} pixels, {search}"


def _list(parts: Iterable[str]) -> str:
    return ", ".join(parts) or "none"


def _range(values: Sequence[float]) -> str:
    if not values:
        return "Curve of the mean valence: no faces"
    mean = sum(values) / len(values)
    return f"Curve of the mean valence: from {min(values):.2f} to {max(values):.2f}, {mean:.2f} on average"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
