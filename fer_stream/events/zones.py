"""Follows the faces of one camera through its zones and across its lines.

The position of a face is the centre of its box; a centre outside the picture is moved to the nearest edge. Because the
centre jitters, there is hysteresis. A visit begins when the centre is in the zone, and ends when it is more than
`MARGIN` face sizes outside it. In the same way a face is on a side of a line when its centre is `MARGIN` face sizes
away from the line, and stays on that side until it is as far away on the other one. It has then crossed the line, if
its centre last passed between the line's ends.

While a face is not detected, its last position counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.imaging.geometry import area, centre
from fer_stream.types import EventType, LineData, Milliseconds, Nanoseconds, ZoneData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.types import EventData, LineShape, Outline, Places, Track

MARGIN = 0.25
"""How far outside of a zone, or beyond a line, a face must be, in sizes of its box (``sqrt(width * height)``)."""

EDGE = 1e-3
"""Distance from the right or lower edge, in pixels, of a centre moved to it: the edge itself is in no zone."""

_Point = tuple[float, float]


class PlaceEvent(NamedTuple):
    """An event of a track at a zone or a line."""

    kind: EventType
    track: Track
    data: EventData


class _Crossing:
    """The position of one face relative to one line."""

    __slots__ = ("near", "side", "within")

    def __init__(self) -> None:
        self.near = 0.0
        """Latest signed distance of its centre from the line that was not 0; 0 if there is none yet."""
        self.side = 0
        """The side on which it was last at least the margin away: 1: right, -1: left, 0: none yet."""
        self.within = False
        """Whether it passed between the ends of the line when its distance last changed its sign."""


class _Visitor:
    """The position of one track: its visits to zones, and its sides of lines."""

    __slots__ = ("at", "crossings", "visits")

    def __init__(self, lines: int) -> None:
        self.at: _Point | None = None
        self.visits: dict[str, Nanoseconds] = {}
        """The zones in which it is, and since when."""
        self.crossings = [_Crossing() for _ in range(lines)]


class PlaceTracker:
    """Follows one camera's tracks through its zones and across its lines. The same tracks give the same events."""

    def __init__(self, places: Places, size: tuple[int, int]) -> None:
        """Begin without tracks; ``size`` is the picture's width and height in pixels."""
        self._places = places
        self._visitors: dict[int, _Visitor] = {}
        self.resize(size)

    def resize(self, size: tuple[int, int]) -> None:
        """Set another size of the pictures; all tracks must have left before."""
        self._size = size
        self._zones = {name: _scaled(outline, size) for name, outline in self._places.zones.items()}
        self._lines = [_Line(name, line, size) for name, line in self._places.lines.items()]

    def observe(self, track: Track) -> list[PlaceEvent]:
        """Take a track that was seen now. A visit to a zone in which it is first seen begins with the track."""
        time = track.last_seen
        visitor = self._visitors.get(track.id)
        since = time
        if visitor is None:
            visitor = self._visitors[track.id] = _Visitor(len(self._lines))
            since = track.first_seen
        x, y = centre(track.face.box)
        at = min(max(x, 0.0), self._size[0] - EDGE), min(max(y, 0.0), self._size[1] - EDGE)
        margin = MARGIN * math.sqrt(max(area(track.face.box), 0.0))
        found = []
        for name, corners in self._zones.items():
            begun = visitor.visits.get(name)
            if begun is not None:
                if not _inside(at, corners) and _distance(at, corners) > margin:
                    del visitor.visits[name]
                    found.append(_visit(EventType.ZONE_LEFT, track, name, begun, time))
            elif _inside(at, corners):
                visitor.visits[name] = since
                found.append(_visit(EventType.ZONE_ENTERED, track, name, since, None))
        for line, crossing in zip(self._lines, visitor.crossings, strict=True):
            if direction := line.crossed(crossing, visitor.at or at, at, margin):
                data = LineData(line.name, direction, track.face.box, track.face.confidence)
                found.append(PlaceEvent(EventType.LINE_CROSSED, track, data))
        visitor.at = at
        return found

    def leave(self, track: Track) -> list[PlaceEvent]:
        """End the visits of a track that has left, at the time at which it was last seen."""
        visitor = self._visitors.pop(track.id, None)
        visits = visitor.visits.items() if visitor else ()
        return [_visit(EventType.ZONE_LEFT, track, name, begun, track.last_seen) for name, begun in visits]


class _Line:
    """A line in pixels."""

    def __init__(self, name: str, shape: LineShape, size: tuple[int, int]) -> None:
        self.name = name
        self._directions = {1: shape.to_right, -1: shape.to_left}
        (self._x, self._y), (x, y) = _scaled(shape.points, size)
        self._length = math.hypot(x - self._x, y - self._y)
        self._dx, self._dy = (x - self._x) / self._length, (y - self._y) / self._length

    def _beside(self, point: _Point) -> float:
        """Return the distance of a point in pixels, positive on the right as seen along the line (y points down)."""
        return self._dx * (point[1] - self._y) - self._dy * (point[0] - self._x)

    def crossed(self, crossing: _Crossing, before: _Point, at: _Point, margin: float) -> str | None:
        """Take the position of a face, and return the direction if it has now crossed the line."""
        beside = self._beside(at)
        if beside:
            if crossing.near * beside < 0:
                crossing.within = self._between_ends(before, at)
            crossing.near = beside
        side = 1 if beside > 0 else -1
        if abs(beside) < margin or not beside or side == crossing.side:
            return None
        known, crossing.side = crossing.side, side
        return self._directions[side] if known and crossing.within else None

    def _between_ends(self, before: _Point, at: _Point) -> bool:
        """Return whether the path between two points on different sides passes between the line's ends."""
        start, end = self._beside(before), self._beside(at)
        part = start / (start - end)  # if a point is on the line, the path crosses it there
        x, y = (a + part * (b - a) for a, b in zip(before, at, strict=True))
        along = self._dx * (x - self._x) + self._dy * (y - self._y)
        return 0 <= along <= self._length


def _visit(kind: EventType, track: Track, zone: str, begun: Nanoseconds, end: Nanoseconds | None) -> PlaceEvent:
    duration = Milliseconds(((track.last_seen if end is None else end) - begun) // 1_000_000)
    return PlaceEvent(kind, track, ZoneData(zone, begun, end, duration, track.face.box, track.face.confidence))


def _scaled(outline: Outline, size: tuple[int, int]) -> list[_Point]:
    return [(x * size[0], y * size[1]) for x, y in outline]


def _inside(point: _Point, corners: Sequence[_Point]) -> bool:
    """Return whether a point is in a polygon: whether a ray to the right crosses an odd number of its sides.

    Of two polygons with a common side, only one has the points on it.
    """
    x, y = point
    inside = False
    for number, (ax, ay) in enumerate(corners):
        bx, by = corners[number - 1]
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            inside = not inside
    return inside


def _distance(point: _Point, corners: Sequence[_Point]) -> float:
    """Return the distance of a point from the sides of a polygon, in pixels."""
    x, y = point
    nearest = math.inf
    for number, (ax, ay) in enumerate(corners):
        bx, by = corners[number - 1]
        dx, dy = bx - ax, by - ay
        part = min(max(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0.0), 1.0)
        nearest = min(nearest, math.hypot(x - ax - part * dx, y - ay - part * dy))
    return nearest
