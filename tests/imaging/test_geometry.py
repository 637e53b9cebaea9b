"""Geometry of boxes, with numbers that can be checked by hand."""

import math

import pytest

from fer_stream.imaging.geometry import area, centre, contained, overlap, roll, size
from fer_stream.types import Box

BOX = Box(10, 20, 30, 25)


def test_centre_area_and_size() -> None:
    assert centre(BOX) == (20, 22.5)
    assert area(BOX) == 100
    assert size(BOX) == 10


@pytest.mark.parametrize(
    ("other", "iou", "share"),
    [
        (BOX, 1, 1),
        (Box(20, 20, 40, 25), 1 / 3, 0.5),
        (Box(10, 20, 20, 25), 0.5, 1),
        (Box(30, 20, 50, 25), 0, 0),  # they touch
        (Box(40, 40, 50, 50), 0, 0),  # apart in both directions: two negative sides must not give a positive area
    ],
)
def test_overlap_and_containment_of_two_boxes(other: Box, iou: float, share: float) -> None:
    assert overlap(BOX, other) == overlap(other, BOX) == pytest.approx(iou)
    assert contained(BOX, other) == contained(other, BOX) == pytest.approx(share)


@pytest.mark.parametrize("degrees", [-179.0, -90.0, -30.0, 0.0, 12.5, 45.0, 135.0, 180.0])
def test_the_roll_of_a_head_is_clockwise_in_the_picture(degrees: float) -> None:
    x, y = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))  # y is down: this turns clockwise
    assert roll(((100 - 20 * x, 80 - 20 * y), (100 + 20 * x, 80 + 20 * y), (100, 90))) == pytest.approx(degrees)


def test_a_head_without_eyes_counts_as_upright() -> None:
    assert roll(()) == roll(((5.0, 5.0),)) == roll(((5.0, 5.0), (5.0, 5.0))) == 0.0
