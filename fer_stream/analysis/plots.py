"""Draws a summary as SVG. The drawings work on light and dark backgrounds, and never rely on colour alone."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fer_stream.imaging.palette import OTHERS, colour, ink_on
from fer_stream.system.extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fer_stream.analysis.summary import Summary

INK = "#767676"
"""Colour of text and axes: readable on white and on black."""

MOST_TRACKS = 40
"""Tracks shown in a timeline, the longest first; more would be unreadable."""

WIDTH = 9.0
"""Width of every drawing, in inches of 72 points."""

MOST_CURVES = 10
"""Tracks whose measures are drawn, the longest."""

DASHES = ("solid", "dashed")

MOST_BARS = 60
"""Bars shown in a drawing of several, the first."""

LONGEST = 40
"""Letters of the longest name beside a bar."""

OF_TIME = "% of the time that faces were in view"

LETTER = 0.066
"""Width in inches of a letter inside a bar."""

LONG, MOST_TICKS = 120, 12
"""Duration in seconds above which a time axis shows minutes, and its greatest number of tick intervals."""


def draw(summary: Summary) -> dict[str, str]:
    """Return all drawings of a recording: SVG documents by name."""
    found = {"timeline": timeline(summary)}
    if summary.labelled:
        found["shares"] = shares(summary.shares, OF_TIME)
        found["uncertain"] = uncertain(summary)
        if summary.signed:
            found["valence"] = valence(summary)
    if summary.measures:
        found["measures"] = measures(summary)
    return found


def timeline(summary: Summary) -> str:
    """Draw a thin line for each track's stay, with a thick, coloured and named bar for each interval of a label."""
    longest = sorted(summary.stays, key=lambda stay: (stay.start - stay.end, stay.track))[:MOST_TRACKS]
    order = {stay.track: i for i, stay in enumerate(sorted(longest, key=lambda stay: (stay.start, stay.track)))}
    whole = max(summary.duration, 0.1)
    figure, (axes,) = _figure(0.9 + 0.27 * max(len(order), 3))
    for stay in longest:
        axes.broken_barh(
            [(stay.start, stay.end - stay.start)], (order[stay.track] - 0.08, 0.16), color=INK, linewidth=0
        )
    for interval in summary.intervals:
        if interval.track not in order or interval.label is None:
            continue
        length, at = max(interval.end - interval.start, whole / 500), order[interval.track]
        paint = {"facecolor": colour(interval.label), "edgecolor": INK, "linewidth": 0.6}
        axes.broken_barh([(interval.start, length)], (at - 0.38, 0.76), **paint)
        if length / whole * (WIDTH - 1) > LETTER * (len(interval.label) + 1):
            middle, ink = interval.start + length / 2, ink_on(colour(interval.label))
            axes.text(middle, at, _plain(interval.label), color=ink, fontsize=8, ha="center", va="center_baseline")
    axes.set(ylim=(max(len(order), 1) - 0.4, -0.6), ylabel="track")
    _time(axes, whole)
    axes.set_yticks(list(order.values()), [str(track) for track in order])
    _legend(axes, sorted({interval.label for interval in summary.intervals if interval.label}))
    return _svg(figure, "timeline")


def shares(found: Mapping[str, float], what: str) -> str:
    """Draw a bar with the share of each label; ``found`` has shares of 0 to 1, ``what`` labels the axis."""
    items = list(found.items())[::-1]
    paints = [_paint(label) for label, _ in items]
    return _bars("shares", [(label, 100 * share) for label, share in items], paints, "{:.1f} %", what)


def stacked(name: str, found: Mapping[str, Mapping[str, float]], labels: Sequence[str], what: str) -> str:
    """Draw a stacked bar of the shares of the labels for each entry, such as a film or a trial.

    Args:
        name: the drawing's name, which is unique in its page.
        found: the shares, 0 to 1, of each entry's labels; an entry without shares has an empty bar.
        labels: the order of the labels.
        what: the text at the axis.
    """
    items = [(_short(entry), parts) for entry, parts in list(found.items())[:MOST_BARS]]
    figure, (axes,) = _figure(1.1 + 0.3 * max(len(items), 1))
    room = WIDTH - 0.4 - LETTER * max((len(entry) for entry, _ in items), default=0)  # inches for 100 %
    for at, (_, parts) in enumerate(items):
        left = 0.0
        for label in labels:
            size = 100 * parts.get(label, 0.0)
            axes.barh([at], [size], left=left, height=0.7, edgecolor=INK, linewidth=0.6, **_paint(label))
            text = f"{_plain(label)} {size:.0f} %"
            if size / 100 * room > LETTER * (len(text) + 1) and label != "uncertain":
                ink = ink_on(colour(label))
                axes.text(left + size / 2, at, text, color=ink, fontsize=8, ha="center", va="center_baseline")
            left += size
    axes.set(xlim=(0, 100), ylim=(max(len(items), 1) - 0.5, -0.5), xlabel=what)
    axes.set_yticks(range(len(items)), [_plain(entry) for entry, _ in items])
    _legend(axes, [label for label in labels if label != "uncertain"], unsure=_patch("uncertain"))
    return _svg(figure, name)


def valence(summary: Summary) -> str:
    """Draw the mean valence of the faces in view over time."""
    figure, (axes,) = _figure(2.6)
    axes.axhline(0, color=INK, linewidth=0.8)
    for part in _parts(summary.valence):
        dot = "o" if len(part) == 1 else None
        axes.plot(*zip(*part, strict=True), color=INK, linewidth=1.6, marker=dot, markersize=3)
        for label, side in (("positive", max), ("negative", min)):
            edge = [side(value, 0.0) for _, value in part]
            axes.fill_between([second for second, _ in part], edge, 0, color=colour(label), alpha=0.55, linewidth=0)
    axes.set_ylim(-1, 1)
    _time(axes, max(summary.duration, 0.1))
    axes.set_yticks([-1, 0, 1], ["negative", "neutral", "positive"])
    return _svg(figure, "valence")


def measures(summary: Summary) -> str:
    """Draw the curves of each measure in axes of its own: a line for each of the longest tracks, with its number."""
    stays = sorted(summary.stays, key=lambda stay: (stay.start - stay.end, stay.track))
    longest = sorted(stay.track for stay in stays[:MOST_CURVES])
    figure, rows = _figure(0.3 + 1.7 * len(summary.measures), len(summary.measures))
    for axes, (name, curves) in zip(rows, summary.measures.items(), strict=True):
        for number, track in enumerate(track for track in longest if track in curves):
            points = curves[track]
            paint, dash = OTHERS[number % len(OTHERS)], DASHES[number // len(OTHERS) % len(DASHES)]
            for part in _parts(points):
                dot = "o" if len(part) == 1 else None
                axes.plot(
                    *zip(*part, strict=True), color=paint, linestyle=dash, linewidth=1.6, marker=dot, markersize=3
                )
            axes.annotate(
                str(track), points[-1], (4, 0), textcoords="offset points", color=INK, fontsize=8, va="center"
            )
        axes.set_ylabel(_plain(name))
        _time(axes, max(summary.duration, 0.1))
        axes.margins(y=0.1)
    return _svg(figure, "measures")


def _parts(points: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Return the parts of a curve between which no face was in view."""
    breaks = [0, *(i for i in range(1, len(points)) if points[i][0] - points[i - 1][0] > 1.0), len(points)]
    return [points[begin:end] for begin, end in pairwise(breaks) if end > begin]


def uncertain(summary: Summary) -> str:
    """Draw how long faces were without a sure label, by their two most probable labels."""
    items = list(summary.uncertain_between.items())[:8][::-1]
    return _bars(
        "uncertain", items, [_paint("uncertain") for _ in items], "{:.1f} s", "seconds of frames without a sure label"
    )


def _bars(name: str, items: list[tuple[str, float]], paints: list[dict[str, Any]], value: str, what: str) -> str:
    figure, (axes,) = _figure(0.75 + 0.3 * max(len(items), 1))
    for (label, size), paint in zip(items, paints, strict=True):
        bar = axes.barh([_plain(label)], [size], height=0.7, edgecolor=INK, linewidth=0.6, **paint)
        axes.bar_label(bar, [value.format(size)], padding=4, color=INK, fontsize=9)
    axes.set(xlim=(0, 1.12 * max((size for _, size in items), default=1.0)), xlabel=what)
    return _svg(figure, name)


def _short(name: str) -> str:
    """Shorten a long name in its middle, so that its bar has room; the end may be what distinguishes it."""
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[: half - 1]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def _plain(label: str) -> str:
    """Escape a label so that matplotlib does not parse it as a formula."""
    return label.replace("$", r"\$")


def _paint(label: str) -> dict[str, Any]:
    return {"color": "none", "hatch": "////"} if label == "uncertain" else {"color": colour(label)}


def _figure(height: float, rows: int = 1) -> tuple[Any, list[Any]]:
    """Return a figure, and its axes from top to bottom."""
    figure = require("matplotlib.figure", "analyze").Figure(figsize=(WIDTH, height), layout="constrained")
    found = [figure.add_subplot(rows, 1, row + 1) for row in range(rows)]
    for axes in found:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK, labelsize=9)
        for side, spine in axes.spines.items():
            spine.set_color(INK)
            spine.set_visible(side in ("left", "bottom"))
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
    return figure, found


def _time(axes: Any, whole: float) -> None:
    """Make the x axis show time from 0 to ``whole`` seconds, as minutes and seconds above `LONG`."""
    axes.set(xlim=(0, whole), xlabel="seconds")
    if whole > LONG:
        step = next((step for step in (15, 30, 60, 120, 300, 600, 900, 1800) if whole / step <= MOST_TICKS), 3600)
        ticks = range(0, int(whole) + 1, step)
        axes.set_xticks(ticks, [f"{tick // 60}:{tick % 60:02}" for tick in ticks])
        axes.set_xlabel("minutes:seconds")


def _patch(label: str) -> Any:
    paint = _paint(label)
    face = {"facecolor": paint.pop("color"), **paint}
    return require("matplotlib.patches", "analyze").Patch(edgecolor=INK, linewidth=0.6, label=_plain(label), **face)


def _legend(axes: Any, labels: Sequence[str], unsure: Any = None) -> None:
    """Name the labels, and time without one: by a thin line, unless it is drawn as ``unsure``."""
    line = unsure or require("matplotlib.lines", "analyze").Line2D([], [], color=INK, linewidth=3, label="uncertain")
    axes.legend(
        handles=[*map(_patch, labels), line], loc="lower left", bbox_to_anchor=(0, 1), ncols=5, frameon=False,
        labelcolor=INK, fontsize=9, borderpad=0, columnspacing=1.4,
    )  # fmt: skip


def _svg(figure: Any, name: str) -> str:
    rc_context = require("matplotlib", "analyze").rc_context
    out = io.StringIO()
    # A fixed salt makes the output reproducible. Text stays text: it can be searched, and is sharp at every size.
    options = {"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif", "hatch.linewidth": 0.8}
    with rc_context(options):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
    # Several drawings share a page: keep only the ids that are referred to, and prefix them with the drawing's name.
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#| id=")(?=[^")]+["\)])', rf"\g<1>{name}-", text)
    return text[text.index("<svg") :]
