"""From the published files to steadier ones with all their figures, and a campaign on a borrowed machine."""

import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from training_runs import ROOT, command, tiny

from fer_stream.inference import models
from training import data, evaluate, results
from training.objective import Soft

STEADY = """
views = 1
[[net]]
name = "steady"
recipe = "steady.toml"
publish = "emotion"
start = ["{models}/emotion.onnx", "{models}/emotion-ferplus.onnx"]
keep = 0.5
rebalance = 0.1
"""

RECIPE = """
batch = 32
epochs = 1
sizes = { 48 = 0.0 }
[loss]
steady = 8
votes_prior = 0.2
[optimizer]
learning_rate = 0.002
warmup = 2
average = 0.5
"""

PART = "<!-- made by training.{} {} -->\nold figures\n<!-- end -->\n"

CARD = "# A card\n" + "".join(
    PART.format(kind, model)
    for kind, model in (
        ("evaluate", "emotion-ferplus.onnx"), ("evaluate", "emotion.onnx"),
        ("steadiness", "emotion.onnx"), ("smoothing", "emotion-ferplus.onnx"),
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def sheets(fer2013, tmp_path_factory):
    """The first 300 faces of Training and 150 of PublicTest, as sheets."""
    faces = data.load(fer2013 / "fer2013.csv", fer2013 / "fer2013new.csv")
    count = {data.TRAINING: 300, data.PUBLIC: 150}
    some = faces[np.concatenate([np.flatnonzero(faces.usage == split)[:most] for split, most in count.items()])]
    folder = tmp_path_factory.mktemp("sheets")
    sheet = some.images.reshape(-1, 50, 48, 48).transpose(0, 2, 1, 3).reshape(-1, 50 * 48)
    cv2.imwrite(str(folder / "faces-00.webp"), sheet, [cv2.IMWRITE_WEBP_QUALITY, 101])  # without loss
    with (folder / "labels.csv").open("w") as file:
        print("Usage", "emotion", *(f"ferplus_{name}" for name in data.VOTES), sep=",", file=file)
        for usage, label, votes in zip(some.usage, some.labels, some.votes, strict=True):
            print(usage, label, *votes, sep=",", file=file)
    np.testing.assert_array_equal(data.load(folder).images, some.images)
    return folder


@pytest.mark.timeout(900)
def test_published_files_become_steadier_ones_with_all_their_figures(sheets, tmp_path):
    soft, out, made, card = (tmp_path / name for name in ("soft.npz", "out", "models", "card.md"))
    shipped = [models.folder() / name for name in ("emotion.onnx", "emotion-ferplus.onnx", "emotion-tiny.onnx")]
    done = command("distill", sheets, "--teacher", *shipped, "--output", soft)
    assert done.returncode == 0, done.stderr
    learnt, public = (data.load(sheets).split(split) for split in (data.TRAINING, data.PUBLIC))
    voted = data.labels_of(learnt, data.PLUS_EMOTIONS)
    agree = Soft.load(soft).of(learnt).plus[0].argmax(axis=1) == voted
    assert agree[voted >= 0].mean() > 0.9

    (tmp_path / "steady.toml").write_text(RECIPE)
    (tmp_path / "nets.toml").write_text(STEADY.format(models=models.folder()))
    done = command("campaign", tmp_path / "nets.toml", sheets, "--soft", soft, "--out", out, "--threads", 1)
    assert done.returncode == 0, done.stderr
    (net,) = results.read(out).nets
    assert net.steps == net.total > 0

    made.mkdir()
    card.write_text(CARD)
    publish = ("publish", out, sheets, "--models", made, "--documents", card, "--nets")
    done = command(*publish, "earlier")
    assert done.stderr == "no net earlier is to be published; there are steady\n"
    assert card.read_text() == CARD
    done = command(*publish, "steady")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "emotion.onnx is not the file that steady began with: restore it, because steady keeps a share of it\n"
    )
    for path in shipped[:2]:
        shutil.copy(path, made)
    done = command(*publish, "steady")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in made.iterdir()} == {"emotion.onnx", "emotion-ferplus.onnx", "SHA256SUMS"}
    for name, labels, least in (
        ("emotion.onnx", data.LABELS, 0.55),
        ("emotion-ferplus.onnx", data.PLUS_EMOTIONS, 0.75),
    ):
        model, found = evaluate.open_model(made / name)
        assert found == labels
        assert model.metadata["version"].startswith("steady ")
        faces, truth = data.truth(public, labels)
        assert (evaluate.predict(model, faces.images).argmax(axis=1) == truth).mean() > least
    text = card.read_text()
    assert "old figures" not in text
    assert text.count("| emotions | ") == 2
    assert "| PublicTest twice, boxes with 2% noise | 150 |" in text
    assert "each frame's most probable label" in text


def test_a_borrowed_machine_runs_a_campaign_with_one_command(sheets, tmp_path):
    recipe = tiny(tmp_path)
    nets, back = tmp_path / "nets.toml", tmp_path / "back"
    nets.write_text(f'views = 2\n[[net]]\nname = "one"\nrecipe = "{recipe.name}"\n')

    def borrowed(*options, **environment):
        done = subprocess.run(
            [ROOT / "training/lease", nets, sheets, back, "5", "--device", "cpu", "--threads", "1", *options],
            cwd=tmp_path, env=os.environ | {"PYTHON": sys.executable} | environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        return done

    done = borrowed("--estimate")
    assert done.returncode == 0, done.stderr
    assert "images/s" in done.stdout
    done = borrowed()
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in back.iterdir()) == ["log.txt", "results-1.npz"]
    (net,) = results.read(back).nets
    assert net.steps == net.total > 0
    assert "1 of 1 nets" in (back / "log.txt").read_text()
    done = borrowed("--soft", "none.npz")
    assert done.returncode == 1
    assert "there are no soft targets none.npz" in done.stdout
    done = borrowed(PYTHON="/bin/false")
    assert (done.returncode, done.stderr) == (1, "/bin/false has no torch; set PYTHON to an interpreter that has it\n")
