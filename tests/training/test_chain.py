"""Data, training, resuming, export, evaluation and the list of doubtful labels, on faces in two shades of grey."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from training_runs import command, tiny

from fer_stream.errors import ConfigError
from fer_stream.inference.classifiers.onnx import Crop, OnnxClassifier
from training import data, distill, doubtful, evaluate, export, loop, objective, recipe, setup, train
from training.corrupt import CORRUPTIONS
from training.model import Residual
from training.objective import Soft, Views
from training.quantize import quantize

ROOT = Path(__file__).parents[2]


def weights(trainer):
    return {name: value.numpy().copy() for name, value in trainer.average.state_dict().items()}


def test_a_run_that_was_stopped_ends_with_the_same_weights(csv_file, tmp_path):
    faces, how = data.load(csv_file), recipe.load(tiny(tmp_path))
    straight = weights(train.train(how, faces, tmp_path / "straight"))
    stopped = train.train(how, faces, tmp_path / "stopped", epochs=1)
    assert stopped.epoch == 1
    resumed = train.train(how, faces, tmp_path / "stopped")
    assert resumed.epoch == 2
    for name, value in weights(resumed).items():
        np.testing.assert_array_equal(value, straight[name], err_msg=name)
    again = train.train(how, faces, tmp_path / "straight")  # the training is complete already
    assert again.epoch == 2
    assert list((tmp_path / "straight").glob("events.out.tfevents.*"))


def test_a_run_is_not_resumed_with_another_recipe_or_on_other_data(csv_file, tmp_path):
    faces = data.load(csv_file)
    train.train(recipe.load(tiny(tmp_path)), faces, tmp_path / "run", epochs=1)
    with pytest.raises(ConfigError, match="was made with another recipe"):
        train.train(recipe.load(tiny(tmp_path, epochs=3)), faces, tmp_path / "run")
    with pytest.raises(ConfigError, match="was made on other data"):
        train.train(recipe.load(tiny(tmp_path)), faces[1:], tmp_path / "run")
    (tmp_path / "run/checkpoint.pt").write_text("something else")
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        train.train(recipe.load(tiny(tmp_path)), faces, tmp_path / "run")


def test_faces_can_be_held_out(csv_file, tmp_path):
    learnt, watched = train.prepare(data.load(csv_file), recipe.load(tiny(tmp_path, more="holdout = 0.25\n")))
    assert (len(learnt), len(watched)) == (48, 16)
    assert {*learnt.usage, *watched.usage} == {data.TRAINING}


def test_votes_train_the_second_head(csv_file):
    faces = data.load(csv_file)
    votes = np.zeros((len(faces), 10), np.uint8)
    votes[:, 1], votes[:, 4], votes[0, :] = 6, 2, 0
    how = recipe.Loss(smoothing=0.1)
    voted = data.Faces(faces.images, faces.labels, faces.usage, faces.rows, votes)
    samples = objective.Samples.of(voted, how)
    assert samples.voted.tolist() == [0.0] + [1.0] * 95
    np.testing.assert_allclose(samples.votes[0, 1], [0, 0.75, 0, 0, 0.25, 0, 0, 0])
    assert not objective.Samples.of(faces, how).voted.any()
    np.testing.assert_allclose(samples.targets[0, 0], [0.1 / 7 + 0.9 * (label == 3) for label in range(7)], atol=1e-6)


def test_teachers_take_their_share_of_both_targets(csv_file):
    faces = data.load(csv_file)
    votes = np.zeros((len(faces), 10), np.uint8)
    votes[1:, 1] = 10
    voted = data.Faces(faces.images, faces.labels, faces.usage, faces.rows, votes)
    emotion, plus = np.eye(7, dtype=np.float16)[[[6] * 96]], np.eye(8, dtype=np.float16)[[[2] * 96]]
    samples = objective.Samples.of(voted, recipe.Loss(smoothing=0, soft=0.25), Soft(faces.rows, emotion, plus))
    np.testing.assert_allclose(samples.targets[0, 0], [0, 0, 0, 0.75, 0, 0, 0.25])
    np.testing.assert_allclose(samples.votes[0, 1], [0, 0.75, 0.25, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(samples.votes[0, 0], plus[0, 0], err_msg="without votes, only the teachers count")
    assert samples.voted.all()


def test_soft_targets_find_their_faces(csv_file, tmp_path):
    faces = data.load(csv_file)
    random = np.random.default_rng(0)
    order = random.permutation(len(faces))
    emotion, plus = (random.random((3, 96, count)).astype(np.float16) for count in (7, 8))
    soft = Soft(faces.rows[order], emotion, plus, Views(3, 5, recipe.Augmentation(rotation=4.0)))
    soft.save(tmp_path / "deep/soft.npz")
    found = Soft.load(tmp_path / "deep/soft.npz").of(faces[10:20])
    np.testing.assert_array_equal(found.rows, faces.rows[10:20])
    assert found.views == soft.views
    for i, row in enumerate(found.rows):
        np.testing.assert_array_equal(found.emotion[:, i], emotion[:, soft.rows == row][:, 0])
        np.testing.assert_array_equal(found.plus[:, i], plus[:, soft.rows == row][:, 0])
    with pytest.raises(ConfigError, match="made on other data"):
        soft.of(data.Faces(faces.images, faces.labels, faces.usage, faces.rows + 1))
    cut = tmp_path / "cut.npz"
    cut.write_bytes((tmp_path / "deep/soft.npz").read_bytes()[:-100])
    wrong = "is not a file of python -m training.distill"
    for path, sentence in ((tmp_path / "none.npz", "there are no soft targets"), (csv_file, wrong), (cut, wrong)):
        with pytest.raises(ConfigError, match=sentence):
            Soft.load(path)


def test_a_run_begins_with_the_weights_of_another(csv_file, tmp_path):
    faces, how = data.load(csv_file), recipe.load(tiny(tmp_path))
    first = train.train(how, faces, tmp_path / "first", epochs=1)
    samples = objective.Samples.of(faces, how.loss)
    second = train.Trainer(how, samples)
    second.begin(setup.first_net(how, samples.faces, [tmp_path / "first"]))
    for name, value in weights(second).items():
        np.testing.assert_array_equal(value, weights(first)[name], err_msg=name)
    wider = tmp_path / "wider.toml"
    wider.write_text(tiny(tmp_path).read_text().replace("[8, 8, 16]", "[8, 16, 16]"))
    with pytest.raises(ConfigError, match="has another shape"):
        train.train(recipe.load(wider), faces, tmp_path / "second", start=[tmp_path / "first"])


@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_is_used_where_the_processor_has_it(csv_file, tmp_path, monkeypatch, has):
    monkeypatch.setattr(loop, "BFLOAT16", has)
    how = recipe.load(tiny(tmp_path, more="bfloat16 = true\n"))
    trainer = train.Trainer(how, objective.Samples.of(data.load(csv_file)[:16], how.loss))
    seen = []
    trainer.net.stem[0].register_forward_hook(lambda *given: seen.append(given[2].dtype))
    trainer.advance()
    assert seen == [torch.bfloat16 if has else torch.float32]


def test_accuracy_with_memorised_labels():
    right, labels = np.array([False, True, False, True, False]), np.array([3, 3, 4, 4, 0])
    learnt = np.array([3, 4, -1])
    of = np.array(
        [0, 1, 2, -1, -1]
    )  # copies with the same label, another label, no label; then two faces that are no copies
    assert evaluate.by_heart(right, labels, learnt, of) == 2 / 5
    assert evaluate.by_heart(right, labels, learnt[:0], np.full(5, -1)) == right.mean()


def test_the_prior_is_the_class_frequency():
    prior = objective.log_prior(torch.tensor([6, 2]), 0.5)
    assert float(prior[0] - prior[1]) == pytest.approx(0.5 * np.log(3))


def test_each_head_has_the_prior_of_its_own_targets(csv_file, plus_file):
    samples = objective.Samples.of(data.load(csv_file, plus_file), recipe.Loss())
    emotion, plus = objective.log_priors(samples, recipe.Loss(prior=1.0, votes_prior=1.0))
    happy, sad = (data.LABELS.index(name) for name in ("happy", "sad"))
    assert float(emotion[happy] - emotion[sad]) == pytest.approx(0.0)
    happy, sad, fear = (data.PLUS_EMOTIONS.index(name) for name in ("happy", "sad", "fear"))
    assert float(plus[sad] - plus[happy]) == pytest.approx(np.log(9 * 48 / (8 * 47)), abs=1e-5)
    assert float(plus[sad] - plus[fear]) == pytest.approx(np.log(9), abs=1e-5)
    off = objective.log_priors(samples, recipe.Loss(prior=0.0))
    assert not off[0].any()
    assert not off[1].any()


def test_from_a_csv_to_a_model_that_fer_stream_loads(csv_file, tmp_path):
    run = tmp_path / "run"
    model = run / "emotion.onnx"
    done = command("train", tiny(tmp_path, epochs=12), csv_file, "--run", run, "--threads", 1)
    assert done.returncode == 0, done.stderr
    done = command("export", run, csv_file, "--version", "tiny 1")
    assert done.returncode == 0, done.stderr
    done = command("evaluate", model, csv_file, "--output", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    done = command("doubtful", run, csv_file, "--count", 3)
    assert done.returncode == 0, done.stderr

    classifier = OnnxClassifier(model)
    assert (classifier.labels, classifier.version) == (data.LABELS, "tiny 1")
    assert classifier.crop == Crop.from_json((ROOT / "models/crop.json").read_text())
    metadata = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    assert (metadata["license"], metadata["input_size"]) == ("MIT", "48")
    assert float(metadata["temperature"]) > 0

    public = data.load(csv_file).split(data.PUBLIC)
    opened, labels = evaluate.open_model(model)
    assert labels == data.LABELS
    probabilities = evaluate.predict(opened, public.images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities.argmax(axis=1) == public.labels).mean() > 0.9

    figures = json.loads((tmp_path / "figures/figures.json").read_text())
    assert figures["emotions"]["accuracy"] == (probabilities.argmax(axis=1) == public.labels).mean()
    assert set(figures["emotions"]["best_recognised"][:2]) == {"happy", "sad"}
    assert figures["near_copies_in_training"] == 0
    assert figures["accuracy_without_near_copies"] == figures["emotions"]["accuracy"]
    assert figures["accuracy_with_near_copies_by_heart"] == figures["emotions"]["accuracy"]
    selective = figures["right_by_coverage"]
    assert selective["1.0"] == pytest.approx(figures["emotions"]["accuracy"])
    assert selective["0.5"] >= selective["0.8"] >= selective["1.0"]
    assert set(figures["corrupted"]) == set(CORRUPTIONS)
    assert figures["corrupted"]["dark (30% of the light)"] < 0.75, "these faces differ only in brightness"
    assert figures["misplaced"]["box moved by 10%"] > 0.9
    for name in ("confusion", "confusion_valence", "calibration", "risk_coverage"):
        assert cv2.imread(str(tmp_path / f"figures/{name}.png")).std() > 1

    with (run / "doubtful.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert (rows[0]["row"], rows[0]["label"], rows[0]["recognised"]) == ("5", "sad", "happy")
    assert doubtful.mean_losses(run).argmax() == 5
    assert cv2.imread(str(run / "doubtful.png")).std() > 1


def test_the_other_head_becomes_a_model_of_ferplus_labels(csv_file, plus_file, tmp_path):
    run, model = tmp_path / "run", tmp_path / "ferplus.onnx"
    votes = ("--plus", plus_file)
    done = command("train", tiny(tmp_path, epochs=12), csv_file, *votes, "--run", run, "--threads", 1)
    assert done.returncode == 0, done.stderr
    done = command("export", run, csv_file, "--head", "ferplus", "--output", model)
    assert done.stderr == "FER+'s labels are not in the data: give its file with --plus\n"
    done = command("export", run, csv_file, *votes, "--head", "ferplus", "--output", model)
    assert done.returncode == 0, done.stderr
    assert OnnxClassifier(model).labels == data.PLUS_EMOTIONS
    done = command("evaluate", model, csv_file, *votes, "--output", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures/figures.json").read_text())
    assert figures["faces"] == 31, "the picture that is not a face has no label"
    assert figures["emotions"]["accuracy"] > 0.9
    assert set(figures["emotions"]["best_recognised"][:2]) == {"happy", "sad"}


def test_a_student_learns_from_a_teacher(csv_file, plus_file, tmp_path):
    votes = ("--plus", plus_file)
    done = command("train", tiny(tmp_path, epochs=12), csv_file, *votes, "--run", tmp_path / "teacher", "--threads", 1)
    assert done.returncode == 0, done.stderr
    soft = tmp_path / "soft.npz"
    done = command("distill", csv_file, *votes, "--teacher", tmp_path / "teacher", "--output", soft)
    assert done.returncode == 0, done.stderr
    assert f"{data.PUBLIC}, teachers alone: " in done.stdout
    learnt = data.load(csv_file).split(data.TRAINING)
    targets = Soft.load(soft).of(learnt)
    for values in (targets.emotion, targets.plus):
        np.testing.assert_allclose(values.sum(axis=2), 1, atol=2e-3)
    sad, happy = data.LABELS.index("sad"), data.LABELS.index("happy")
    assert targets.plus[0, 0, data.PLUS_EMOTIONS.index("happy")] > 0.6
    assert targets.emotion[0, 0, happy] > 0.8
    alone = distill.soften(distill.of_teachers([tmp_path / "teacher"], learnt), learnt)
    assert alone.emotion[0, 5, happy] > 0.5 > alone.emotion[0, 5, sad], (
        "its label is wrong, and the teacher predicts the right one"
    )
    student = ("train", tiny(tmp_path, epochs=2), csv_file, *votes, "--run", tmp_path / "student", "--threads", 1)
    done = command(*student, "--soft", soft, "--start", tmp_path / "teacher")
    assert done.returncode == 0, done.stderr
    assert loop.load_net(tmp_path / "student") is not None


def test_the_temperature_is_in_the_graph(tmp_path):
    torch.manual_seed(0)
    net = Residual(recipe.Architecture(widths=[8, 8])).eval()
    faces = np.random.default_rng(0).uniform(0, 255, (5, 1, 48, 48)).astype(np.float32)
    for temperature in (1.0, 2.0):
        path = tmp_path / f"{temperature}.onnx"
        assert export.export(net, "fer2013", temperature, path) < 1e-6
        with torch.no_grad():
            expected = torch.softmax(net(torch.from_numpy(faces))[0] / temperature, dim=1).numpy()
        np.testing.assert_allclose(export.run(path, faces), expected, atol=1e-6)
        export.describe(path, "fer2013", temperature, Crop(0, 0, 1), "test")
        assert OnnxClassifier(path).labels == data.LABELS


@pytest.mark.parametrize(("head", "number"), [("fer2013", 0), ("ferplus", 1)])
def test_a_rebalanced_net_favours_rare_labels(head, number):
    """With a share of 1, the probabilities are divided by the class frequencies; the other head stays as it was."""
    torch.manual_seed(0)
    net = Residual(recipe.Architecture(widths=[8, 8])).eval()
    labels, votes = np.array([0, 0, 0, 1]), np.zeros((4, 10), np.uint8)
    votes[np.arange(4), labels] = 10
    faces = data.Faces(np.zeros((4, 48, 48), np.uint8), labels, np.array([data.TRAINING] * 4), np.arange(4), votes)
    seen = torch.rand(5, 1, 48, 48) * 255
    with torch.no_grad():
        before, after = net(seen), export.rebalance(net, head, faces, 1.0)(seen)
    counts = torch.ones(after[number].shape[1])  # a label without faces counts as one face
    counts[0] = 3
    expected = before[number].softmax(dim=1) / counts
    torch.testing.assert_close(after[number].softmax(dim=1), expected / expected.sum(dim=1, keepdim=True))
    torch.testing.assert_close(after[1 - number], before[1 - number])
    torch.testing.assert_close(export.rebalance(net, head, faces, 0.0)(seen)[number], before[number])


def test_a_quantized_net_is_smaller_and_gives_nearly_the_same_results(tmp_path):
    torch.manual_seed(0)
    net = Residual(recipe.Architecture(widths=[32, 64, 64])).eval()
    faces = np.random.default_rng(0).integers(0, 256, (200, 48, 48), np.uint8)
    path = tmp_path / "net.onnx"
    export.export(net, "fer2013", 1.0, path)
    before, size = export.run(path, faces[:, None].astype(np.float32)), path.stat().st_size
    quantize(path, faces)
    assert path.stat().st_size < 0.6 * size
    after = export.run(path, faces[:, None].astype(np.float32))
    assert 0 < np.abs(after - before).max() < 0.02
    convolutions = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    weights = {name.name: name for name in onnx.load(path).graph.initializer}
    for node in convolutions:
        assert f"{node.input[1]}".endswith("_DequantizeLinear_Output"), "its weights are integers"
    assert all(
        np.abs(onnx.numpy_helper.to_array(found).astype(int)).max() <= 64
        for name, found in weights.items()
        if found.data_type == onnx.TensorProto.INT8 and name.endswith("weight_quantized")
    ), "weights use 7 bits"


def test_export_leaves_float32_if_asked(csv_file, tmp_path):
    run = tmp_path / "run"
    assert command("train", tiny(tmp_path), csv_file, "--run", run, "--threads", 1).returncode == 0
    for options, numbers in (((), {"int8"}), (("--float32",), {"float32"})):
        done = command("export", run, csv_file, *options, "--output", tmp_path / "net.onnx")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert numbers <= set(done.stdout.split(", "))
        nodes = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
        assert ("DequantizeLinear" in nodes) == (not options)


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        ("train", ("nowhere.toml", "{csv}", "--run", "{tmp}"), "nowhere.toml cannot be read: No such file"),
        ("train", ("{recipe}", "nowhere.csv", "--run", "{tmp}"), "nowhere.csv cannot be read: No such file"),
        ("export", ("{tmp}/nowhere", "{csv}"), "there is no checkpoint {tmp}/nowhere/checkpoint.pt"),
        ("evaluate", ("{csv}", "{csv}"), "{csv} is not a model that onnxruntime can open"),
        ("doubtful", ("{tmp}/nowhere", "{csv}"), "{tmp}/nowhere has no losses.npy"),
        ("distill", ("{csv}", "--teacher", "{tmp}/nowhere"), "there is no checkpoint {tmp}/nowhere/checkpoint.pt"),
        ("train", ("{recipe}", "{csv}", "--run", "{tmp}/r", "--soft", "no.npz"), "there are no soft targets no.npz"),
    ],
)
def test_wrong_use_is_one_sentence(csv_file, tmp_path, module, arguments, sentence):
    paths = {"csv": csv_file, "tmp": tmp_path, "recipe": tiny(tmp_path)}
    done = command(module, *(argument.format(**paths) for argument in arguments))
    assert done.returncode == 1
    assert done.stderr.startswith(sentence.format(**paths))
    assert done.stderr.count("\n") == 1
