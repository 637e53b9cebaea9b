"""A second look differs from the first by no more than the recipe says; JPEG's loss is JPEG's."""

import cv2
import numpy as np
import pytest
import torch

from training.augment import Pose, pose, show
from training.nudge import degraded, jpeg, nudged
from training.recipe import Augmentation, Nudge

STILL = dict.fromkeys(("rotation", "scale", "shift", "contrast", "brightness", "noise", "blur", "jpeg"), 0.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def upright(count):
    matrix = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(count, 2, 3)
    return Pose(matrix, torch.ones(count), torch.zeros(count))


@pytest.fixture
def faces():
    """Smooth patterns, as faces are."""
    random = np.random.default_rng(0)
    small = random.uniform(40, 220, (64, 8, 8)).astype(np.float32)
    large = [cv2.resize(image, (48, 48), interpolation=cv2.INTER_CUBIC).clip(0, 255) for image in small]
    return torch.from_numpy(np.stack(large))[:, None]


def test_without_changes_the_second_look_is_the_first(faces):
    first = pose(64, Augmentation(), generator())
    again = nudged(first, Nudge(**STILL), generator(1))
    torch.testing.assert_close(again.matrix, first.matrix)
    torch.testing.assert_close(show(faces, again, 48), show(faces, first, 48))
    torch.testing.assert_close(degraded(faces, Nudge(**STILL), generator(2)), faces)


def test_a_mirrored_face_stays_mirrored():
    first = pose(200, Augmentation(), generator())
    again = nudged(first, Nudge(), generator(1))
    mirrored = torch.linalg.det(first.matrix[:, :, :2]) < 0
    assert 50 < int(mirrored.sum()) < 150
    assert torch.equal(torch.linalg.det(again.matrix[:, :, :2]) < 0, mirrored)


@pytest.mark.parametrize(
    ("name", "most", "found"),
    [
        ("rotation", 3.0, lambda look: torch.rad2deg(torch.atan2(look.matrix[:, 1, 0], look.matrix[:, 0, 0]))),
        ("scale", 0.05, lambda look: torch.linalg.det(look.matrix[:, :, :2]).log() / 2),
        ("shift", 0.03, lambda look: look.matrix[:, 0, 2] / 2),  # the frame's side is 2
        ("contrast", 0.1, lambda look: look.contrast.log()),
        ("brightness", 8.0, lambda look: look.brightness),
    ],
)
def test_a_change_is_within_its_limit_and_nothing_else_changes(name, most, found):
    look = nudged(upright(500), Nudge(**(STILL | {name: most})), generator())
    changes = found(look)
    assert 0.9 * most < float(changes.abs().max()) <= most * 1.0001
    assert abs(float(changes.mean())) < 0.15 * most
    if name not in ("rotation", "scale", "shift"):
        torch.testing.assert_close(look.matrix, upright(500).matrix.contiguous())


def test_a_small_change_is_relative_to_the_face_as_it_is_shown():
    turned = pose(300, Augmentation(rotation=90, scale=0.4, shift=0.2), generator())
    look = nudged(turned, Nudge(**(STILL | {"shift": 0.03})), generator(1))
    way = torch.linalg.solve(turned.matrix[:, :, :2], look.matrix[:, :, 2:] - turned.matrix[:, :, 2:])
    assert 0.05 < float(way.abs().max()) <= 0.0601


def test_jpeg_changes_a_face_as_libjpeg_does(faces):
    grey = faces.round().clamp(0, 255)
    for quality in (30, 60, 90):
        ours = jpeg(grey, torch.full((64,), float(quality)))[:, 0]
        theirs = []
        for face in grey[:, 0].byte().numpy():
            coded = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            theirs.append(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))
        difference = (ours - torch.from_numpy(np.stack(theirs)).float()).abs()
        assert float((difference <= 1).float().mean()) > 0.95, "where a frequency is between two steps, they may differ"
        assert float((ours - grey[:, 0]).abs().mean()) > 2 * float(difference.mean())


@pytest.mark.parametrize("size", [20, 32, 45])
def test_jpeg_takes_any_size(faces, size):
    small = torch.nn.functional.interpolate(faces, size=(size, size), mode="bilinear")
    coded = jpeg(small, torch.full((64,), 95.0))
    assert coded.shape == small.shape
    assert float((coded - small).abs().mean()) < 3


def test_the_shares_of_blurred_and_coded_faces_are_the_recipes(faces):
    for name in ("blur", "jpeg"):
        result = degraded(faces.repeat(10, 1, 1, 1), Nudge(**(STILL | {name: 0.3})), generator())
        changed = (result - faces.repeat(10, 1, 1, 1)).abs().amax(dim=(1, 2, 3)) > 0.6
        assert 0.22 < float(changed.float().mean()) < 0.38
