"""Measures a drawing as a reader does with a ruler: where its bars and curves are, by the numbers at its axis."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    Point = tuple[float, float]

_HATCH = "url("
_CURVE = "1.6"
"""The width of a curve; other lines are thinner."""

_STAY = ""
"""The name of a thin line: the time in which a face was in view."""


class Bar(NamedTuple):
    """A bar: the name of its row, its label by the legend (if there is one), and its ends on the axis."""

    row: str
    label: str
    begin: float
    end: float


class Text(NamedTuple):
    """A text at a point; ``y`` grows downwards."""

    x: float
    y: float
    anchor: str
    text: str


class _Shape(NamedTuple):
    points: list[Point]
    fill: str
    stroke: str
    """The width of its outline."""
    inside: bool

    def box(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom."""
        xs, ys = zip(*self.points, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


class Drawing:
    """A drawing with one pair of axes.

    Args:
        svg: its text.
    """

    def __init__(self, svg: str) -> None:
        root = ElementTree.fromstring(re.sub(r' xmlns(:xlink)?="[^"]*"|xlink:', "", svg))  # noqa: S314
        self._paths = {at.get("id"): _points(at.get("d", "")) for at in root.iter("path")}
        self._shapes = list(self._within(root))
        self.texts = [
            Text(
                float(at.get("x", "nan")), float(at.get("y", "nan")), _style(at, "text-anchor"), "".join(at.itertext())
            )
            for at in root.iter("text")
        ]
        frame = next(at for at in root.iter("path") if "opacity: 0" in at.get("style", ""))
        self._left, self._top, self._right, self._bottom = _Shape(_points(frame.get("d", "")), "", "", True).box()
        ticks = [
            (at.x, _number(at.text)) for at in self.texts
            if at.anchor == "middle" and at.y > self._bottom and re.fullmatch(r"[\d.:]+", at.text)
        ]  # fmt: skip
        self._first, self._unit = ticks[0], (ticks[-1][1] - ticks[0][1]) / (ticks[-1][0] - ticks[0][0])
        assert [self.value(x) for x, _ in ticks] == [
            pytest.approx(value, abs=0.1 * self._unit) for _, value in ticks
        ], "a linear axis"
        self.rows = {at.text: at.y for at in self.texts if at.anchor == "end" and at.x < self._left}

    def value(self, x: float) -> float:
        """Return the value on the axis at a place."""
        return self._first[1] + (x - self._first[0]) * self._unit

    def bars(self) -> list[Bar]:
        """Return all bars, in order of rows and values."""
        legend = self._legend()
        found = []
        for shape in self._shapes:
            if shape.inside and shape.fill != "none":
                left, top, right, bottom = shape.box()
                row = min(self.rows, key=lambda name: abs(self.rows[name] - 3.4 - (top + bottom) / 2))
                label = legend.get(_kind(shape.fill), shape.fill) if legend else ""
                found.append(Bar(row, _STAY if label == "currentColor" else label, self.value(left), self.value(right)))
        return sorted(found)

    def inside(self) -> list[Text]:
        """Return the texts within the axes."""
        return [at for at in self.texts if self._left <= at.x <= self._right and self._top <= at.y <= self._bottom]

    def row(self, text: Text) -> str:
        """Return the row in which a text is."""
        return min(self.rows, key=lambda name: abs(self.rows[name] - text.y))

    def curve(self, low: str, high: str) -> list[Point]:
        """Return the points of the curves; ``low`` and ``high`` are the texts at -1 and 1."""
        scale = 2 / (self.rows[high] - self.rows[low])
        lines = [shape.points for shape in self._shapes if shape.inside and shape.stroke == _CURVE]
        return [(self.value(x), -1 + (y + 3.4 - self.rows[low]) * scale) for points in lines for x, y in points]

    def _legend(self) -> dict[str, str]:
        """Return the label of each fill."""
        found = {}
        for shape in self._shapes:
            if not shape.inside and shape.fill not in ("none", "") and shape.box()[3] < self._top:
                _, _, right, bottom = shape.box()
                beside = [at for at in self.texts if abs(at.y - bottom) < 1 and at.x > right]
                if beside:
                    found[_kind(shape.fill)] = min(beside, key=lambda at: at.x).text
        return found

    def _within(self, element: ElementTree.Element, inside: bool = False) -> Iterator[_Shape]:
        inside = inside or element.get("clip-path") is not None
        for child in element:
            here = inside or child.get("clip-path") is not None
            if child.tag == "path" and child.get("d"):
                yield _Shape(_points(child.get("d", "")), _style(child, "fill"), _style(child, "stroke-width"), here)
            elif child.tag == "use":
                dx, dy = float(child.get("x", 0)), float(child.get("y", 0))
                points = self._paths[child.get("href", "").removeprefix("#")]
                moved = [(x + dx, y + dy) for x, y in points]
                yield _Shape(moved, _style(child, "fill"), _style(child, "stroke-width"), here)
            elif child.tag != "defs":
                yield from self._within(child, here)


def _kind(fill: str) -> str:
    return _HATCH if fill.startswith(_HATCH) else fill


def _points(path: str) -> list[Point]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path)]


def _style(element: ElementTree.Element, name: str) -> str:
    found = re.search(rf"(?:^|; ){name}: ([^;]+)", element.get("style", ""))
    return found[1] if found else ""


def _number(text: str) -> float:
    """Return a number at an axis; minutes and seconds as seconds."""
    minutes, _, seconds = text.rpartition(":")
    return float(seconds) + 60 * float(minutes or 0)
