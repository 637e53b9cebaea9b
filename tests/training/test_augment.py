"""What augmentation changes, and what it must leave as it is."""

import numpy as np
import pytest
import torch

from training.augment import augment, mixup
from training.recipe import Augmentation

NOTHING = dict.fromkeys(
    ("rotation", "scale", "stretch", "shift", "contrast", "brightness", "erase", "coarse", "noise"), 0
)


def changed(faces, size=48, seed=0, **how):
    random = torch.Generator().manual_seed(seed)
    return augment(faces, size, Augmentation(**(NOTHING | how)), random)


@pytest.fixture
def faces():
    return torch.rand(64, 1, 48, 48, generator=torch.Generator().manual_seed(1)) * 200 + 20


def test_with_everything_off_a_face_is_itself_or_its_mirror_image(faces):
    result = changed(faces)
    same = (result - faces).abs().amax(dim=(1, 2, 3)) < 0.01
    mirrored = (result - faces.flip(3)).abs().amax(dim=(1, 2, 3)) < 0.01
    assert bool((same ^ mirrored).all())
    assert 10 < int(mirrored.sum()) < 54


@pytest.mark.parametrize("size", [32, 40, 48])
def test_the_result_has_the_size_asked_for_and_stays_grey(faces, size):
    result = augment(faces, size, Augmentation(brightness=200), torch.Generator().manual_seed(0))
    assert result.shape == (64, 1, size, size)
    assert result.dtype == torch.float32
    assert float(result.min()) >= 0
    assert float(result.max()) <= 255


def test_the_same_seed_does_the_same_and_another_something_else(faces):
    how = {"rotation": 15, "erase": 0.5, "contrast": 0.3}
    assert torch.equal(changed(faces, seed=5, **how), changed(faces, seed=5, **how))
    assert not torch.allclose(changed(faces, seed=5, **how), changed(faces, seed=6, **how))


def centre_of(picture):
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    return np.array([(picture * rows).sum(), (picture * columns).sum()]) / picture.sum()


def test_a_shift_is_as_long_as_the_recipe_allows():
    dot = torch.zeros(400, 1, 48, 48)
    dot[:, 0, 23:25, 23:25] = 200
    moved = np.array([centre_of(face) - 23.5 for face in changed(dot, shift=0.1)[:, 0].numpy()])
    assert 4.0 < np.abs(moved).max() <= 4.8 + 0.3
    np.testing.assert_allclose(moved.mean(axis=0), 0, atol=0.5)


def test_a_rotation_turns_as_far_as_the_recipe_allows():
    dot = torch.zeros(400, 1, 48, 48)
    dot[:, 0, 3:5, 23:25] = 200  # 20 pixels above the centre
    moved = np.array([centre_of(face) - 23.5 for face in changed(dot, rotation=30)[:, 0].numpy()])
    np.testing.assert_allclose(np.hypot(*moved.T), 20, atol=0.5)
    angles = np.degrees(np.arctan2(moved[:, 1], -moved[:, 0]))
    assert 27 < np.abs(angles).max() < 31


def test_a_share_of_the_faces_is_partly_covered_by_one_grey():
    faces = torch.full((1000, 1, 48, 48), 300.0)  # more than any grey, so that what is covered shows
    covered = augment(faces, 48, Augmentation(**NOTHING | {"erase": 0.4}), torch.Generator().manual_seed(0)) < 254.9
    share = covered.float().mean(dim=(1, 2, 3))
    assert 0.34 < float((share > 0).float().mean()) < 0.46
    assert float(share.max()) < 0.2
    assert float(share[share > 0].min()) > 0.008


def test_a_share_of_the_faces_loses_its_finest_detail():
    stripes = (torch.arange(48) % 2 * 200.0 + 20).expand(500, 1, 48, 48)
    contrast = changed(stripes, coarse=0.3).std(dim=(1, 2, 3))
    assert 0.24 < float((contrast < 80).float().mean()) < 0.36
    assert float(contrast.max()) == pytest.approx(100, abs=1)


def test_noise_is_each_face_s_own_and_at_most_what_the_recipe_allows():
    grey = torch.full((500, 1, 48, 48), 128.0)
    amount = changed(grey, noise=20).std(dim=(1, 2, 3))
    assert float(amount.min()) < 1
    assert 18 < float(amount.max()) < 21.5
    assert float(amount.median()) == pytest.approx(5, abs=1.5)


def test_mixup_blends_faces_and_targets_alike(faces):
    targets = torch.eye(64)
    mixed, shares = mixup(faces, (targets,), 1.0, torch.Generator().manual_seed(2))
    np.testing.assert_allclose(shares.sum(dim=1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed.flatten(1), shares @ faces.flatten(1), atol=1e-3)
    assert 0 < float(shares[0, 0]) < 1


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_mixup_draws_from_the_beta_distribution(alpha):
    random = torch.Generator().manual_seed(3)
    zero_one = torch.tensor([0.0, 1.0])
    shares = [float(mixup(zero_one, (), alpha, random)[0].max()) for _ in range(4000)]
    # The larger of x and 1 - x, or 1 where a face met itself; the variance of Beta(a, a) is 1 / (4 (2a + 1)).
    blended = np.array([share for share in shares if share < 1])
    assert blended.var() + (blended.mean() - 0.5) ** 2 == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)
