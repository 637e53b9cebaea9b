"""The measured crop, on the package's portraits and on FER2013."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_stream.inference import models
from fer_stream.inference.classifiers.onnx import Crop, sample
from fer_stream.inference.detectors.mtcnn import MTCNN
from training import crop

ROOT = Path(__file__).parents[2]
PORTRAITS = sorted((ROOT / "fer_stream/assets").glob("*.jpg"))


def shipped():
    return Crop.from_json((models.folder() / "crop.json").read_text())


def cut(path, geometry):
    """Return the portrait's face as a 48x48 frame with this geometry relative to the detector's box."""
    image = cv2.imread(str(path))
    (face,) = MTCNN().detect(image)
    return np.rint(sample(image, geometry.square(face.box), 48, 48)).astype(np.uint8)


@pytest.mark.parametrize("geometry", [Crop(0, 0, 1.1), Crop(0.06, -0.05, 1.2)])
def test_measuring_recovers_the_geometry_of_the_crop(geometry):
    found = crop.measure([cut(path, geometry) for path in PORTRAITS])
    assert len(found) == 2
    np.testing.assert_allclose(found, [[geometry.x, geometry.y, geometry.side]] * 2, atol=0.09)


def test_the_command_writes_medians(tmp_path, monkeypatch, capsys):
    pictures = [cut(path, shipped()) for path in PORTRAITS]
    rows = [f"0,{' '.join(map(str, picture.ravel()))},Training" for picture in pictures]
    rows.append(f"0,{' '.join(['0'] * 48 * 48)},Training")  # no face: left out
    rows.append("0,not looked at,PublicTest")
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    output = tmp_path / "crop.json"
    monkeypatch.setattr(sys, "argv", ["crop", str(tmp_path / "fer2013.csv"), "--output", str(output)])
    crop.main()
    assert "2 faces" in capsys.readouterr().out
    expected = np.median(crop.measure(pictures), axis=0)
    np.testing.assert_allclose(list(json.loads(output.read_text()).values()), expected, atol=6e-4)


def test_a_file_without_faces_is_reported(tmp_path, monkeypatch):
    (tmp_path / "fer2013.csv").write_text(f"emotion,pixels,Usage\n0,{' '.join(['9'] * 48 * 48)},Training\n")
    monkeypatch.setattr(sys, "argv", ["crop", str(tmp_path / "fer2013.csv"), "--output", str(tmp_path / "crop.json")])
    with pytest.raises(SystemExit, match="no face was found"):
        crop.main()
    assert not (tmp_path / "crop.json").exists()


def test_the_shipped_crop_matches_fer2013(fer2013):
    found = crop.measure(crop.faces(fer2013 / "fer2013.csv", 300))
    assert len(found) > 200
    np.testing.assert_allclose(np.median(found, axis=0), [shipped().x, shipped().y, shipped().side], atol=0.04)


@pytest.mark.parametrize("path", PORTRAITS, ids=lambda path: path.stem)
def test_the_shipped_crop_shows_a_face_as_fer2013_does(path):
    # From the brow to the chin: the eyes in the upper half, the mouth in the lower, nothing cut off.
    (face,) = MTCNN().detect(cv2.imread(str(path)))
    frame = shipped().square(face.box)
    points = [((x - frame.x) / frame.side, (y - frame.y) / frame.side) for x, y in face.landmarks]
    assert all(0.2 < x < 0.8 for x, _ in points)
    assert all(0.25 < y < 0.5 for _, y in points[:2])
    assert all(0.6 < y < 0.85 for _, y in points[3:])
