"""Blending a trained net with the one it began with, and favouring rare labels."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from fer_stream.inference import models
from training import data, export, manifest, publish, results
from training.bodies import build
from training.recipe import Architecture, Recipe
from training.results import NetResult

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


def test_a_published_net_is_rebalanced(faces, tmp_path):
    """Nine of ten training faces are neutral, one is happy; the logits then differ by the logarithm of nine."""
    labels = np.where(np.arange(100) % 10, 0, 1)
    votes = np.eye(10, dtype=np.uint8)[labels] * 10
    usage = np.where(np.arange(100) < 50, data.TRAINING, data.PUBLIC)
    some = data.Faces(faces[:100], labels, usage, np.arange(100), votes)
    weights = results.weights_of(net_of(0, faces).state_dict())
    differences = []
    for share in (0.0, 1.0):
        folder = tmp_path / f"{share}"
        folder.mkdir()
        net = NetResult("net", Recipe(net=SHAPE), 1, 1, [], weights=weights, publish="tiny", rebalance=share)
        (path,) = publish.write([net], some, folder, manifest.MODELS / "crop.json")
        temperature = float(models.load(path).metadata["temperature"])
        logits = temperature * np.log(export.run(path, faces[:20, None].astype(np.float32)))
        differences.append(logits[:, 1] - logits[:, 0])
    np.testing.assert_allclose(differences[1] - differences[0], np.log(9), atol=0.05)
