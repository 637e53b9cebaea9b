"""The model that is shipped, on FER2013's PublicTest."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_stream import models
from fer_stream.classifiers.onnx import DEFAULT, Crop, OnnxClassifier
from training import data, evaluate, metrics

ROOT = Path(__file__).parents[2]
UNPACK = ROOT / "../shared/data/fer2013/unpack.py"


def test_the_shipped_model_says_what_it_is():
    model = models.shipped(DEFAULT)
    assert model.path.stat().st_size < 20 * 2**20
    assert model.metadata["license"] == "MIT"
    classifier = OnnxClassifier()
    assert classifier.labels == data.LABELS
    assert classifier.crop == Crop.from_json((models.folder() / "crop.json").read_text())


@pytest.mark.skipif(not UNPACK.is_file(), reason=f"FER2013 is not at {UNPACK.parent}")
def test_the_shipped_model_recognises_and_is_as_sure_as_it_is_right(tmp_path):
    path = ROOT / "data/fer2013.csv"
    if not path.is_file():
        subprocess.run([sys.executable, UNPACK, tmp_path], check=True)
        path = tmp_path / "fer2013.csv"
    public = data.load(path).split(data.PUBLIC)
    model, _ = evaluate.open_model(models.folder() / DEFAULT)
    probabilities = evaluate.predict(model, public.images)
    assert (probabilities.argmax(axis=1) == public.labels).mean() >= 0.65
    assert metrics.expected_calibration_error(probabilities, public.labels) < 0.05
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
