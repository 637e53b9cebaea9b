"""Resizing by averages over windows: patches equal the crops of the whole image."""

from __future__ import annotations

import numpy as np

from fer_stream.inference.detectors.windows import TOGETHER, Windows, clipped, patches

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
