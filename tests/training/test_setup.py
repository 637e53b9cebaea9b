"""Selecting a device by name, and the initial net of a training."""

import pytest
import torch

from fer_stream.errors import ConfigError
from training import setup
from training.recipe import Architecture, Recipe

FACES = torch.zeros(4, 1, 48, 48, dtype=torch.uint8)


def test_a_missing_device_is_reported():
    assert setup.device_named("cpu") == torch.device("cpu")
    if torch.cuda.is_available():
        assert setup.device_named("auto") == setup.device_named("cuda") == torch.device("cuda")
    else:
        assert setup.device_named("auto") == torch.device("cpu")
        with pytest.raises(ConfigError, match=r"has no GPU that torch can use.* use --device cpu"):
            setup.device_named("cuda")


def test_without_a_start_a_net_is_random():
    assert setup.first_net(Recipe(net=Architecture(widths=[8, 8])), FACES) is None


def test_only_some_bodies_begin_with_published_files(tmp_path):
    how = Recipe(net=Architecture(body="wide", widths=[8, 8]))
    with pytest.raises(ConfigError, match="is not a run's folder; this kind of body can only begin with one"):
        setup.first_net(how, FACES, [tmp_path / "net.onnx"])
