"""Changed regions of a picture are found, and no others."""

from __future__ import annotations

import numpy as np

from fer_stream.imaging import motion
from fer_stream.types import THUMBNAIL, Box

HEIGHT, WIDTH = 720, 1280
NOISE = np.random.default_rng(0)


def picture(level: int = 100) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.clip(image + NOISE.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def test_a_thumbnail_is_the_picture_reduced() -> None:
    image = picture()
    image[:, WIDTH // 2 :] = 200
    small = motion.thumbnail(image)
    assert (small.shape, small.dtype) == (THUMBNAIL, np.uint8)
    assert (small[:, :32] == 100).all()
    assert (small[:, 32:] == 200).all()


def test_a_picture_smaller_than_a_thumbnail_has_one() -> None:
    assert (motion.thumbnail(np.full((5, 7, 3), 9, np.uint8)) == 9).all()


def test_sensor_noise_is_not_a_change() -> None:
    before, now = (motion.thumbnail(noisy(picture(), 3)) for _ in range(2))
    assert not motion.changed(now, before).any()


def test_the_regions_contain_the_changes() -> None:
    before = motion.thumbnail(picture())
    image = picture()
    image[200:260, 300:340] = 180  # y, x
    image[600:700, 1200:1280] = 20
    cells = motion.changed(motion.thumbnail(image), before)
    first, second = sorted(motion.regions(cells, HEIGHT, WIDTH))
    assert first.x1 <= 300
    assert first.y1 <= 200
    assert first.x2 >= 340
    assert first.y2 >= 260
    assert (second.x2, second.y2) == (WIDTH, HEIGHT)
    searched = sum((r.x2 - r.x1) * (r.y2 - r.y1) for r in (first, second))
    assert searched < 0.1 * HEIGHT * WIDTH


def test_changes_in_known_boxes_give_no_region() -> None:
    before = motion.thumbnail(picture())
    image = picture()
    image[200:260, 300:340] = 180
    cells = motion.changed(motion.thumbnail(image), before)
    motion.cover(cells, [Box(250, 150, 400, 310)], HEIGHT, WIDTH)
    assert motion.regions(cells, HEIGHT, WIDTH) == []
    motion.cover(cells, [Box(-900, -900, -10, 5e4)], HEIGHT, WIDTH)  # outside the picture: no error


def test_a_picture_that_changed_everywhere_is_one_region() -> None:
    cells = motion.changed(motion.thumbnail(picture(90)), motion.thumbnail(picture(140)))
    assert motion.regions(cells, HEIGHT, WIDTH) == [(0, 0, WIDTH, HEIGHT)]
