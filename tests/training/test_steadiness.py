"""Steadiness by hand-made scores, on a moving portrait, and of a net that was trained for it."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from training_runs import command

from fer_stream.inference import models
from fer_stream.types import Box
from training import data, loop, setup, steadiness
from training.augment import pose, show
from training.model import logits_of
from training.nudge import degraded, nudged
from training.objective import Samples, divergence
from training.recipe import Architecture, Augmentation, Loss, Nudge, Optimizer, Recipe

ASSETS = Path(models.__file__).parents[1] / "assets"


def test_scores_are_compared_in_pairs():
    before = np.array([[0.7, 0.2, 0.1], [0.4, 0.6, 0.0], [1.0, 0.0, 0.0]])
    after = np.array([[0.7, 0.2, 0.1], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0]])
    found = steadiness.compare(before, after)
    assert found.pairs == 3
    assert found.variation == pytest.approx((0 + 0.2 + 1) / 3)
    assert found.changes == pytest.approx(2 / 3)
    assert math.isnan(steadiness.compare(before[:0], after[:0]).variation)


def test_a_boxs_noise_is_relative_to_its_size():
    random = np.random.default_rng(0)
    box = Box(100, 200, 180, 320)
    boxes = np.array([steadiness.moved(box, random, 0.02) for _ in range(4000)])
    size = math.sqrt(80 * 120)
    np.testing.assert_allclose(boxes.mean(axis=0), box, atol=0.2)
    np.testing.assert_allclose(((boxes[:, 0] + boxes[:, 2]) / 2).std(), 0.02 * size, rtol=0.05)
    np.testing.assert_allclose(np.log((boxes[:, 2] - boxes[:, 0]) / 80).std(), 0.02, rtol=0.05)
    np.testing.assert_allclose((boxes[:, 3] - boxes[:, 1]) / (boxes[:, 2] - boxes[:, 0]), 1.5)


@pytest.fixture
def clip(tmp_path):
    """Two seconds of a portrait that moves, and half a second without it."""
    portrait = cv2.resize(cv2.imread(str(ASSETS / "eileen_collins.jpg")), (320, 320))
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (400, 400))
    for number in range(25):
        frame = np.full((400, 400, 3), 90, np.uint8)
        if not 10 <= number < 15:
            x = 20 + number
            frame[40:360, x : x + 320] = portrait
        writer.write(frame)
    writer.release()
    return path


def test_every_face_is_compared_with_the_frame_before(clip):
    ferplus = models.folder() / "emotion-ferplus.onnx"
    found = steadiness.of_clip(clip, [ferplus], 40)[ferplus]
    assert len(found) == 5
    ways = list(found.values())
    assert {each.pairs for each in ways[:4]} == {9 + 9}, "the gap is between no pair's frames"
    assert ways[4].pairs == 20
    assert all(0 < each.variation < 0.1 for each in ways)
    assert all(each.changes == 0 for each in ways), "she smiles throughout"


def test_a_clip_without_faces_has_no_pairs(tmp_path):
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((200, 200, 3), 128, np.uint8))
    ferplus = models.folder() / "emotion-ferplus.onnx"
    assert {each.pairs for each in steadiness.of_clip(path, [ferplus], 40)[ferplus].values()} == {0}


def test_more_noise_is_less_steady(fer2013):
    public = data.load(fer2013 / "fer2013.csv").split(data.PUBLIC)[:200]
    tiny = models.folder() / "emotion-tiny.onnx"
    still, little, much = (steadiness.of_faces(tiny, public, noise=noise) for noise in (0.0, 0.02, 0.1))
    assert (still.variation, still.changes) == (0.0, 0.0)
    assert 0.02 < little.variation < much.variation / 1.3


def test_the_command_prints_a_table_for_each_model(clip, csv_file):
    shipped = [models.folder() / name for name in ("emotion-ferplus.onnx", "emotion.onnx")]
    done = command("steadiness", *shipped, "--clips", clip, "--data", csv_file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| clip.avi: ") == 10
    assert done.stdout.count("| PublicTest twice, boxes with 2% noise | 32 |") == 2
    done = command("steadiness", *shipped)
    assert done.returncode == 2
    assert "give --clips or --data" in done.stderr
    done = command("steadiness", csv_file, "--clips", clip)
    assert done.returncode == 1
    assert "is not a model that onnxruntime can open" in done.stderr


def test_the_divergence_is_zero_for_equal_looks_and_at_most_log_2():
    same, far = torch.randn(5, 4), torch.eye(4)[[0, 1, 2, 3, 0]] * 200
    torch.testing.assert_close(divergence(torch.cat([same, same + 3])), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(divergence(torch.cat([far, far.roll(1, 1)])), torch.full((5,), math.log(2)))
    p, q = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
    m = (p + q) / 2
    expected = ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2
    torch.testing.assert_close(divergence(torch.stack([p.log(), q.log()]))[0], expected)


def variation(net, faces):
    """Return the mean total variation of FER+'s head between two looks at faces."""
    random, how = torch.Generator().manual_seed(0), Augmentation(erase=0, coarse=0, noise=0)
    first = pose(len(faces), how, random)
    second = nudged(first, Nudge(), random)
    looks = [show(faces.float(), first, 48), degraded(show(faces.float(), second, 48), Nudge(), random)]
    one, two = (logits_of(net, look.clamp(0, 255))[1].softmax(dim=1) for look in looks)
    return float((one - two).abs().sum(dim=1).mean() / 2)


def test_a_net_trained_for_steadiness_is_steadier(fer2013):
    faces = data.load(fer2013 / "fer2013.csv", fer2013 / "fer2013new.csv").split(data.TRAINING)[:640]
    found = []
    for steady in (0.0, 20.0):
        how = Recipe(
            epochs=3, batch=32, sizes={48: 0.0}, net=Architecture(widths=[16, 24, 40, 56, 112], dropout=0.1),
            augmentation=Augmentation(mixup=0.3, erase=0.1), loss=Loss(smoothing=0.0, steady=steady),
            optimizer=Optimizer(learning_rate=0.01, warmup=5, average=0.9),
        )  # fmt: skip
        samples = Samples.of(faces, how.loss)
        trainer = loop.Trainer(how, samples)
        trainer.begin(setup.first_net(how, samples.faces, [models.folder() / "emotion-tiny.onnx"]))
        while trainer.step < trainer.total:
            trainer.advance()
        found.append(variation(trainer.average, samples.faces))
    assert found[1] < 0.85 * found[0], found
