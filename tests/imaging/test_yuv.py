"""Planar pictures: conversions agree with FFmpeg's and OpenCV's, parts and views are exact, masks cover all planes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from fer_stream.imaging.privacy import mask
from fer_stream.imaging.yuv import Colour, Yuv, bgr, grey, planar_or_bgr

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLOURS = [Colour(value) for value in range(4)]


def smooth(height: int = 48, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Return a picture without strong colours, which a conversion would clip."""
    few = np.random.default_rng(seed).integers(60, 196, (height // 8, width // 8, 1))
    few = np.clip(few + np.random.default_rng(seed + 1).integers(-25, 25, (*few.shape[:2], 3)), 0, 255)
    return cv2.resize(few.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def planar(image: NDArray[np.uint8], colour: Colour = Colour.LIMITED_BT601) -> Yuv:
    """Return a picture as FFmpeg converts it."""
    frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709 if colour & Colour.BT709 else Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG if colour & Colour.FULL else ColorRange.MPEG,
    )
    return Yuv.from_i420(frame.to_ndarray(), colour)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_converted_picture_is_the_original(colour: Colour) -> None:
    image = smooth()
    there = planar(image, colour)
    assert there.shape == image.shape
    assert there.decode().flags.c_contiguous
    assert np.abs(there.decode().astype(int) - image).mean() < 3
    assert there.decode() is there.decode()


@pytest.mark.parametrize("colour", COLOURS)
def test_grey_is_that_of_the_pixels_within_a_level(colour: Colour) -> None:
    """Grey pictures: with colours, BT.709's luma is not BT.601's grey."""
    image = np.repeat(cv2.cvtColor(smooth(), cv2.COLOR_BGR2GRAY)[:, :, None], 3, axis=2)
    there = planar(image, colour)
    expected = cv2.cvtColor(there.decode(), cv2.COLOR_BGR2GRAY)
    assert np.abs(grey(there, 0, 0, 64, 48).astype(int) - expected).max() <= 1


def test_luma_of_limited_range_is_expanded() -> None:
    flat = Yuv.from_i420(np.full((6, 4), 128, np.uint8))
    for value, expected in ((16, 0), (235, 255), (0, 0), (255, 255), (126, 128)):
        flat.y[:] = value
        assert grey(flat, 0, 0, 4, 4).max() == expected
    assert grey(Yuv(flat.y, flat.u, flat.v, Colour.FULL), 0, 0, 4, 4).max() == 126


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("corners", [(0, 0, 64, 48), (3, 5, 40, 41), (10, 4, 11, 5), (63, 47, 64, 48)])
def test_a_part_has_the_pixels_of_the_whole(colour: Colour, corners: tuple[int, int, int, int]) -> None:
    there, (x1, y1, x2, y2) = planar(smooth(), colour), corners
    np.testing.assert_array_equal(bgr(there, *corners), there.decode()[y1:y2, x1:x2])
    np.testing.assert_array_equal(bgr(there.decode(), *corners), there.decode()[y1:y2, x1:x2])
    np.testing.assert_array_equal(grey(there, *corners), grey(there, 0, 0, 64, 48)[y1:y2, x1:x2])


def test_pixels_are_skipped_only_if_there_are_enough() -> None:
    there = planar(smooth())
    np.testing.assert_array_equal(grey(there, 0, 0, 64, 48, 12), grey(there, 0, 0, 64, 48)[::4, ::5])
    np.testing.assert_array_equal(grey(there, 0, 0, 64, 48, 32), grey(there, 0, 0, 64, 48))


def test_planes_that_are_adjacent_are_not_copied() -> None:
    data = np.random.default_rng(0).integers(0, 256, (9, 8), np.uint8)
    there = Yuv.from_i420(data)
    assert np.shares_memory(there.i420(), data)
    np.testing.assert_array_equal(there.i420(), data)
    part = there.part(2, 2, 6, 6)
    assert np.shares_memory(part.y, data)
    assert not np.shares_memory(part.i420(), data)
    np.testing.assert_array_equal(part.i420()[:4], data[2:6, 2:6])
    apart = Yuv(there.y, there.v, there.u)
    np.testing.assert_array_equal(apart.i420().reshape(-1)[48:], np.concatenate((there.v.ravel(), there.u.ravel())))


def test_a_picture_is_resized_plane_by_plane() -> None:
    image = smooth(96, 128)
    small = planar(image).resized(64, 48)
    assert small.shape == (48, 64, 3)
    expected = cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA)
    assert np.abs(small.decode().astype(int) - expected).mean() < 3
    assert planar(image).resized(160, 120).shape == (120, 160, 3)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_mask_is_black_in_all_planes_and_covers_whole_samples_of_chroma(colour: Colour) -> None:
    there = planar(smooth(), colour)
    before = there.decode().copy()
    masked = mask(Yuv.from_i420(there.i420().copy(), colour), [(0.05, 0.11, 0.51, 0.5)])
    assert isinstance(masked, Yuv)
    image = masked.decode()
    assert image[5:24, 3:33].max() == 0
    np.testing.assert_array_equal(image[:, 34:], before[:, 34:])
    np.testing.assert_array_equal(image[:4], before[:4])
    np.testing.assert_array_equal(image[24:], before[24:])
    assert set(np.unique(masked.u[2:12, 1:17])) == set(np.unique(masked.v[2:12, 1:17])) == {128}


def test_a_picture_that_may_not_be_written_to_is_copied_before_it_is_masked() -> None:
    there = planar(smooth())
    data = there.i420()
    data.flags.writeable = False
    locked = Yuv.from_i420(data)
    masked = mask(locked, [(0, 0, 1, 1)])
    assert isinstance(masked, Yuv)
    assert masked.decode().max() == 0
    assert locked.decode().max() > 0
    assert mask(locked, []) is locked


def test_what_a_frame_holds_is_converted_only_if_it_is_encoded() -> None:
    there, image = planar(smooth()), smooth()
    assert planar_or_bgr(there) is there
    assert planar_or_bgr(image) is image
