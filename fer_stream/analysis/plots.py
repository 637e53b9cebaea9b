"""Drawings of a summary, as SVG that reads on light and on dark paper."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from fer_stream.extras import require
from fer_stream.palette import UNCERTAIN, colour

if TYPE_CHECKING:
    from fer_stream.analysis.summary import Summary

INK = "#808080"
"""Of text and axes: told from white and from black alike."""

MOST_TRACKS = 40
"""Tracks in a timeline, the longest; more are a texture."""

WIDTH = 9.0
"""Of every drawing, in inches of 72 points."""


def timeline(summary: Summary) -> str:
    """Draw a thin line for each face's stay, thick and coloured where a label was sure."""
    longest = sorted(summary.stays, key=lambda stay: stay.start - stay.end)[:MOST_TRACKS]
    order = {stay.track: i for i, stay in enumerate(sorted(longest, key=lambda stay: (stay.start, stay.track)))}
    figure, axes = _figure(0.9 + 0.24 * max(len(order), 3))
    for stay in longest:
        axes.broken_barh([(stay.start, stay.end - stay.start)], (order[stay.track] - 0.1, 0.2), color=UNCERTAIN)
    for interval in summary.intervals:
        if interval.track in order:
            span = (interval.start, max(interval.end - interval.start, summary.duration / 500))
            axes.broken_barh([span], (order[interval.track] - 0.35, 0.7), color=colour(interval.label))
    axes.set(xlim=(0, max(summary.duration, 0.1)), ylim=(len(order) - 0.5, -0.5), xlabel="seconds", ylabel="track")
    axes.set_yticks(list(order.values()), [str(track) for track in order])
    present = dict.fromkeys(interval.label for interval in summary.intervals)
    _legend(axes, [*present, None])
    return _svg(figure)


def shares(summary: Summary) -> str:
    """Draw a bar for each label: its share of the time that faces were in view."""
    whole = sum(summary.seconds.values()) or 1.0
    items = sorted(summary.seconds.items(), key=lambda item: item[1])
    figure, axes = _figure(0.8 + 0.3 * max(len(items), 2))
    values = [100 * value / whole for _, value in items]
    bars = axes.barh([label or "uncertain" for label, _ in items], values, color=[colour(label) for label, _ in items])
    axes.bar_label(bars, [f"{value:.1f} %" for value in values], padding=4, color=INK)
    axes.set(xlim=(0, 1.12 * max(values, default=100)), xlabel="% of the time that faces were in view")
    return _svg(figure)


def valence(summary: Summary) -> str:
    """Draw the mean valence of the faces in view over time."""
    figure, axes = _figure(2.6)
    points = summary.valence
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.plot(*zip(*points, strict=True), color=colour("happy"), linewidth=1.6) if points else None
    axes.set(xlim=(0, max(summary.duration, 0.1)), ylim=(-1, 1), xlabel="seconds")
    axes.set_yticks([-1, 0, 1], ["negative", "neutral", "positive"])
    return _svg(figure)


def confusions(summary: Summary) -> str:
    """Draw between which two labels faces were, while none was sure."""
    items = summary.confused.most_common(8)[::-1]
    figure, axes = _figure(0.8 + 0.3 * max(len(items), 2))
    bars = axes.barh([f"{a} or {b}" for (a, b), _ in items], [value for _, value in items], color=UNCERTAIN)
    axes.bar_label(bars, [f"{value:.1f} s" for _, value in items], padding=4, color=INK)
    axes.set(
        xlim=(0, 1.12 * max((value for _, value in items), default=1.0)), xlabel="face-seconds without a sure label"
    )
    return _svg(figure)


def _figure(height: float) -> tuple[Any, Any]:
    figure = require("matplotlib.figure", "analyze").Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=INK, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(side in ("left", "bottom"))
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def _legend(axes: Any, labels: list[str | None]) -> None:
    patch = require("matplotlib.patches", "analyze").Patch
    handles = [patch(color=colour(label), label=label or "uncertain") for label in labels]
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), frameon=False, labelcolor=INK,
        fontsize=9,
    )  # fmt: skip


def _svg(figure: Any) -> str:
    rc_context = require("matplotlib", "analyze").rc_context
    out = io.StringIO()
    # The same summary gives the same file; text stays text, which a screen reader reads and a search finds.
    with rc_context({"svg.hashsalt": "fer_stream", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
