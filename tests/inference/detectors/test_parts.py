"""Quick resizing: close to the averages over windows that the nets were trained with, wherever the part lies."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fer_stream.imaging.geometry import area, centre, roll
from fer_stream.imaging.yuv import Colour, Yuv
from fer_stream.inference.detectors.parts import Parts
from fer_stream.inference.detectors.windows import Windows
from fer_stream.types import Box, Face, Region

LEVEL = 1 / 128
"""A grey level in the nets' input."""


def smooth(height: int, width: int) -> np.ndarray:
    """Return a picture whose neighbouring pixels differ little, so that a shift by a pixel shows and noise does not."""
    coarse = np.random.default_rng(2).integers(40, 216, (height // 40 + 2, width // 40 + 2, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def planar(image: np.ndarray) -> Yuv:
    return Yuv.from_i420(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), Colour.LIMITED_BT601)


IMAGE = smooth(480, 640)
EDGES = np.array([[0, 0, 24, 24], [101, 53, 149, 101], [37, 11, 137, 131], [200, 100, 600, 480], [616, 456, 640, 480]])


@pytest.mark.parametrize("image", [IMAGE, planar(IMAGE)], ids=["bgr", "planar"])
@pytest.mark.parametrize("size", [24, 48])
def test_crops_are_close_to_averages_over_windows(image, size):
    assert np.abs(Parts(image).crops(EDGES, size) - Windows(IMAGE).crops(EDGES, size)).mean() < 2.5 * LEVEL


@pytest.mark.parametrize("image", [IMAGE, planar(IMAGE)], ids=["bgr", "planar"])
def test_levels_are_close_to_averages_over_windows(image):
    scales = [0.6, 0.3, 0.15, 0.05]
    for quick, exact in zip(Parts(image).levels(scales), Windows(IMAGE).levels(scales), strict=True):
        assert quick.shape == exact.shape
        assert np.abs(quick - exact).mean() < 2.5 * LEVEL


@pytest.mark.parametrize("region", [Region(0, 0, 640, 480), Region(64, 32, 320, 300), Region(-20, -9, 101, 77)])
@pytest.mark.parametrize("image", [IMAGE, planar(IMAGE)], ids=["bgr", "planar"])
def test_a_region_is_the_part_of_the_picture_inside_it(image, region):
    part = Parts(image, region)
    left, top = max(region.x1, 0), max(region.y1, 0)
    inside = IMAGE[top : region.y2, left : region.x2]
    assert (part.x, part.y, part.height, part.width) == (left, top, *inside.shape[:2])
    edges = np.array([[0, 0, 40, 40], [13, 5, 61, 53]])
    assert np.array_equal(part.crops(edges, 24), Parts(image).crops(edges + np.array([left, top] * 2), 24))
    (quick,), (exact,) = part.levels([0.4]), Windows(inside).levels([0.4])
    assert np.abs(quick - exact).mean() < 3 * LEVEL


@pytest.mark.parametrize("colour", [Colour(value) for value in range(4)])
def test_planar_colours_are_converted_as_the_stream_states(colour):
    plain = Yuv.from_i420(np.full((72, 48), 90, np.uint8), colour)
    (crop,) = Parts(plain).crops(np.array([[0, 0, 48, 48]]), 24)
    wanted = (plain.decode()[0, 0].astype(float) - 127.5) / 128
    assert np.allclose(crop, wanted[:, None, None], atol=1.5 * LEVEL)


@pytest.mark.parametrize("image", [IMAGE, planar(IMAGE)], ids=["bgr", "planar"])
def test_the_border_is_repeated_outside_the_picture(image):
    edges = np.array([[-400, -400, -300, -300], [900, 500, 1000, 600], [-50_000, -50_000, 50_000, 50_000]])
    left, right, around = Parts(image).crops(edges, 24)
    assert np.allclose(left, left[:, :1, :1], atol=LEVEL)
    assert np.allclose(right, right[:, :1, :1], atol=LEVEL)
    assert np.isfinite(around).all()
    assert np.allclose(left[:, 0, 0], (IMAGE[0, 0].astype(float) - 127.5) / 128, atol=6 * LEVEL)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (3, 2), (2, 2), (2, 700)])
def test_pictures_of_a_few_pixels(shape):
    image = np.full((*shape, 3), 127, np.uint8)
    edges = np.array([[0, 0, shape[1], shape[0]], [-5, -5, 5, 5]])
    assert np.allclose(Parts(image).crops(edges, 24), -0.5 / 128, atol=LEVEL)
    assert [level.shape[2:] for level in Parts(image).levels([0.5])] == [(shape[0] // 2 + 1, shape[1] // 2 + 1)]


def test_no_edges_give_no_crops():
    assert Parts(IMAGE).crops(np.empty((0, 4), np.intp), 24).shape == (0, 3, 24, 24)


# Turned parts


@pytest.mark.parametrize("image", [IMAGE, planar(IMAGE)], ids=["bgr", "planar"])
@pytest.mark.parametrize("angle", [-150.0, -45.0, 20.0, 90.0, 180.0])
def test_a_turned_part_shows_the_picture_turned(image, angle):
    region = Region(120, 60, 520, 420)
    part = Parts(image, region, angle)
    middle = part.from_picture(Box(310, 230, 330, 250))
    turn = cv2.getRotationMatrix2D((319.5, 239.5), angle, 1)
    upright = cv2.warpAffine(IMAGE, turn, (640, 480))
    x, y = round((middle.x1 + middle.x2) / 2), round((middle.y1 + middle.y2) / 2)
    crops = part.crops(np.array([[x - 48, y - 48, x + 48, y + 48]]), 48)
    wanted = Windows(upright).crops(np.array([[320 - 48, 240 - 48, 320 + 48, 240 + 48]]), 48)
    assert np.abs(crops - wanted).mean() < 4 * LEVEL
    (level,) = part.levels([0.5])
    assert level.shape[2:] == (int(part.height * 0.5 + 1), int(part.width * 0.5 + 1))
    half = part.crops(np.array([[0, 0, part.width, part.height]]), 24)
    shrunk = cv2.resize(level[0].transpose(1, 2, 0), (24, 24), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
    assert np.abs(half[0] - shrunk).mean() < 16 * LEVEL


@pytest.mark.parametrize("angle", [0.0, 30.0, -77.0, 180.0])
def test_boxes_and_faces_are_led_back_to_the_picture(angle):
    part = Parts(IMAGE, Region(100, 50, 400, 350), angle)
    there = Box(200, 150, 260, 230)
    inside = part.from_picture(there)
    face = part.to_picture(Face(inside, 0.9, ((inside.x1, inside.y1), (inside.x2, inside.y1))))
    assert centre(face.box) == pytest.approx(centre(there))
    assert area(face.box) == pytest.approx(area(inside)) == pytest.approx(area(there))
    assert roll(face.landmarks) == pytest.approx(angle)
    if angle in (0.0, 180.0):
        assert face.box == pytest.approx(there)


@pytest.mark.parametrize("angle", [-40.0, 90.0])
def test_turned_pictures_of_a_few_pixels(angle):
    part = Parts(np.full((2, 3, 3), 127, np.uint8), angle=angle)
    assert np.allclose(part.crops(np.array([[0, 0, 2, 2], [-5, -5, 5, 5]]), 24), -0.5 / 128, atol=LEVEL)
    assert all(np.allclose(level, -0.5 / 128, atol=LEVEL) for level in part.levels([1.0, 0.5]))
