"""Near-copies are found after typical changes, and other faces are not."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from training import data, train
from training.duplicates import copied, likeness, near_copies
from training.recipe import Recipe

ROOT = Path(__file__).parents[2]


def faces_of(images, usage):
    count = len(images)
    return data.Faces(np.stack(images), np.zeros(count, np.int64), np.array(usage), np.arange(count))


@pytest.fixture
def pictures():
    """Twelve unrelated random pictures, about as coarse as faces."""
    random = np.random.default_rng(0)
    coarse = random.uniform(20, 235, (12, 7, 7))
    return [
        cv2.resize(image, (48, 48), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8) for image in coarse
    ]


CHANGES = {
    "the same": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "darker": lambda image: (image * 0.5 + 10).astype(np.uint8),
    "cut closer": lambda image: cv2.resize(image[1:47, 1:47], (48, 48)),
    "with a watermark": lambda image: cv2.rectangle(image.copy(), (4, 30), (40, 33), 255, -1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found(pictures, change):
    copy = CHANGES[change](pictures[5])
    alike, which = likeness(np.stack([copy, pictures[0]]), np.stack(pictures[1:]))
    assert which[0] == 4
    assert alike[0] > 0.96 > alike[1]


def test_other_and_plain_pictures_are_not_near_copies(pictures):
    plain = np.full((48, 48), 90, np.uint8)
    faces = faces_of([*pictures[:6], plain], ["Training"] * 7)
    assert not near_copies(faces, faces_of([*pictures[6:], plain], ["PublicTest"] * 7)).any()
    assert near_copies(faces, faces_of(pictures[2:4], ["PublicTest"] * 2)).tolist() == [n in (2, 3) for n in range(7)]
    assert not near_copies(faces, faces[:0]).any()
    assert copied(faces_of([pictures[3], pictures[9]], ["PublicTest"] * 2), faces).tolist() == [3, -1]


def test_copies_of_validation_faces_are_removed_from_training(pictures):
    mirrored = [image[:, ::-1] for image in pictures[:3]]
    faces = faces_of([*pictures, *mirrored], ["Training"] * 12 + ["PublicTest"] * 3)
    learnt, watched = train.prepare(faces, Recipe())
    assert learnt.rows.tolist() == list(range(3, 12))
    assert watched.rows.tolist() == [12, 13, 14]


def test_the_command_counts_and_draws(pictures, tmp_path):
    lines = ["emotion,pixels,Usage"]
    for number, image in enumerate([*pictures, pictures[3], pictures[5]]):
        usage = "PublicTest" if number >= 12 else "Training"
        lines.append(f"{int(number == 13)},{' '.join(map(str, image.reshape(-1)))},{usage}")
    (tmp_path / "fer2013.csv").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "training.duplicates", tmp_path / "fer2013.csv", "--output", tmp_path / "d.png"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "2 of 2 PublicTest faces have a near-copy in Training, 1 with the same label; 2 of 12 Training"
    )
    assert cv2.imread(str(tmp_path / "d.png")).std() > 1
