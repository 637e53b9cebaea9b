"""Draws hysteresis, with a smoother that has the default settings."""

from __future__ import annotations

import math
import random

from fer_stream.events.smoother import LabelSet, Smoother
from fer_stream.settings.tree import SmootherSettings
from fer_stream.types import Nanoseconds, Probabilities

LABELS = ("happy", "neutral")
SECONDS, RATE = 5.0, 15
LEFT, TOP, WIDTH, HEIGHT = 60, 20, 820, 230

STYLE = """
.paper{fill:#fff}text{fill:#1f2a30;font:14px system-ui,sans-serif}
.look{fill:#6b7f8a}.belief{fill:none;stroke:#0072b2;stroke-width:3}
.line{stroke:#90a4ae;stroke-dasharray:6 5}.axis{stroke:#546e7a}.bar{fill:#e69f00}.on{fill:#1f2a30}
@media (prefers-color-scheme:dark){.paper{fill:#1b2126}text{fill:#e6edf1}.look{fill:#9fb3bd}.belief{stroke:#56b4e9}
.line{stroke:#607d8b}.axis{stroke:#90a4ae}.on{fill:#1f2a30}}
"""


def looks() -> list[tuple[float, float]]:
    """Return ``(seconds, probability of happy)``: a smile between 1 and 3.6 s, with noise."""
    noise = random.Random(3)  # noqa: S311 - a fixed seed gives the same drawing every time
    found = []
    for number in range(round(SECONDS * RATE)):
        second = number / RATE
        smile = 1 / (1 + math.exp(-8 * (second - 1.0))) - 1 / (1 + math.exp(-8 * (second - 3.6)))
        found.append((second, min(max(0.08 + 0.76 * smile + noise.gauss(0, 0.15), 0.02), 0.98)))
    return found


def hysteresis() -> str:
    """Return the drawing as SVG."""
    settings = SmootherSettings()
    smoother = Smoother(LabelSet("emotions", LABELS, {}), settings)
    dots, line, spans, open_at = "", [], [], None
    for second, happy in looks():
        changes = smoother.observe(Nanoseconds(round(second * 1e9)), Probabilities(LABELS, (happy, 1 - happy)))
        for change in changes:
            if change.interval.label == "happy" and change.what == "started":
                open_at = change.interval.start / 1e9
            elif change.interval.label == "happy" and change.what == "ended" and open_at is not None:
                spans.append((open_at, change.interval.last / 1e9))
        dots += f'<circle class="look" cx="{_x(second):.1f}" cy="{_y(happy):.1f}" r="3"/>'
        line.append(f"{_x(second):.1f},{_y(smoother.probabilities.values[0]):.1f}")
    right, bottom = LEFT + WIDTH, TOP + HEIGHT
    rules = "".join(
        f'<line class="line" x1="{LEFT}" x2="{right}" y1="{_y(at):.1f}" y2="{_y(at):.1f}"/>'
        + _text(right + 8, _y(at) + 5, name, "start")
        for name, at in (("enter", settings.enter), ("leave", settings.leave))
    )
    ticks = "".join(_text(_x(second), bottom + 58, f"{second} s") for second in range(6))
    bars = "".join(
        f'<rect class="bar" x="{_x(a):.1f}" y="{bottom + 10}" width="{_x(b) - _x(a):.1f}" height="24" rx="4"/>'
        + _text((_x(a) + _x(b)) / 2, bottom + 27, "one event: happy", kind="on")
        for a, b in spans
    )
    legend = (
        f'<circle class="look" cx="{LEFT + 20}" cy="{TOP + 10}" r="3"/>'
        + _text(LEFT + 30, TOP + 15, "looks", "start")
        + f'<line class="belief" x1="{LEFT + 90}" x2="{LEFT + 120}" y1="{TOP + 10}" y2="{TOP + 10}"/>'
        + _text(LEFT + 128, TOP + 15, "belief", "start")
    )
    scale = _text(LEFT - 8, _y(1) + 5, "1", "end") + _text(LEFT - 8, _y(0), "0", "end")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 330" role="img">'
        f"<title>Looks, belief, thresholds, event</title><style>{STYLE}</style>"
        f'<rect class="paper" width="960" height="330" rx="10"/>{rules}'
        f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{bottom}"/>{scale}{dots}'
        f'<polyline class="belief" points="{" ".join(line)}"/>{bars}{ticks}{legend}</svg>\n'
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _x(second: float) -> float:
    return LEFT + WIDTH * second / SECONDS


def _y(probability: float) -> float:
    return TOP + HEIGHT * (1 - probability)
