"""Each corruption changes faces by the amount in its name, reproducibly, and keeps shape and type."""

import numpy as np
import pytest

from training.corrupt import CORRUPTIONS, MISPLACED, apply

ALL = CORRUPTIONS | MISPLACED


@pytest.fixture
def faces():
    return np.random.default_rng(0).integers(60, 200, (20, 6, 6)).repeat(8, 1).repeat(8, 2).astype(np.uint8)


@pytest.mark.parametrize("name", ALL)
def test_it_changes_every_face_and_does_so_again(faces, name):
    changed = apply(ALL[name], faces)
    assert (changed.shape, changed.dtype) == (faces.shape, np.uint8)
    assert (changed != faces).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(apply(ALL[name], faces), changed)


def test_the_amounts(faces):
    difference = {name: apply(change, faces).astype(float) - faces for name, change in ALL.items()}
    assert difference["noisy (15 grey levels)"].std() == pytest.approx(15, abs=0.5)
    np.testing.assert_allclose(apply(ALL["dark (30% of the light)"], faces), faces * 0.3, atol=1)
    covered = (apply(ALL["a quarter covered"], faces) == 128).mean(axis=(1, 2))
    assert covered == pytest.approx(np.full(20, 0.25), abs=0.06)
    stripes = np.tile(np.array([60, 200], np.uint8), (1, 48, 24))
    assert apply(ALL["enlarged from 24 pixels"], stripes).std() < 1


def test_a_moved_box_is_moved_by_a_tenth(faces):
    dot = np.zeros((50, 48, 48), np.uint8)
    dot[:, 23:25, 23:25] = 200
    rows, columns = np.mgrid[:48, :48]
    moved = apply(ALL["box moved by 10%"], dot).astype(float)
    total = moved.sum(axis=(1, 2))
    way = np.hypot((moved * rows).sum(axis=(1, 2)) / total - 23.5, (moved * columns).sum(axis=(1, 2)) / total - 23.5)
    np.testing.assert_allclose(way, 4.8, atol=0.3)
