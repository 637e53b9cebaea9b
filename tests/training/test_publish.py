"""Blending a trained net with the one it began with."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from training import publish
from training.bodies import build
from training.recipe import Architecture

SHAPE = Architecture(widths=[8, 16, 16])


@pytest.fixture(scope="module")
def faces():
    return np.random.default_rng(0).integers(0, 256, (300, 48, 48), np.uint8)


def net_of(seed, faces):
    """A net whose normalisations have measured the faces."""
    torch.manual_seed(seed)
    made = build(SHAPE)
    return publish.blend(made, made, 0.0, faces)


@torch.no_grad()
def test_a_blend_is_between_both_nets(faces):
    seen = torch.from_numpy(faces[:50])[:, None].float()
    start = net_of(0, faces)
    trained = deepcopy(start)
    for weights in trained.parameters():
        weights.add_(0.02 * torch.randn_like(weights))
    trained = publish.blend(trained, trained, 0.0, faces)
    before, after = start(seen)[0], trained(seen)[0]
    torch.testing.assert_close(publish.blend(trained, start, 0.0, faces)(seen)[0], after)
    torch.testing.assert_close(publish.blend(trained, start, 1.0, faces)(seen)[0], before)
    between = publish.blend(trained, start, 0.5, faces)(seen)[0]
    distance = (after - before).norm()
    assert max((between - before).norm(), (between - after).norm()) < 0.8 * distance
    assert not between.requires_grad
    assert torch.equal(trained(seen)[0], after), "the net given is not changed"


@torch.no_grad()
def test_a_blends_normalisations_are_measured_again(faces):
    """Between two nets that differ, the mean of both nets' statistics would be wrong."""
    start, trained = net_of(0, faces), net_of(1, faces)
    mixed = publish.blend(trained, start, 0.5, faces)
    seen = torch.from_numpy(faces)[:, None].float()
    kept = mixed.describe(seen)
    fresh = mixed.train().describe(seen)  # normalised by this batch, which has the faces of the measurement
    torch.testing.assert_close(kept, fresh, atol=0.05, rtol=0.05)
