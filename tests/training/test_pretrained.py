"""Reading dlib's net from its file, and the errors for other files."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from fer_stream.errors import ConfigError
from fer_stream.inference import models
from training import loop, recipe, setup, train
from training.pretrained import GREY, MEAN, SCALE, Pretrained, read, weights

ASSETS = Path(models.__file__).parents[1] / "assets"

SHAPE = recipe.Architecture(body="pretrained")


@pytest.fixture(scope="module")
def portraits():
    """Two people, grey ``[2, 1, 112, 112]``, cropped about as FER2013's faces are."""
    boxes = {"eileen_collins.jpg": (55, 60, 165, 170), "grace_hopper.jpg": (50, 80, 226, 256)}
    faces = []
    for name, (x1, y1, x2, y2) in boxes.items():
        image = cv2.imread(str(ASSETS / name), cv2.IMREAD_GRAYSCALE)
        faces.append(cv2.resize(image[y1:y2, x1:x2], (112, 112), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(faces))[:, None].float()


@pytest.fixture(scope="module")
def net(portraits):
    made = Pretrained(SHAPE)
    made.adopt(weights(), portraits)
    return made.eval()


def test_the_first_layers_are_dlibs(net, portraits):
    """Compares with dlib's layers, computed here in colour and without batch normalisation."""
    layers = read(weights())
    (_, numbers), (_, affine) = next(layers), next(layers)
    filters, offsets = torch.from_numpy(numbers[:-32]).reshape(32, 3, 7, 7), torch.from_numpy(numbers[-32:])
    colour = (portraits.expand(-1, 3, -1, -1) - torch.tensor(MEAN)[:, None, None]) / SCALE
    factor, offset = torch.from_numpy(affine).reshape(2, 32, 1, 1)
    expected = functional.conv2d(colour, filters, offsets, stride=2) * factor + offset
    with torch.no_grad():
        found = net.norm(net.conv((portraits - GREY) / SCALE))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_features_distinguish_people(net, portraits):
    def alike(one, other):
        return functional.cosine_similarity(net.describe(one), net.describe(other)).tolist()

    darker, mirrored = portraits * 0.8, portraits.flip(3)
    small = functional.interpolate(portraits, size=(48, 48), mode="area")
    others = alike(portraits, portraits.flip(0))
    for same in (darker, mirrored, small):
        assert min(alike(portraits, same)) > max(others) + 0.05


def test_a_run_begins_with_dlibs_weights(tmp_path):
    faces = torch.randint(0, 256, (32, 1, 48, 48), dtype=torch.uint8)
    samples = train.Samples(
        faces, torch.arange(32) % 7, torch.full((1, 32, 7), 1 / 7), torch.zeros(1, 32, 8), torch.zeros(32)
    )
    how = recipe.Recipe(batch=16, sizes={96: 0.0}, net=SHAPE)
    trainer = train.Trainer(how, samples)
    trainer.begin(setup.first_net(how, samples.faces))
    numbers = next(read(weights()))[1]
    for made in (trainer.net, trainer.average):
        torch.testing.assert_close(made.conv.weight.sum(), torch.from_numpy(numbers[:-32]).sum())
    trainer.save(tmp_path / "checkpoint.pt")
    again = loop.load_net(tmp_path)
    torch.testing.assert_close(again.describe(faces.float()), trainer.average.eval().describe(faces.float()))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file"),
        (b"something else", "is not a dlib net"),
        (b"con_4\x01\x02\x01\x05", "is damaged, or was written by another version"),
        (b"con_4\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\0\0\0\0", "is damaged, or was written by another version"),
        (b"con_4\x01\x02\x01\x01\x01\x01\x01\x01\x01\x01\0\0\0\0", "is another dlib net"),
    ],
)
def test_other_files_are_refused(content, sentence, tmp_path, portraits):
    path = tmp_path / "net.dat"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        Pretrained(SHAPE).adopt(path, portraits)


def test_without_its_package_the_error_names_it(monkeypatch):
    monkeypatch.setattr("training.pretrained.PACKAGE", "face_recognition_models_of_nobody")
    with pytest.raises(ConfigError, match="pip install face-recognition-models"):
        weights()
