"""Outlines in a picture, as fractions of its width and height: the checks of zones."""

from __future__ import annotations

from itertools import combinations

Point = tuple[float, float]


def polygon(points: list[Point]) -> list[Point]:
    """Return the corners of a polygon, in order; the last one is joined to the first.

    Raises:
        ValueError: there are fewer than three corners, two that follow each other are the same, or sides cross.
    """
    count = len(points)
    if count < 3:
        raise ValueError(f"a zone needs at least 3 points, and has {count}")
    for number in range(count):
        after = (number + 1) % count
        if points[number] == points[after]:
            advice = ": leave out the last one, the zone closes by itself" if after == 0 else ": leave out one of them"
            raise ValueError(f"the points {number + 1} and {after + 1} of a zone are the same{advice}")
    sides = [(points[number], points[(number + 1) % count]) for number in range(count)]
    for (one, (a, b)), (other, (c, d)) in combinations(enumerate(sides), 2):
        adjacent = other == one + 1 or (one == 0 and other == count - 1)
        if _folded(a, b, c, d) if adjacent else _meet(a, b, c, d):
            raise ValueError(
                f"the sides {one + 1} and {other + 1} of a zone cross or touch: give the points in their order around "
                "the zone"
            )
    return points


def _turn(a: Point, b: Point, c: Point) -> float:
    """Return on which side of the line from ``a`` to ``b`` the point ``c`` lies: the sign; 0: on the line."""
    turn = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    return 0.0 if abs(turn) < 1e-12 else turn  # what is left of a rounded difference


def _meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Return whether the segments from ``a`` to ``b`` and from ``c`` to ``d`` have a point in common."""
    c_side, d_side, a_side, b_side = _turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)
    if c_side * d_side < 0 and a_side * b_side < 0:
        return True
    ends = ((c_side, a, b, c), (d_side, a, b, d), (a_side, c, d, a), (b_side, c, d, b))
    return any(side == 0 and _between(one, other, point) for side, one, other, point in ends)


def _between(a: Point, b: Point, point: Point) -> bool:
    """Return whether a point of the line through ``a`` and ``b`` lies between them."""
    return all(min(p, q) <= x <= max(p, q) for p, q, x in zip(a, b, point, strict=True))


def _folded(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Return whether two sides with a common corner lie on each other."""
    middle, one, other = (b, a, d) if b == c else (a, b, c)
    dot = sum((p - m) * (q - m) for p, q, m in zip(one, other, middle, strict=True))
    return _turn(middle, one, other) == 0 and dot > 0
