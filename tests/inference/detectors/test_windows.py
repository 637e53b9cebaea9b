"""Resizing by averages over windows: patches equal the crops of the whole image."""

from __future__ import annotations

import numpy as np
import pytest

from fer_stream.imaging.yuv import Colour, Yuv
from fer_stream.inference.detectors.windows import TOGETHER, Windows, clipped, of, patches

IMAGE = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)


def test_patches_equal_the_crops_of_the_whole_image() -> None:
    edges = np.array([[0, 0, 48, 48], [10, 5, 75, 41], [100, 60, 120, 90], [10, 5, 75, 41]])
    assert np.array_equal(patches(IMAGE, edges, 24), Windows(IMAGE).crops(edges, 24))


def test_many_patches_keep_their_order() -> None:
    left = np.arange(3 * TOGETHER + 1)
    edges = np.stack((left, left, left + 40, left + 35), axis=1)
    assert np.array_equal(patches(IMAGE, edges, 24), Windows(IMAGE).crops(edges, 24))


def test_a_patch_is_black_outside_the_image() -> None:
    black, white = np.float32(-127.5 / 128), np.float32(1 - 0.5 / 128)
    bright = np.full((90, 120, 3), 255, np.uint8)
    (corner,) = patches(bright, np.array([[-24, -24, 24, 24]]), 48)
    assert np.allclose(corner[:, 24:, 24:], white)
    assert np.allclose(corner[:, :24], black)
    assert np.allclose(corner[:, :, :24], black)
    assert np.allclose(patches(bright, np.array([[200, 0, 248, 48], [-90, 0, -42, 48]]), 24), black)


def test_a_patch_far_larger_than_the_image_is_subsampled() -> None:
    (wide,) = patches(np.full((90, 120, 3), 255, np.uint8), np.array([[-50_000, -50_000, 50_000, 50_000]]), 24)
    assert wide.shape == (3, 24, 24)


def test_no_edges_give_no_patches() -> None:
    assert patches(IMAGE, np.empty((0, 4), np.intp), 24).shape == (0, 3, 24, 24)


def test_boxes_are_clipped_to_the_image_and_those_outside_are_marked() -> None:
    edges, inside = clipped(np.array([[-5.5, 2.9, 300, 300], [130, 0, 150, 20]], np.float32), 90, 120)
    assert edges[0].tolist() == [0, 1, 120, 90]
    assert inside.tolist() == [True, False]


@pytest.mark.parametrize("colour", [Colour(value) for value in range(4)])
@pytest.mark.parametrize("size", [(48, 64), (46, 38)])
def test_planar_pictures_give_the_windows_of_their_pixels(colour: Colour, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    height, width = size
    # Values that no conversion to BGR clips. Then the mean of converted pixels is the converted mean.
    planar = Yuv(
        rng.integers(90, 170, (height, width), np.uint8),
        *rng.integers(115, 142, (2, height // 2, width // 2), np.uint8),
        colour,
    )
    there, expected = of(planar), of(planar.decode())
    for scale in (0.9, 0.5, 0.31, 0.1):
        np.testing.assert_allclose(there.level(scale), expected.level(scale), atol=1.2 / 128)
    edges = np.array([[0, 0, width, height], [3, 5, 20, 29], [7, 1, 8, 2], [10, 8, 35, 34]])
    for side in (24, 48):
        np.testing.assert_allclose(there.crops(edges, side), expected.crops(edges, side), atol=1.2 / 128)
        np.testing.assert_array_equal(patches(planar, edges, side), patches(planar.decode(), edges, side))
