"""Augmentation changes faces within the recipe's limits, and nothing else."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from training.augment import augment, blend, patch, spoil, views
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


def test_a_shift_is_within_the_recipes_limit():
    dot = torch.zeros(400, 1, 48, 48)
    dot[:, 0, 23:25, 23:25] = 200
    moved = np.array([centre_of(face) - 23.5 for face in changed(dot, shift=0.1)[:, 0].numpy()])
    assert 4.0 < np.abs(moved).max() <= 4.8 + 0.3
    np.testing.assert_allclose(moved.mean(axis=0), 0, atol=0.5)


def test_a_rotation_is_within_the_recipes_limit():
    dot = torch.zeros(400, 1, 48, 48)
    dot[:, 0, 3:5, 23:25] = 200  # 20 pixels above the centre
    moved = np.array([centre_of(face) - 23.5 for face in changed(dot, rotation=30)[:, 0].numpy()])
    np.testing.assert_allclose(np.hypot(*moved.T), 20, atol=0.5)
    angles = np.degrees(np.arctan2(moved[:, 1], -moved[:, 0]))
    assert 27 < np.abs(angles).max() < 31


def test_a_share_of_the_faces_is_partly_covered_by_one_grey():
    faces = torch.full((1000, 1, 48, 48), 300.0)  # above 255, so that covered pixels can be distinguished
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


def test_noise_differs_for_each_face_and_is_within_the_recipes_limit():
    grey = torch.full((500, 1, 48, 48), 128.0)
    amount = changed(grey, noise=20).std(dim=(1, 2, 3))
    assert float(amount.min()) < 1
    assert 18 < float(amount.max()) < 21.5
    assert float(amount.median()) == pytest.approx(5, abs=1.5)


def test_mixup_blends_faces_and_targets_alike(faces):
    own = patch(torch.tensor([0.7, 0, 0, 0, 0]), 48)
    mixed, shares = blend(faces, own), blend(torch.eye(64), own.mean())
    np.testing.assert_allclose(shares.sum(dim=1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed.flatten(1), shares @ faces.flatten(1), atol=1e-3)
    assert float(shares[5, 5]) == pytest.approx(0.7)
    assert float(shares[5, 4]) == pytest.approx(0.3)


def test_cutmix_gives_each_face_a_rectangle_of_another_and_its_share_of_that_target(faces):
    own = patch(torch.tensor([1.0, 0.25, 0.5, 0.75, 1.0]), 48)  # x from 1/4 to 3/4, the lower half
    mixed = blend(faces, own)
    assert torch.equal(mixed[1, 0, 24:, 12:36], faces[0, 0, 24:, 12:36])
    assert torch.equal(mixed[1, 0, :24], faces[1, 0, :24])
    assert torch.equal(mixed[1, 0, :, :12], faces[1, 0, :, :12])
    assert float(own.mean()) == 0.75


def test_without_a_mix_a_batch_stays_as_it_is(faces):
    assert torch.equal(blend(faces, patch(torch.tensor([1.0, 0, 0, 0, 0]), 48)), faces)


def test_a_face_s_views_depend_on_its_row_alone():
    how = Augmentation()
    all_views = views(torch.arange(50), 3, how, 7)
    some = views(torch.tensor([3, 40]), 3, how, 7)
    for every, few in ((all_views.matrix, some.matrix), (all_views.contrast, some.contrast)):
        np.testing.assert_array_equal(every[:, [3, 40]], few)
    assert all_views.matrix.shape == (3, 50, 2, 3)
    assert not torch.equal(all_views.matrix[0], all_views.matrix[1])
    assert not torch.equal(some.matrix, views(torch.tensor([3, 40]), 3, how, 8).matrix)


def before(faces, size, how, random):
    """Coarsen faces as the module did before it supported GPUs: with one size for the whole batch."""
    small = round(size * (0.35 + 0.55 * float(torch.rand((), generator=random))))
    shrunk = functional.interpolate(faces, size=(small, small), mode="bilinear", antialias=True)
    blurred = functional.interpolate(shrunk, size=(size, size), mode="bilinear")
    chosen = torch.rand(len(faces), 1, 1, 1, generator=random) < how.coarse
    return torch.where(chosen, blurred, faces)


def test_coarse_faces_are_those_that_shrinking_and_enlarging_makes():
    """Coarsening each face with its own matrix gives the same distribution of contrast as resizing whole batches."""
    random = torch.Generator().manual_seed(0)
    stripes = (torch.arange(48) // 2 % 2 * 200.0 + 20).expand(20, 1, 48, 48)
    how = Augmentation(**NOTHING | {"coarse": 1.0})
    old = torch.cat([before(stripes, 48, how, random) for _ in range(200)]).std(dim=(1, 2, 3))
    new = torch.cat([spoil(stripes, how, random) for _ in range(200)]).std(dim=(1, 2, 3))
    levels = torch.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(old.quantile(levels), new.quantile(levels), atol=4)
