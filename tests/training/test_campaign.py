"""A campaign trains its nets within its time limit, resumes, and writes the results that students and models need."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from training_runs import ROOT, TINY, command

from fer_stream.errors import ConfigError, SourceError
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from training import augment, campaign, campaign_file, card, data, distill, publish, results
from training.loop import load_checkpoint
from training.model import logits_of
from training.objective import Soft

NETS = """
views = 2

[[net]]
name = "first"
recipe = "tiny.toml"
publish = "emotion"

[[net]]
name = "second"
recipe = "tiny.toml"
with = { seed = 1, loss = { votes = 0.0 } }

[[net]]
name = "third"
recipe = "tiny.toml"
publish = "tiny"
with = { seed = 2, net = { body = "wide", widths = [8, 8], depth = 1, side = 24 } }
"""


@pytest.fixture
def nets(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY.format(epochs=3))
    path = tmp_path / "nets.toml"
    path.write_text(NETS)
    return path


@pytest.fixture
def faces(csv_file, plus_file):
    return data.load(csv_file, plus_file)


class Counted(campaign.Clock):
    """A clock whose time is over after ``asked`` reads of `left`."""

    def __init__(self, asked):
        super().__init__(10)
        self.asked = asked

    @property
    def left(self):
        self.asked -= 1
        return 600.0 if self.asked > 0 else 0.0


def run(nets, faces, out, clock=None, **more):
    crew = campaign.Crew(
        campaign_file.load(nets), faces, out, clock or campaign.Clock(60), torch.device("cpu"), **more
    )  # fmt: skip
    return crew.run()


def test_each_net_is_trained_as_it_would_be_alone(nets, faces, tmp_path):
    found = run(nets, faces, tmp_path / "out", beside=3)
    assert [(net.name, net.steps, net.total, net.publish) for net in found.nets] == [
        ("first", 12, 12, "emotion"), ("second", 12, 12, None), ("third", 12, 12, "tiny"),
    ]  # fmt: skip
    alone = run(nets, faces, tmp_path / "alone", beside=1)
    for one, other in zip(found.nets, alone.nets, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)
        assert [entry["loss"] for entry in one.log] == [entry["loss"] for entry in other.log]
        assert one.log[-1]["accuracy"] > 0.5


@pytest.mark.parametrize("asked", [2, 4, 9, 13])
@pytest.mark.parametrize("beside", [1, 2])
def test_a_campaign_that_was_stopped_ends_with_the_same_weights(nets, faces, tmp_path, asked, beside):
    straight = run(nets, faces, tmp_path / "straight", beside=beside)
    stopped = run(nets, faces, tmp_path / "stopped", Counted(asked), beside=beside)
    assert len(stopped.nets) < 3 or any(net.steps < net.total for net in stopped.nets)
    again = run(nets, faces, tmp_path / "stopped", beside=beside)
    for one, other in zip(again.nets, straight.nets, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)
        np.testing.assert_array_equal(one.soft[0], other.soft[0])
        assert [entry["loss"] for entry in one.log] == [entry["loss"] for entry in other.log]


def test_finished_work_is_not_repeated(nets, faces, tmp_path, monkeypatch):
    run(nets, faces, tmp_path / "out")
    monkeypatch.setattr(campaign.Trainer, "advance", lambda self: pytest.fail("a net was trained again"))
    monkeypatch.setattr(campaign, "opinions", lambda *_: pytest.fail("a net predicted again"))
    assert len(run(nets, faces, tmp_path / "out").nets) == 3


def test_soft_targets_are_a_nets_predictions_for_the_views(nets, faces, tmp_path):
    found = run(nets, faces, tmp_path / "out")
    learnt = faces.split(data.TRAINING)
    np.testing.assert_array_equal(found.rows, learnt.rows)
    poses = found.views.poses(torch.from_numpy(learnt.rows))
    third = found.nets[2]
    pixels = torch.from_numpy(learnt.images)[:, None].float()
    for k in range(2):
        shown = augment.show(pixels, poses[torch.tensor(k)], 24).clamp(0, 255)
        expected = logits_of(third.net(), shown)[0].softmax(dim=1)
        np.testing.assert_allclose(third.soft[0][k], expected, atol=0.01)
    assert found.nets[1].soft[1].shape == (2, len(learnt), 0), "FER+'s head was not trained"
    public = torch.from_numpy(faces.split(data.PUBLIC).images)[:, None]
    looks = [logits_of(third.net(), look)[0].softmax(dim=1) for look in (public, public.flip(3))]
    np.testing.assert_allclose(third.public[0], sum(looks) / 2, atol=0.01)


def test_students_are_trained_on_a_campaigns_soft_targets(nets, faces, tmp_path, csv_file, plus_file):
    teachers, students = tmp_path / "teachers", tmp_path / "students"
    found = run(nets, faces, teachers)
    soft = tmp_path / "soft.npz"
    done = command("distill", csv_file, "--plus", plus_file, "--campaign", teachers, "--output", soft)
    assert done.returncode == 0, done.stderr
    predictions = distill.of_campaign(found, faces.split(data.TRAINING))
    together = sum(net.soft[0].astype(float) for net in found.nets) / 3
    np.testing.assert_allclose(distill.mean_of(predictions)[0], together, atol=1e-3)
    assert (
        f"{data.PUBLIC}, teachers alone: {distill.right(distill.of_public(found), faces.split(data.PUBLIC).labels):.1%}"
        in done.stdout
    )
    targets = Soft.load(soft)
    assert targets.views == found.views
    assert targets.emotion.shape == (2, 64, 7)
    taught = run(nets, faces, students, soft=targets)
    assert not np.array_equal(taught.nets[0].weights, found.nets[0].weights)


CARD = """# A card
It is right for 12.3% of something.
<!-- made by training.evaluate emotion-tiny.onnx -->
old figures: 99.9%
<!-- end -->
The end.
"""


def test_students_become_models_and_figures(nets, faces, tmp_path, csv_file, plus_file):
    run(nets, faces, tmp_path / "out")
    (tmp_path / "card.md").write_text(CARD)
    models = tmp_path / "models"
    models.mkdir()
    done = command(
        "publish", tmp_path / "out", csv_file, "--plus", plus_file, "--models", models,
        "--documents", tmp_path / "card.md",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in models.iterdir()} == {
        "emotion.onnx", "emotion-ferplus.onnx", "emotion-tiny.onnx", "SHA256SUMS",
    }  # fmt: skip
    assert OnnxClassifier(models / "emotion.onnx").labels == data.LABELS
    assert OnnxClassifier(models / "emotion-tiny.onnx").labels == data.PLUS_EMOTIONS
    assert OnnxClassifier(models / "emotion-tiny.onnx").version.startswith("third ")
    text = (tmp_path / "card.md").read_text()
    assert "old figures" not in text
    assert "| emotions | 100.0%" in text
    assert text.startswith("# A card\nIt is right for 12.3% of something.\n<!-- made by")
    assert text.endswith("<!-- end -->\nThe end.\n")
    assert "It is right for 12.3% of something." in done.stdout
    assert "99.9%" not in done.stdout


def test_a_campaign_without_students_is_one_of_teachers(nets, faces, tmp_path, csv_file, plus_file):
    nets.write_text(NETS.replace('publish = "emotion"\n', "").replace('publish = "tiny"\n', ""))
    run(nets, faces, tmp_path / "out")
    done = command("publish", tmp_path / "out", csv_file, "--plus", plus_file)
    assert done.returncode == 0, done.stderr
    assert Soft.load(tmp_path / "out/soft.npz").emotion.shape == (2, 64, 7)
    assert "teachers together: " in done.stdout


def test_a_student_that_is_not_done_is_not_published(nets, faces, tmp_path):
    found = run(nets, faces, tmp_path / "out", Counted(5))
    assert publish.chosen(found.nets, ["first"]) == found.nets[:1]
    with pytest.raises(ConfigError, match=r"no net third is to be published; there are first"):
        publish.chosen(found.nets[:1], ["third"])
    with pytest.raises(ConfigError, match=r"first has done \d of 12 steps; resume its campaign"):
        publish.write(found.nets[:1], faces, tmp_path, ROOT / "models/crop.json")
    assert not list(tmp_path.glob("*.onnx"))


def test_a_document_without_a_generated_part_is_refused(faces, tmp_path):
    (tmp_path / "card.md").write_text(CARD)
    (tmp_path / "other.md").write_text("# nothing\n")
    with pytest.raises(ConfigError, match=r"other\.md has no generated part"):
        card.write([tmp_path / "other.md", tmp_path / "card.md"], tmp_path, faces)
    assert (tmp_path / "card.md").read_text() == CARD


WITHOUT = """
import sys
for name in (
    "pydantic", "pydantic_settings", "cv2", "tqdm", "tensorboard", "torch.utils.tensorboard", "onnx", "onnxruntime",
    "matplotlib", "zmq", "prometheus_client", "platformdirs", "setproctitle",
):
    sys.modules[name] = None  # makes the import fail
from training import campaign
campaign.main()
"""


def test_the_command_needs_torch_and_numpy_alone(nets, csv_file, tmp_path):
    arguments = [nets, csv_file, "--out", tmp_path / "out", "--threads", "1", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 of 3 nets" in done.stdout
    assert len(results.read(tmp_path / "out").nets) == 3


def test_the_command_stops_at_its_time_limit_and_resumes(nets, csv_file, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY.format(epochs=100_000))
    stop = ["--out", tmp_path / "out", "--threads", "1", "--device", "cpu"]
    done = command("campaign", nets, csv_file, *stop, "--minutes", "0.15")
    assert done.returncode == 0, done.stderr
    (first,) = results.read(tmp_path / "out").nets
    assert 0 < first.steps < first.total
    assert load_checkpoint(tmp_path / "out/state/first.pt")["step"] == first.steps
    done = command("campaign", nets, csv_file, *stop, "--minutes", "0.15")
    assert done.returncode == 0, done.stderr
    assert results.read(tmp_path / "out").nets[0].steps > first.steps


def test_a_signal_stops_the_training(nets, csv_file, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY.format(epochs=100_000))
    process = subprocess.Popen(
        [sys.executable, "-m", "training.campaign", nets, csv_file, "--out", tmp_path / "out", "--threads", "1"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout.readline().startswith("first: epoch 1")
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "first: stopped after" in output
    assert results.read(tmp_path / "out").nets[0].steps > 0


def test_results_are_kept_when_the_device_fails(nets, faces, tmp_path, monkeypatch):
    advance = campaign.Trainer.advance

    def fail(trainer):
        if trainer.how.seed == 1 and trainer.step == 5:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...")
        advance(trainer)

    monkeypatch.setattr(campaign.Trainer, "advance", fail)
    with pytest.raises(ConfigError, match=r"failed while second was trained \(CUDA error: an illegal .* encountered\)"):
        run(nets, faces, tmp_path / "out")
    (first,) = results.read(tmp_path / "out").nets
    assert first.steps == first.total
    monkeypatch.undo()
    assert len(run(nets, faces, tmp_path / "out").nets) == 3


def test_an_estimate_has_a_row_for_each_net(nets, faces):
    rows = campaign.estimate(campaign_file.load(nets), faces, torch.device("cpu"), steps=3).splitlines()
    assert [row.split()[0] for row in rows] == ["net", "first", "second", "third"]
    assert all(float(number) >= 0 for row in rows[1:] for number in row.split()[1:])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("views = 2", "views = 0", "views = 0 is not allowed: it must be a whole number, at least 1"),
        ("views = 2", "looks = 2", "there is no setting looks; known there are views, augmentation, net"),
        ("views = 2", "[augmentation]\nrotation = -1", "augmentation.rotation = -1 is not allowed"),
        ('name = "second"', 'name = "first"', "two nets have name = 'first'"),
        ('name = "second"', 'name = "../second"', "net 2 needs a name of at most 41 small letters"),
        ('publish = "tiny"', 'publish = "emotion"', "two nets have publish = 'emotion'"),
        ('publish = "tiny"', 'start = "a.onnx"', "net third: start must be a list of files"),
        ('publish = "tiny"', "keep = 2", "net third: keep = 2 is not allowed: it must be a number from 0 to 1"),
        (
            'publish = "tiny"',
            "rebalance = 0.1",
            "net third: keep and rebalance apply to the model that is made of the net",
        ),
        ('publish = "tiny"', 'publish = "tiny"\nkeep = 0.5', "net third: keep needs start"),
        ('publish = "tiny"', "rebalance = true", "net third: rebalance = True is not allowed"),
        ('publish = "tiny"', 'publish = "huge"', "publish = 'huge' is not allowed: it must be emotion or tiny"),
        ('recipe = "tiny.toml"\nwith', 'recipe = "none.toml"\nwith', "none.toml cannot be read: No such file"),
        ("seed = 1,", "sed = 1,", "net second: there is no setting sed; did you mean seed?"),
        ("seed = 1,", "limit = 5,", "all nets must learn from the same faces"),
        ("[[net]]", "[[nets]]", "there is no setting nets"),
        ("[[net]]", "[[net]", "is not TOML"),
    ],
)
def test_a_wrong_campaign_is_reported_in_a_sentence(nets, old, new, sentence):
    nets.write_text(NETS.replace(old, new))
    with pytest.raises(ConfigError) as raised:
        campaign_file.load(nets)
    assert sentence in str(raised.value)


@pytest.mark.parametrize("name", ["teachers", "students", "steady", "quick"])
def test_our_own_campaigns_load(name):
    found = campaign_file.load(ROOT / f"training/campaigns/{name}.toml")
    published = [net.publish for net in found.nets if net.publish]
    assert published == ([] if name == "teachers" else ["emotion", "tiny"])
    assert all(net.recipe.size(1.0) == net.recipe.net.side for net in found.nets) or name == "quick"


class Over(campaign.Clock):
    """A clock whose time is already over."""

    left = 0.0


def test_a_call_without_time_loses_nothing(nets, faces, tmp_path):
    before = run(nets, faces, tmp_path / "out")
    run(nets, faces, tmp_path / "out", Over(0))
    again = results.read(tmp_path / "out")
    assert [(net.name, net.steps) for net in again.nets] == [(net.name, net.steps) for net in before.nets]
    for one, other in zip(again.nets, before.nets, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)
        np.testing.assert_array_equal(one.soft[0], other.soft[0])


def test_a_net_in_training_is_saved_regularly(nets, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "KEPT", 0.0)
    monkeypatch.setattr(campaign.Crew, "_end", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(nets, faces, tmp_path / "out")
    assert load_checkpoint(tmp_path / "out/state/first.pt")["step"] == 12


def test_two_calls_do_not_share_a_folder(nets, faces, tmp_path):
    with campaign._locked(tmp_path / "out/state"), pytest.raises(ConfigError, match="another campaign runs in"):
        run(nets, faces, tmp_path / "out")


def test_other_data_are_reported_before_anything_is_trained(nets, faces, csv_file, tmp_path, monkeypatch):
    run(nets, faces, tmp_path / "out")
    (tmp_path / "out/state/first.pt").unlink()
    monkeypatch.setattr(campaign.Trainer, "advance", lambda self: pytest.fail("a net was trained"))
    with pytest.raises(ConfigError, match=r"second\.pt was made on other data, votes or soft targets"):
        run(nets, data.load(csv_file), tmp_path / "out")


def test_changed_views_are_predicted_again(nets, faces, tmp_path):
    before = run(nets, faces, tmp_path / "out")
    nets.write_text(NETS.replace("views = 2", "views = 3"))
    after = run(nets, faces, tmp_path / "out")
    assert [net.soft[0].shape[0] for net in after.nets] == [3, 3, 3]
    np.testing.assert_array_equal(after.nets[0].weights, before.nets[0].weights)


def test_a_diverged_net_is_stopped_and_not_used_as_a_teacher(nets, faces, tmp_path, capsys):
    nets.write_text(NETS.replace("seed = 1,", "seed = 1, epochs = 50, optimizer = { learning_rate = 1e30 },"))
    found = run(nets, faces, tmp_path / "out")
    assert found.nets[1].steps < found.nets[1].total
    assert found.nets[1].soft is None
    assert "its loss became infinite or NaN" in capsys.readouterr().out
    assert len(distill.of_campaign(found, faces.split(data.TRAINING))) == 2


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("holdout = 0.99", "faces for training; at least two are needed"),
        ("limit = 1", "leave 1 faces for training"),
        ("holdout = 0.001", "holds out none of"),
        ("seed = 100000000000000000000", "seed = 100000000000000000000 is not allowed"),
    ],
)
def test_too_few_faces_and_too_large_numbers_are_reported(nets, faces, tmp_path, setting, sentence):
    (tmp_path / "tiny.toml").write_text(setting + TINY.format(epochs=3))
    nets.write_text('[[net]]\nname = "only"\nrecipe = "tiny.toml"\n')
    with pytest.raises(ConfigError, match=sentence):
        run(nets, faces, tmp_path / "out")


@pytest.mark.parametrize("side", ["0", "-5", "100000"])
def test_a_side_out_of_range_is_reported(nets, tmp_path, side):
    (tmp_path / "tiny.toml").write_text(TINY.format(epochs=3).replace("16 = 0.0", f"{side} = 0.0"))
    with pytest.raises(ConfigError, match=f"sizes: {side} is not allowed"):
        campaign_file.load(nets)


def test_a_folder_that_cannot_be_written_is_reported(nets, csv_file, tmp_path):
    (tmp_path / "file").touch()
    for out, sentence in ((tmp_path / "file", "Not a directory"), ("/dev/full/x", "Not a directory")):
        done = command("campaign", nets, csv_file, "--out", out, "--threads", "1")
        assert done.returncode == 1
        assert sentence in done.stderr
    done = command("campaign", nets, csv_file, "--out", tmp_path / "out", "--threads", "0")
    assert "--threads at least 1" in done.stderr


def test_without_votes_ferplus_head_has_no_predictions_and_is_not_published(nets, faces, csv_file, tmp_path):
    found = run(nets, data.load(csv_file), tmp_path / "out")
    assert all(net.soft[1].shape == (2, 64, 0) for net in found.nets)
    assert all(opinion.plus is None for opinion in distill.of_campaign(found, faces.split(data.TRAINING)))
    models = tmp_path / "models"
    models.mkdir()
    with pytest.raises(ConfigError, match=r"first cannot become emotion-ferplus\.onnx: it has not learnt"):
        publish.write(found.nets[:1], faces, models, ROOT / "models/crop.json")
    assert not list(models.iterdir())


def test_votes_alone_need_votes(nets, csv_file, tmp_path):
    nets.write_text(NETS.replace("votes = 0.0", "labels = 0.0"))
    with pytest.raises(ConfigError, match="second learns only FER\\+'s votes, and the data has none"):
        run(nets, data.load(csv_file), tmp_path / "out")


def test_models_are_replaced_together_or_not_at_all(nets, faces, csv_file, tmp_path):
    found = run(nets, faces, tmp_path / "out")
    models = tmp_path / "models"
    models.mkdir()
    (models / "emotion.onnx").write_text("the old one")
    with pytest.raises(SourceError, match="FER\\+'s labels are not in the data"):
        publish.write(found.nets[:1], data.load(csv_file), models, ROOT / "models/crop.json")
    assert [path.name for path in models.iterdir()] == ["emotion.onnx"]
    assert (models / "emotion.onnx").read_text() == "the old one"


def test_nets_that_predicted_held_out_faces_are_not_measured_on_public_test(nets, faces, tmp_path):
    (tmp_path / "tiny.toml").write_text("holdout = 0.2" + TINY.format(epochs=3))
    nets.write_text('[[net]]\nname = "only"\nrecipe = "tiny.toml"\n')
    found = run(nets, faces, tmp_path / "out")
    with pytest.raises(ConfigError, match="the faces that its recipes hold out, not PublicTest"):
        distill.right(distill.of_public(found), faces.split(data.PUBLIC).labels)
