"""Converting published files back to nets, and the errors for other files."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from fer_stream.errors import ConfigError
from fer_stream.inference import models
from training import export, published, recipe, setup, train
from training.model import HEADS, Residual
from training.quantize import quantize

SHAPE = recipe.Architecture(widths=[8, 16, 16])


@pytest.fixture(scope="module")
def faces():
    return np.random.default_rng(0).integers(0, 256, (64, 48, 48), np.uint8)


@pytest.fixture(scope="module")
def net(faces):
    """A net whose normalisations differ from their initial values."""
    return trained(faces)


def trained(faces):
    torch.manual_seed(0)
    made = Residual(SHAPE)
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.weight, 1, 0.3)
            torch.nn.init.normal_(layer.bias, 0, 0.3)
    for _ in range(20):
        made(torch.from_numpy(faces)[:, None].float())
    return made.eval()


def file(net, head, path):
    export.export(net, head, 1.5, path)
    return path


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    """The exported net: one file for each head. Exporting takes seconds."""
    folder = tmp_path_factory.mktemp("published")
    return {head: file(net, head, folder / f"net-{head}.onnx") for head in HEADS}


def adopted(paths, faces, shape=SHAPE):
    torch.manual_seed(1)
    made = Residual(shape)
    published.adopt(made, list(paths), torch.from_numpy(faces)[:, None])
    return made.eval()


@torch.no_grad()
def test_outputs_are_the_same_and_training_continues(net, files, faces):
    again = adopted(files.values(), faces)
    seen = torch.from_numpy(faces)[:, None].float()
    for found, expected in zip(again(seen), net(seen), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    for found, expected in zip(again.train().describe(seen), again.eval().describe(seen), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2, msg="a batch is normalised as all were")


@torch.no_grad()
def test_a_head_without_a_file_is_not_changed(net, files, faces):
    again = adopted([files["ferplus"]], faces)
    torch.testing.assert_close(again.plus.weight, net.plus.weight)
    torch.manual_seed(1)
    torch.testing.assert_close(again.emotion.weight, Residual(SHAPE).emotion.weight)


@torch.no_grad()
def test_the_shipped_files_can_be_converted(faces):
    paths = [models.folder() / "emotion.onnx", models.folder() / "emotion-ferplus.onnx"]
    again = adopted(paths, faces, recipe.load(Path("training/recipes/own.toml")).net)
    seen = torch.from_numpy(faces)[:, None].float()
    for path, logits in zip(paths, again(seen), strict=True):
        temperature = float(models.load(path).metadata["temperature"])
        probabilities = torch.softmax(logits / temperature, dim=1).numpy()
        assert np.abs(probabilities - export.run(path, seen.numpy())).mean() < 0.02, "close: the file is quantized"


def test_a_run_begins_with_published_files(net, files, faces):
    how = recipe.Recipe(batch=16, sizes={32: 0.0}, net=SHAPE)
    samples = train.Samples(
        torch.from_numpy(faces)[:, None], torch.arange(64) % 7, torch.full((1, 64, 7), 1 / 7),
        torch.zeros(1, 64, 8), torch.zeros(64),
    )  # fmt: skip
    trainer = train.Trainer(how, samples)
    trainer.begin(setup.first_net(how, samples.faces, list(files.values())))
    for made in (trainer.net, trainer.average):
        torch.testing.assert_close(made.emotion.weight, net.emotion.weight)
        torch.testing.assert_close(made.blocks[0].squeeze.weight, net.blocks[0].squeeze.weight)
    body = recipe.Architecture(body="pretrained")
    with pytest.raises(ConfigError, match="not a run's folder"):
        setup.first_net(replace(how, net=body), samples.faces, [files["ferplus"]])


def test_other_files_are_refused(files, faces, tmp_path):
    good = files["fer2013"]
    torch.manual_seed(2)
    other = file(Residual(SHAPE).eval(), "ferplus", tmp_path / "other.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    stripped, renamed = onnx.load(good), onnx.load(good)
    for node in stripped.graph.node:
        node.name = ""
    for name in renamed.graph.initializer:
        name.name = name.name.replace("net.", "other.")
    onnx.save(stripped, tmp_path / "stripped.onnx")
    onnx.save(renamed, tmp_path / "renamed.onnx")
    whole = tmp_path / "whole.onnx"
    whole.write_bytes(good.read_bytes())
    quantize(whole, faces)
    quantized = onnx.load(whole)
    for node in quantized.graph.node:
        if node.op_type == "DequantizeLinear":
            del node.input[2:]
    onnx.save(quantized, tmp_path / "zeroless.onnx")
    sentences = {
        (tmp_path / "nowhere.onnx",): "nowhere.onnx cannot be read: No such file",
        (broken,): "broken.onnx is not an ONNX file",
        (tmp_path / "stripped.onnx",): "has other layers than the recipe's net",
        (tmp_path / "renamed.onnx",): "has other layers than the recipe's net",
        (tmp_path / "zeroless.onnx",): "has other layers than the recipe's net",
        (good, other): "are not heads of the same net",
    }
    for paths, sentence in sentences.items():
        with pytest.raises(ConfigError, match=sentence):
            adopted(paths, faces)
    for widths, sentence in (
        ([8, 16, 24], "has another shape"),
        ([8, 16, 16, 16], "has other layers"),
        ([8, 16], "has more layers"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            adopted([good], faces, recipe.Architecture(widths=widths))


@torch.no_grad()
def test_equal_tensors_that_torch_writes_once_are_read_everywhere(faces, tmp_path):
    net = trained(faces)
    for block in net.blocks:
        block.squeeze.bias.fill_(0.5)
        block.excite.bias.fill_(-0.5)
        for norm in (block.norm1, block.norm2):
            for values in (norm.weight, norm.running_var):
                values.fill_(1)
            for values in (norm.bias, norm.running_mean):
                values.fill_(0)
    path = file(net, "fer2013", tmp_path / "net.onnx")
    assert any(node.op_type == "Identity" for node in onnx.load(path).graph.node)
    again, seen = adopted([path], faces), torch.from_numpy(faces)[:, None].float()
    torch.testing.assert_close(again(seen)[0], net(seen)[0], atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_a_quantized_file_is_read(files, faces, tmp_path):
    path = shutil.copy(files["fer2013"], tmp_path / "net.onnx")
    before = adopted([path], faces)
    quantize(path, faces)
    after = adopted([path], faces)
    for name, kernel in before.state_dict().items():
        if name.endswith(("conv1.weight", "conv2.weight")):
            step = kernel.abs().amax(dim=(1, 2, 3), keepdim=True) / 63
            assert ((after.state_dict()[name] - kernel).abs() <= 0.51 * step).all(), name
