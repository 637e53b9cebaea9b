"""Measures a drawing as a reader does with a ruler: where its bars and curves are, by the numbers at its axis."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Point = tuple[float, float]

_HATCH = "url("
_BELOW = 30
"""How far below its axes a text may be."""

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
    """One pair of axes of a drawing, with what is above, below and beside it.

    Args:
        svg: the drawing's text.
        place: which axes, from the top.
    """

    def __init__(self, svg: str, place: int = 0) -> None:
        root = ElementTree.fromstring(re.sub(r' xmlns(:xlink)?="[^"]*"|xlink:', "", svg))  # noqa: S314
        frames = [
            _Shape(_points(at.get("d", "")), "", "", True).box()
            for at in root.iter("path") if "opacity: 0" in at.get("style", "")
        ]  # fmt: skip
        self.count = len(frames)
        """How many pairs of axes the drawing has."""
        above = [frame[3] + _BELOW for frame in frames[:place]]
        self._left, self._top, self._right, self._bottom = frames[place]

        def ours(y: float) -> bool:
            return max(above, default=0.0) < y <= self._bottom + _BELOW

        self._paths = {at.get("id"): _points(at.get("d", "")) for at in root.iter("path")}
        self._shapes = [shape for shape in self._within(root) if shape.points and ours(shape.box()[3])]
        texts = [
            Text(
                float(at.get("x", "nan")), float(at.get("y", "nan")), _style(at, "text-anchor"), "".join(at.itertext())
            )
            for at in root.iter("text")
        ]
        self.texts = [at for at in texts if ours(at.y)]
        ticks = [
            (at.x, _number(at.text)) for at in self.texts
            if at.anchor == "middle" and at.y > self._bottom and re.fullmatch(r"[\d.:]+", at.text)
        ]  # fmt: skip
        self.value = _scale(ticks)
        self.rows = {at.text: at.y for at in self.texts if at.anchor == "end" and at.x < self._left}

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

    def curves(self, names: Mapping[str, float] | None = None) -> list[list[Point]]:
        """Return the points of each curve.

        Args:
            names: the values at the vertical axis by their texts; by default, the texts are numbers.
        """
        at = {text: y for text, y in self.rows.items() if names is None or text in names}
        height = _scale(
            [(y - 3.4, names[text] if names else float(text.replace("\N{MINUS SIGN}", "-"))) for text, y in at.items()]
        )
        lines = [shape.points for shape in self._shapes if shape.inside and shape.stroke == _CURVE]
        return [[(self.value(x), height(y)) for x, y in points] for points in lines]

    def at_ends(self) -> list[str]:
        """Return the text beside the end of each curve."""
        lines = [shape.points[-1] for shape in self._shapes if shape.inside and shape.stroke == _CURVE]
        beside = [at for at in self.texts if at.anchor not in ("middle", "end") and at.y < self._bottom + 4]
        return [min(beside, key=lambda at: abs(at.x - 4 - x) + abs(at.y - 3 - y)).text for x, y in lines]

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


def _scale(ticks: Sequence[Point]) -> Callable[[float], float]:
    """Return what gives the value at a place, after a check that the axis is linear."""
    (first, low), (last, high) = ticks[0], ticks[-1]
    unit = (high - low) / (last - first)

    def value(place: float) -> float:
        return low + (place - first) * unit

    assert [value(place) for place, _ in ticks] == [pytest.approx(tick, abs=abs(0.1 * unit)) for _, tick in ticks]
    return value


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
