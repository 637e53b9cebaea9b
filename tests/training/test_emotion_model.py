"""The shipped expression models, on FER2013's PublicTest."""

from pathlib import Path

import numpy as np
import pytest

from fer_stream.inference import models
from fer_stream.inference.classifiers.onnx import DEFAULT, Crop, OnnxClassifier
from training import data, evaluate, metrics

SHIPPED = [
    ("emotion.onnx", data.LABELS, 0.67),
    ("emotion-ferplus.onnx", data.PLUS_EMOTIONS, 0.85),
    ("emotion-tiny.onnx", data.PLUS_EMOTIONS, 0.85),
]


@pytest.mark.parametrize(("name", "labels", "least"), SHIPPED)
def test_a_shipped_model_has_its_metadata(name, labels, least):
    model = models.shipped(name)
    assert model.path.stat().st_size < 20 * 2**20
    assert model.metadata["license"] == "MIT"
    classifier = OnnxClassifier(Path(name))
    assert classifier.labels == labels
    assert classifier.crop == Crop.from_json((models.folder() / "crop.json").read_text())


def test_the_default_is_one_of_them():
    assert OnnxClassifier().digest == models.shipped(DEFAULT).digest
    assert DEFAULT in [name for name, *_ in SHIPPED]


def test_shipped_models_are_accurate_and_calibrated(fer2013):
    public = data.load(fer2013 / "fer2013.csv", fer2013 / "fer2013new.csv").split(data.PUBLIC)
    for name, _, least in SHIPPED:
        model, names = evaluate.open_model(models.folder() / name)
        faces, labels = data.truth(public, names)
        probabilities = evaluate.predict(model, faces.images)
        assert (probabilities.argmax(axis=1) == labels).mean() >= least, name
        assert metrics.expected_calibration_error(probabilities, labels) < 0.03, name
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
