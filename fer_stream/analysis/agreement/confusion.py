"""Draws a confusion as SVG for a page: text and lines have the page's colour, on light and dark backgrounds."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fer_stream.analysis.agreement.compare import Scope

CELL, TOP, RIGHT = 54, 74, 84
"""Size of a cell, and room for the labels above and for the times at the right, in pixels."""

LETTER = 7
"""Room for a letter of a label at the left, in pixels."""

PAINT = "#0072b2"


def confusion(scope: Scope, first: str, second: str) -> str:
    """Return a drawing: a row for each label of the second rater, with the share of its time by the first's labels.

    A row's cells add up to 100 %; its time is at its right end. The number is written in each cell, so that nothing
    depends on the colour.
    """
    table = scope.confusion.sum(0).T
    count = len(scope.labels)
    left = 40 + LETTER * max(len(_short(label)) for label in scope.labels)
    width, height = left + CELL * count + RIGHT, TOP + CELL * count + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        # In the page's ink, because its softer colour is hard to read on a full cell; never larger than it is.
        f'style="color: var(--ink); width: {width}px; min-width: {width}px" fill="currentColor" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<text x="{left + CELL * count / 2:g}" y="16" text-anchor="middle">{escape(first)}</text>',
        f'<text transform="translate(14 {TOP + CELL * count / 2:g}) rotate(-90)" text-anchor="middle">{escape(second)}'
        "</text>",
    ]
    for row, label in enumerate(scope.labels):
        name, middle = escape(_short(label)), TOP + CELL * (row + 0.5)
        turned = f"translate({left + CELL * (row + 0.5):g} {TOP - 8}) rotate(-30)"
        parts.append(f'<text x="{left - 8}" y="{middle + 4:g}" text-anchor="end">{name}</text>')
        parts.append(f'<text transform="{turned}">{name}</text>')
        whole = float(table[row].sum())
        for column in range(count):
            share = float(table[row, column]) / whole if whole else 0.0
            x, y = left + CELL * column, TOP + CELL * row
            edge = 2 if row == column else 0.5
            parts.append(
                f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="{PAINT}" fill-opacity="{0.75 * share:.3f}"'
                f' stroke="currentColor" stroke-opacity="0.35" stroke-width="{edge}"/>'
            )
            text = f"{share:.0%}" if whole else "-"
            parts.append(f'<text x="{x + CELL / 2:g}" y="{middle + 4:g}" text-anchor="middle">{text}</text>')
        parts.append(f'<text x="{left + CELL * count + 8}" y="{middle + 4:g}">{whole:,.1f} s</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _short(label: str) -> str:
    return label if len(label) <= 14 else f"{label[:13]}…"
