"""The nets of training/mtcnn.py, compared with facenet-pytorch's nets and with the exported files."""

import importlib

import numpy as np
import pytest
import torch

from fer_stream.inference import models
from training import manifest, mtcnn

OURS_IN_THEIRS = {"pnet": (1, 0), "rnet": (1, 0), "onet": (2, 0, 1)}
"""The index of each of our outputs among facenet-pytorch's, which are offsets, (landmarks,) scores."""


@pytest.fixture
def theirs():
    module = importlib.import_module("facenet_pytorch")
    return {"pnet": module.PNet(), "rnet": module.RNet(), "onet": module.ONet()}


@pytest.mark.parametrize("name", mtcnn.NETS)
def test_the_nets_are_facenet_pytorchs(name, theirs):
    net = mtcnn.load(name)
    rgb = torch.rand(4, 3, net.size, net.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = theirs[name].eval()(rgb)
        got = net(rgb.flip(1))
    for ours, position in zip(got, OURS_IN_THEIRS[name], strict=True):
        reference = expected[position]
        reference = reference[:, 1] if position == OURS_IN_THEIRS[name][0] else reference
        np.testing.assert_allclose(ours.numpy(), reference.numpy(), atol=2e-6)


@pytest.mark.parametrize("name", mtcnn.NETS)
def test_an_export_equals_the_shipped_file(name, tmp_path):
    assert mtcnn.export(name, tmp_path) <= mtcnn.TOLERANCE
    fresh = models.load(tmp_path / f"mtcnn-{name}.onnx")
    shipped = models.shipped(f"mtcnn-{name}.onnx")
    assert fresh.metadata["license"] == "MIT"

    size = mtcnn.NETS[name].size
    pixels = np.random.default_rng(1).uniform(-1, 1, (3, 3, size, size)).astype(np.float32)
    outputs = mtcnn.NETS[name].outputs
    for ours, reference in zip(*(model.run(outputs, {"pixels": pixels}) for model in (fresh, shipped)), strict=True):
        np.testing.assert_array_equal(ours, reference)


def test_an_export_that_differs_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(mtcnn, "TOLERANCE", 0.0)
    with pytest.raises(RuntimeError, match=r"mtcnn-rnet\.onnx differs from torch by .* more than 0e\+00"):
        mtcnn.export("rnet", tmp_path)


def test_pnet_takes_any_picture_and_the_others_any_number():
    net = models.shipped("mtcnn-pnet.onnx")
    for height, width in ((12, 12), (13, 40), (101, 77)):
        scores, offsets = net.run(("scores", "offsets"), {"pixels": np.zeros((1, 3, height, width), np.float32)})
        assert offsets.shape == (1, 4, *scores.shape[1:])
    for name, outputs in (("rnet", [(), (4,)]), ("onet", [(), (4,), (10,)])):
        for number in (0, 1, 7):
            size = mtcnn.NETS[name].size
            pixels = np.zeros((number, 3, size, size), np.float32)
            got = models.shipped(f"mtcnn-{name}.onnx").run(mtcnn.NETS[name].outputs, {"pixels": pixels})
            assert [array.shape for array in got] == [(number, *shape) for shape in outputs]


def test_the_manifest_has_the_format_of_sha256sum(tmp_path):
    (tmp_path / "b.onnx").write_bytes(b"")
    (tmp_path / "a.onnx").write_bytes(b"abc")
    (tmp_path / "notes.md").write_text("not a model")
    digests = manifest.write(tmp_path)
    assert (tmp_path / "SHA256SUMS").read_text() == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a.onnx\n"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  b.onnx\n"
    )
    assert list(digests) == ["a.onnx", "b.onnx"]
