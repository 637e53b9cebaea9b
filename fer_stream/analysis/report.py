"""Makes the HTML report: one page without external requests. Every drawing is also given as a table."""

from __future__ import annotations

from html import escape
from statistics import fmean
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.analysis import plots

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fer_stream.analysis.pictures import Pictures
    from fer_stream.analysis.summary import Summary

MOST_ROWS = 400
"""Rows shown of a table; faces.csv and events.jsonl hold all data."""

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>$title: apparent expressions</title>
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1c; --soft: #5a5a5a; --line: #d8d8d8; --card: #f7f7f5; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161616; --ink: #ececec; --soft: #ababab; --line: #3a3a3a; --card: #202020; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .2rem; }
p { max-width: 44rem; margin: .3rem 0 .8rem; }
.lead, .note, footer { color: var(--soft); }
.broken { border-left: .3rem solid #d55e00; padding: .2rem .8rem; }
dl.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1.4rem 0; }
dl.figures div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .65rem .9rem; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; }
figure { margin: 0; color: var(--soft); }
figure svg { display: block; width: 100%; height: auto; min-width: 44rem; }
details { margin: .4rem 0 0; }
summary { color: var(--soft); font-size: .9rem; cursor: pointer; width: fit-content; border-radius: .25rem; }
summary:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
/* Wide content scrolls; a shadow at the right edge shows that there is more. */
.wide { overflow-x: auto; background:
  linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--line), transparent) right / 1.2rem 100% no-repeat scroll; }
.wide:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .4rem 0; }
th, td { text-align: left; padding: .2rem 1.4rem .2rem 0; border-bottom: 1px solid var(--line); font-weight: 400; }
thead th { color: var(--soft); font-size: .85rem; }
.number { text-align: right; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; font-size: .85rem; }
code { font-size: .95em; overflow-wrap: anywhere; }
@media print { details { display: none; } figure { break-inside: avoid; } figure svg { min-width: 0; } }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p class="lead">$lead</p>
$broken<dl class="figures">$figures</dl>
$sections
</main>
<footer>
<p>An expression is not a feeling: the same expression has many causes, and many feelings cause no expression
(Barrett et al. 2019, doi:10.1177/1529100619832930). The model is often wrong; its model card gives the error rates. A
track is a face followed by its motion while it is in view, not a person; one person may have several tracks. In the
European Union, inferring emotions at work and in education is prohibited, except for medical or safety reasons (AI Act,
Article 5(1)(f)).</p>
<p>fer-stream $version, model <code>$model</code>, $settings.</p>
</footer>
</body>
</html>
""")

_DRAWING = """<figure class="wide"><div role="img" aria-label="{alt}">{drawing}</div></figure>
"""


class _Section(NamedTuple):
    """A section of the report: a drawing (optional), and the same data as a table."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str | float | None, ...]]
    alt: str = ""
    drawing: str = ""


def page(title: str, summary: Summary, drawings: Mapping[str, str], about: Mapping[str, Any]) -> str:
    """Return the report on a recording as HTML.

    Args:
        title: the name of the recording.
        summary: the summary of the whole recording.
        drawings: the result of `plots.draw`.
        about: ``version``, ``model``, ``settings`` (as JSON), ``error`` if the recording broke off, and ``hint`` if there
            is something to suggest.
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
        "timeline": _Section(
            "Labels over time",
            f"One line per track{longest(plots.MOST_TRACKS)}; thin while no label was sure.",
            ("track", "label", "from s", "to s"), _interval_rows(summary),
            f"Timeline of {len(summary.stays)} tracks over {_duration(summary.duration)}"),
        "shares": _Section(
            "Share of each label",
            "Share of the time from entering to leaving, added up over all tracks of the timeline above.",
            ("label", "share in %"), [(label, round(100 * share, 1)) for label, share in shares.items()],
            "Shares: " + _list(f"{label} {share:.1%}" for label, share in shares.items())),
        "valence": _Section(
            "Valence over time", "P(positive) minus P(negative), averaged over the faces in view.",
            ("second", "valence, -1 to 1"), [(at, round(value, 2)) for at, value in summary.valence],
            _range([value for _, value in summary.valence])),
        "measures": _Section(
            "Measures over time",
            f"Each smoothed measure of the model, one line per track{longest(plots.MOST_CURVES)}.",
            ("track", "measure", "mean", "lowest", "highest"), _measure_rows(summary),
            "Curves by track: " + _list(summary.measures)),
        "uncertain": _Section(
            "Time without a sure label",
            "By the two most probable labels, counted over frames that show the face.",
            ("labels", "face-seconds"), [(pair, round(value, 1)) for pair, value in between.items()],
            "Uncertain: " + _list(f"between {pair} {value:.1f} s" for pair, value in between.items())),
    }  # fmt: skip
    sections = [section._replace(drawing=drawings[name]) for name, section in found.items() if name in drawings]
    sections.append(_Section("Events", "", ("type", "count"), sorted(summary.events.items())))
    lead = f"Apparent expressions of the faces in a recording of {_duration(summary.duration)}."
    return _page(title, lead, figures, sections, about)


def pictures_page(title: str, pictures: Pictures, drawing: str, about: Mapping[str, Any]) -> str:
    """Return the report on pictures as HTML; ``drawing`` shows the shares, other arguments are as for `page`."""
    figures = {
        "pictures": f"{pictures.count:,}",
        "faces": f"{pictures.faces.total():,}",
        "most frequent label": next(iter(pictures.shares), "none"),
    }
    section = _Section(
        "Share of each label", "Each face counts for its most probable label.",
        ("label", "faces", "share in %"),
        [(label, pictures.faces[label], round(100 * share, 1)) for label, share in pictures.shares.items()],
        "Shares: " + _list(f"{label} {share:.1%}" for label, share in pictures.shares.items()), drawing,
    )  # fmt: skip
    return _page(title, "Apparent expressions of the faces in pictures.", figures, [section], about)


def _page(
    title: str, lead: str, figures: Mapping[str, str], sections: Iterable[_Section], about: Mapping[str, Any]
) -> str:
    error, hint = about.get("error"), about.get("hint")
    notes = [*([f"Incomplete: {error}."] if error else []), *([f"Note: {hint}."] if hint else [])]
    return _PAGE.substitute(
        title=escape(title),
        lead=lead,
        broken="".join(f'<p class="broken">{escape(note)}</p>\n' for note in notes),
        version=escape(about["version"]),
        model=escape(about["model"]),
        settings=escape(_settings(about["settings"])),
        figures="".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in figures.items()),
        sections="".join(map(_section, sections)),
    )


def _section(section: _Section) -> str:
    title, table = escape(section.title), _table(section)
    text = f"<h2>{title}</h2>\n" + (f'<p class="note">{escape(section.note)}</p>\n' if section.note else "")
    if not section.drawing:
        return text + table
    # Replace the drawing's grey by the page's text colour, which has more contrast on either background.
    drawing = section.drawing.replace(plots.INK, "currentColor")
    text += _DRAWING.format(alt=escape(section.alt, quote=True), drawing=drawing)
    return text + f'<details><summary aria-label="{title}, as a table">as a table</summary>{table}</details>\n'


def _table(section: _Section) -> str:
    if not section.rows:
        return "<p>No data.</p>\n"

    def cell(value: str | float | None, column: int) -> str:
        text = f"{value:,}" if isinstance(value, int | float) else escape(value or "")
        if column == 0:
            return f'<th scope="row">{text}</th>'
        return f'<td class="number">{text}</td>' if isinstance(value, int | float) else f"<td>{text}</td>"

    numbers = [isinstance(value, int | float) and i > 0 for i, value in enumerate(section.rows[0])]
    head = "".join(
        f'<th scope="col"{" class=number" if number else ""}>{escape(text)}</th>'
        for text, number in zip(section.head, numbers, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(cell(value, column) for column, value in enumerate(row)) + "</tr>\n"
        for row in section.rows[:MOST_ROWS]
    )
    more = f"<p>The first {MOST_ROWS} of {len(section.rows):,}.</p>" if len(section.rows) > MOST_ROWS else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"
    return f'<div class="wide">{table}</div>{more}\n'


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
