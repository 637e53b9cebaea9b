"""Geometry of boxes: centre, size and overlap, in pixels; and the roll of a head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.types import Box


def centre(box: Box) -> tuple[float, float]:
    """Return the centre of a box, ``(x, y)`` in pixels."""
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2


def area(box: Box) -> float:
    """Return the area of a box in square pixels."""
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def size(box: Box) -> float:
    """Return the size of a box in pixels, ``sqrt(width * height)``."""
    return math.sqrt(area(box))


def common(a: Box, b: Box) -> float:
    """Return the area of the intersection of two boxes in square pixels; 0 if they do not intersect."""
    width, height = min(a.x2, b.x2) - max(a.x1, b.x1), min(a.y2, b.y2) - max(a.y1, b.y1)
    return width * height if width > 0 and height > 0 else 0.0


def overlap(a: Box, b: Box) -> float:
    """Return the intersection over union (IoU) of two boxes, 0 to 1."""
    shared = common(a, b)
    return shared / (area(a) + area(b) - shared) if shared else 0.0


def contained(a: Box, b: Box) -> float:
    """Return the share of the smaller of two boxes that lies in the other, 0 to 1."""
    shared = common(a, b)
    return shared / min(area(a), area(b)) if shared else 0.0


def roll(landmarks: Sequence[tuple[float, float]]) -> float:
    """Return how far a head leans in the picture: the angle of the line through its eyes in degrees, -180 to 180.

    0 is upright, and positive is clockwise as seen in the picture. Landmarks are those of `fer_stream.types.Face`;
    without them, or if both eyes are at one point, 0 is returned.
    """
    if len(landmarks) < 2:
        return 0.0
    (left, top), (right, bottom) = landmarks[:2]
    return math.degrees(math.atan2(bottom - top, right - left))
