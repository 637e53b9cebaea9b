"""Heads that lean: the measurement itself, and its targets on some of FER2013's faces."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fer_stream.imaging.geometry import roll
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.inference.detectors.mtcnn import MTCNN
from training import data, turned


@pytest.fixture(scope="module")
def faces(fer2013):
    """Every sixteenth clear face of PublicTest, its label, its landmarks, and how far it leans."""
    public = data.load(fer2013 / "fer2013.csv", fer2013 / "fer2013new.csv").split(data.PUBLIC)
    shown, labels = data.truth(public, data.PLUS_EMOTIONS)
    images = list(shown.images[::16])
    marks, known = turned.true_landmarks(images)
    assert known.mean() > 0.8
    return images, labels[::16], marks, np.array([roll(points) for points in marks.tolist()])


def test_points_are_turned_as_the_picture_is():
    image = np.zeros((101, 101), np.uint8)
    image[20, 70] = 255
    shown = turned.turned(image, 30)
    ((x, y),) = turned.turned_points(np.array([[70.0, 20.0]]), 30, 50)
    found_y, found_x = np.unravel_index(shown.argmax(), shown.shape)
    assert (found_x, found_y) == pytest.approx((x, y), abs=1)
    assert found_x > 70, "clockwise: what is above the centre moves to the right"


def test_alignment_recognises_heads_that_lean_as_well_as_upright_ones(faces):
    images, labels, marks, _ = faces
    found = turned.at_known_places(OnnxClassifier(), images, labels, marks, (0, 15, 45))
    right = {angle: (before.right.mean(), after.right.mean()) for angle, before, after in found}
    assert right[0][1] > right[0][0] - 0.02
    assert right[15][1] > right[0][1] - 0.02
    assert right[45][1] > right[0][1] - 0.03
    assert right[45][1] > right[45][0] + 0.08


def test_rotations_find_as_many_heads_that_lean_as_upright_ones(faces):
    images, labels, _, lean = faces
    classifier, detector = OnnxClassifier(), MTCNN(turned.SMALL // 2, rotations=turned.ROTATIONS)
    upright, leaning = (turned.search(detector, classifier, images, labels, lean, degrees) for degrees in (0, 60))
    assert upright.reading.found.mean() > 0.8
    assert leaning.reading.found.mean() > 0.93 * upright.reading.found.mean()
    assert leaning.reading.right.mean() > leaning.plain.right.mean() + 0.1
    assert leaning.followed > 0.95
    assert leaning.reading.misled < 0.07
    assert np.median(np.abs(leaning.leans)) < 4


def test_the_command_names_missing_data(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["turned", str(tmp_path / "fer2013.csv")])
    with pytest.raises(SystemExit, match=r"fer2013\.csv cannot be read"):
        turned.main()
