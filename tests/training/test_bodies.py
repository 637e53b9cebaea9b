"""Every body accepts faces of any side, and gives logits for both heads."""

from pathlib import Path

import pytest
import torch

from training.bodies import Plain, Separable, Wide, build
from training.model import Residual, multiply_adds
from training.recipe import Architecture, load

KINDS = {"wide": Wide, "plain": Plain, "separable": Separable, "residual": Residual}
RECIPES = Path(__file__).parents[2] / "training/recipes"
SMALL = {"widths": [8, 8, 16], "depth": 1}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [32, 48, 96])
def test_a_body_answers_with_both_heads(kind, side):
    net = build(Architecture(body=kind, side=side, **SMALL)).eval()
    assert isinstance(net, KINDS[kind])
    assert net.side == side
    emotion, plus = net(torch.rand(3, 1, side, side) * 255)
    assert (emotion.shape, plus.shape) == ((3, 7), (3, 8))
    assert not torch.equal(emotion[0], emotion[1])


@pytest.mark.parametrize("kind", ["wide", "plain", "separable"])
def test_depth_is_blocks_a_stage(kind):
    one, two = (build(Architecture(body=kind, widths=[8, 8, 16], depth=depth)) for depth in (1, 2))
    layers = [sum(isinstance(layer, torch.nn.Conv2d) for layer in net.modules()) for net in (one, two)]
    assert layers[1] - layers[0] == {"wide": 4, "plain": 2, "separable": 6}[kind]


def test_a_large_face_is_halved_by_the_stem():
    small, large = (multiply_adds(build(Architecture(body="wide", side=side, **SMALL)), side) for side in (48, 96))
    assert large < 1.2 * small


@pytest.mark.parametrize(("name", "most"), [("student", 130e6), ("tiny", 25e6)])
def test_published_nets_keep_their_compute_limits(name, most):
    assert 0.5 * most < multiply_adds(build(load(RECIPES / f"{name}.toml").net)) <= most
