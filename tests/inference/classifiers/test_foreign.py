"""Models in other people's layouts, with a sidecar: the answers are those of the model for the pixels that it takes."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import pytest
from foreign import EMOTIEFF, FERPLUS, FREE, XCEPTION, Foreign, softmax
from onnx import TensorProto, helper, numpy_helper

from fer_stream.errors import ConfigError, ModelError
from fer_stream.imaging.yuv import Yuv
from fer_stream.inference import models
from fer_stream.inference.batching import together
from fer_stream.inference.classifiers import adoption, contract
from fer_stream.inference.classifiers.contract import SmootherContract
from fer_stream.inference.classifiers.examination import examine
from fer_stream.inference.classifiers.onnx import Crop, OnnxClassifier, Square
from fer_stream.types import Box, Face

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.floating[Any]]

TEXTS = {"crop": "box", "license": "MIT", "trained-on": "faces"}
ANSWERS = {
    FERPLUS: {"pixels": "bytes", "labels": "neutral,happy,surprise,sad,angry,disgust,fear,contempt"},
    EMOTIEFF: {
        "channels": "RGB",
        "pixels": "imagenet",
        "labels": "angry,contempt,disgust,fear,happy,neutral,sad,surprise",
        "measure": "valence=8; arousal=9",
    },
    XCEPTION: {"pixels": "signed", "labels": "angry,disgust,fear,happy,sad,surprise,neutral"},
    FREE: {"channels": "BGR", "pixels": "unit", "labels": "a,b,c", "size": "32x32"},
}


def grey(image: NDArray[np.uint8]) -> Pixels:
    """ITU-R BT.601, written out."""
    return np.rint(image @ np.array([0.114, 0.587, 0.299]))[..., None]


def imagenet(image: NDArray[np.uint8]) -> Pixels:
    return (image[..., ::-1] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


PIXELS = {
    FERPLUS: grey,
    EMOTIEFF: imagenet,
    XCEPTION: lambda image: grey(image) / 127.5 - 1,
    FREE: lambda image: image / 255,
}

ALL = pytest.mark.parametrize("foreign", list(ANSWERS), ids=lambda foreign: foreign.name)


def adopted(folder: Path, foreign: Foreign, **further: str) -> Path:
    """Write a model and its sidecar."""
    folder.mkdir(exist_ok=True)
    path = foreign.write(folder / f"{foreign.name}.onnx")
    answers = ANSWERS[foreign] | TEXTS | further
    models.sidecar_of(path).write_text(adoption.adopt(models.load(path), answers, None))
    return path


@ALL
def test_the_answers_are_those_of_the_model(tmp_path: Path, foreign: Foreign) -> None:
    classifier = OnnxClassifier(adopted(tmp_path, foreign))
    side = foreign.pixels
    image = np.random.default_rng(3).integers(0, 256, (side + 30, 3 * side + 40, 3), np.uint8)
    image[:, : side + 20, 2] //= 4  # the channels differ
    corners = [(3, 7), (side + 8, 0), (2 * side, 29)]
    faces = [Face(Box(x, y, x + side, y + side), 1.0) for x, y in corners]  # squares of whole pixels are copied exactly
    rows, measures = classifier.assess(image, faces)
    for row, measured, (x, y) in zip(rows, measures, corners, strict=True):
        whole = foreign.answer(PIXELS[foreign](image[y : y + side, x : x + side]))
        labels = len(classifier.labels)
        expected = whole if foreign.softmax else softmax(whole[:labels])
        np.testing.assert_allclose(row, expected[:labels], atol=2e-4)
        np.testing.assert_allclose(measured, whole[labels:].clip(-1, 1), atol=2e-4)
    assert np.ptp(rows, axis=0).max() > 1e-3, "the answers differ"
    assert classifier.classify(image, []).shape == (0, len(classifier.labels))


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    four = FERPLUS._replace(name="four", shape=(4, 1, 64, 64))
    path = four.write(tmp_path / "four.onnx")
    answers = ANSWERS[FERPLUS] | TEXTS
    models.sidecar_of(path).write_text(adoption.adopt(models.load(path), answers, None))
    classifier = OnnxClassifier(path)
    image = np.random.default_rng(5).integers(0, 256, (90, 700, 3), np.uint8)
    faces = [Face(Box(70 * at, 10, 70 * at + 60, 80), 1.0) for at in range(9)]
    whole = classifier.classify(image, faces)
    assert whole.shape == (9, 8)
    for number in (1, 3, 4, 5):
        np.testing.assert_allclose(classifier.classify(image, faces[:number]), whole[:number], atol=1e-6)


def test_a_colour_model_takes_planar_pictures(tmp_path: Path) -> None:
    classifier = OnnxClassifier(adopted(tmp_path, EMOTIEFF))
    data = np.random.default_rng(4).integers(60, 200, (360, 320), np.uint8)
    planar = Yuv.from_i420(data)
    faces = [Face(Box(31.5, 40.25, 101, 133), 1.0), Face(Box(-20, -10, 60, 90), 1.0)]
    for found, expected in zip(
        classifier.assess(planar, faces), classifier.assess(planar.decode(), faces), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_sidecar_of_emotiefflib(tmp_path: Path) -> None:
    path = adopted(tmp_path, EMOTIEFF)
    assert models.sidecar_of(path).read_text().splitlines()[2:] == [
        'version = "enet_b0_8_va_mtl"',
        'license = "MIT"',
        'trained_on = "faces"',
        "",
        "[input]",
        'channels = "RGB"',
        "scale = 0.00392156862745098",
        "mean = [0.485, 0.456, 0.406]",
        "std = [0.229, 0.224, 0.225]",
        "",
        "[labels]",
        'output = "output"',
        "columns = [0, 8]",
        'values = "logits"',
        'names = ["angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise"]',
        "",
        "[crop]",
        "x = 0.0",
        "y = 0.0",
        "side = 1.0",
        "",
        "[measures.valence]",
        "column = 8",
        "range = [-1.0, 1.0]",
        "",
        "[measures.arousal]",
        "column = 9",
        "range = [-1.0, 1.0]",
    ]


def test_the_digest_covers_the_sidecar(tmp_path: Path) -> None:
    path = adopted(tmp_path, XCEPTION)
    sidecar = models.sidecar_of(path)
    before = OnnxClassifier(path).digest
    assert before == models.combined(models.files(path))
    sidecar.write_text(sidecar.read_text().replace('"MIT"', '"BSD"'))
    assert OnnxClassifier(path).digest != before
    sidecar.unlink()
    assert models.load(path).digest == models.files(path)[path.name]


def test_all_breaches_are_told_at_once(tmp_path: Path) -> None:
    path = EMOTIEFF.write(tmp_path / "mine.onnx")
    plan, breaches = examine(models.load(path))
    assert plan is None
    assert [breach.what.rpartition("`")[0].rpartition("`")[2] or breach.what for breach in breaches] == [
        "version", "license", "trained_on", "crop", "input", "output", "labels",
    ]  # fmt: skip
    with pytest.raises(ModelError, match=r"\(and 6 more: fer-stream model check .*mine\.onnx\)$"):
        OnnxClassifier(path)


@pytest.mark.parametrize(
    ("before", "after", "breach"),
    [
        ("[input]", "[input", "its sidecar enet_b0_8_va_mtl.toml is not valid TOML: correct it: "),
        ('"RGB"', '"rgb"', "enet_b0_8_va_mtl.toml has an error: input.channels = \"rgb\" is not allowed: it must"),
        ("scale =", "scales =", "has an error: there is no setting input.scales; did you mean input.scale?"),
        ('"RGB"', '"grey"', "its input `input` has 3 channels, which is not grey: write channels = \"RGB\" or \"BGR\""),
        ("[0.229, 0.224, 0.225]", "[0.2, 0.3]", "mean or std has 2 numbers for 3 channels: write one number for all"),
        ("[0.229, 0.224, 0.225]", "[0.2, 0, 0.3]", "has an error: input.std = [0.2, 0, 0.3]: must be above 0"),
        ('"RGB"', '"RGB"\nlayout = "NHWC"', "its input `input` is [batch_size, 3, 224, 224], which is not NHWC: write"),
        ('"RGB"', '"RGB"\nsize = [64, 64]', "its input `input` is [batch_size, 3, 224, 224], not of size [64, 64]"),
        ("[0, 8]", "[0, 7]", "there are 8 labels for 7 columns of `output`: give as many names as columns"),
        ("[0, 8]", "[0, 11]", "its output `output` has 10 columns, not 11: correct [labels] columns"),
        ("[0, 8]", "[1, 9]", "the measure valence is column 8 of `output`, which is a label's: say which columns"),
        ("column = 9", "column = 10", "the measure arousal is column 10 of `output`, which has 10: correct its column"),
        ("range = [-1.0, 1.0]", "range = [1, -1]", "its first number must be below its second"),
        ('"logits"', '"probabilities"', "the rows of its output `output` must be probabilities that sum to 1, and are"),
        ("[measures.valence]", '[measures."va lence"]', "'va lence' is no valid name: use 1 to 32 letters, digits"),
        ('output = "output"', 'output = "out"', "it has no output `out`: write [labels] output, one of `output`"),
        ("column = 9", 'column = 9\noutput = "va"', "the measure arousal is in the output `va`, which does not"),
    ],
)  # fmt: skip
def test_the_breach_of_a_sidecar_is_named(tmp_path: Path, before: str, after: str, breach: str) -> None:
    path = adopted(tmp_path, EMOTIEFF)
    text = models.sidecar_of(path).read_text()
    assert before in text
    models.sidecar_of(path).write_text(text.replace(before, after, 1))
    plan, breaches = examine(models.load(path))
    assert plan is None
    assert breach in str(breaches[0]), breaches
    assert len(breaches) == 1, "no breach follows from another one"


def test_a_sidecar_that_cannot_be_read(tmp_path: Path) -> None:
    path = adopted(tmp_path, XCEPTION)
    models.sidecar_of(path).write_bytes(b'version = "\xff"')
    with pytest.raises(ModelError, match="is not UTF-8 text: save it as UTF-8"):
        OnnxClassifier(path)
    models.sidecar_of(path).unlink()
    models.sidecar_of(path).mkdir()
    with pytest.raises(ModelError, match=r"the sidecar .*mini_xception.toml cannot be read: Is a directory"):
        OnnxClassifier(path)


def test_a_model_that_takes_one_face_though_its_axis_is_free(tmp_path: Path) -> None:
    path = adopted(tmp_path, FREE)
    text = models.sidecar_of(path).read_text()
    assert "batch = 1" in text
    models.sidecar_of(path).write_text(text.replace("batch = 1\n", ""))
    _, breaches = examine(models.load(path))
    assert list(map(str, breaches)) == [
        "it takes only one face at once, though its first axis is free: write [input] batch = 1"
    ]


def quantized(path: Path, batch: int | str = "N") -> Path:
    """Write a model that quantizes dynamically: how coarse the steps are depends on all faces of a run."""
    matrix = np.random.default_rng(1).normal(0, 0.02, (16, 3)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["row"], axes=[1, 3], keepdims=0),
        helper.make_node("DynamicQuantizeLinear", ["row"], ["whole", "step", "zero"]),
        helper.make_node("DequantizeLinear", ["whole", "step", "zero"], ["coarse"]),
        helper.make_node("MatMul", ["coarse", "matrix"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, 16, 16])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3])
    graph = helper.make_graph(nodes, "quantized", [image], [scores], [numpy_helper.from_array(matrix, "matrix")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def test_an_answer_that_depends_on_other_faces_needs_runs_of_one_face(tmp_path: Path) -> None:
    path = quantized(tmp_path / "mine.onnx")
    text = adoption.adopt(models.load(path), TEXTS | {"pixels": "bytes", "labels": "a,b,c"}, None)
    assert "batch = 1" in text, "this is deduced"
    plan, _ = examine(replace(models.load(path), sidecar=text))
    assert plan is not None
    faces = np.random.default_rng(5).uniform(0, 255, (3, 16, 16)).astype(np.float32)
    faces[1] /= 10
    np.testing.assert_array_equal(plan.run(faces)[0][1], plan.run(faces[1:2])[0][0])
    alone = [plan.run(faces[at : at + 1])[0] for at in range(3)]
    in_company = together(lambda at: plan.run(faces[at : at + 1])[0], range(3))
    np.testing.assert_array_equal(alone, in_company, "not even with the faces of other frames")
    plan, (breach,) = examine(replace(models.load(path), sidecar=text.replace("batch = 1", "")))
    assert plan is None
    assert str(breach) == (
        "its output `scores` for a face depends on the other faces of the same run: write [input] batch = 1"
    )
    fixed = quantized(tmp_path / "four.onnx", 4)
    plan, (breach,) = examine(replace(models.load(fixed), sidecar=text.replace("batch = 1", "")))
    assert plan is None
    assert breach.write == "export it with one face in each run"


@pytest.mark.parametrize(
    ("kind", "breach"),
    [("STRING", "its output `scores` is tensor(string)"), ("BOOL", "is tensor(bool)"), ("", "it has no outputs")],
)
def test_outputs_without_numbers_are_a_breach(tmp_path: Path, kind: str, breach: str) -> None:
    path = quantized(tmp_path / "mine.onnx")
    text = adoption.adopt(models.load(path), TEXTS | {"pixels": "bytes", "labels": "a,b,c"}, None)
    model = onnx.load(str(path))
    del model.graph.output[:]
    if kind:
        to = getattr(TensorProto, kind)
        model.graph.node.append(helper.make_node("Cast", ["scores"], ["other"], to=to))
        model.graph.node[3].output[0], model.graph.node[4].input[0], model.graph.node[4].output[0] = "x", "x", "scores"
        model.graph.output.append(helper.make_tensor_value_info("scores", to, ["N", 3]))
    onnx.save(model, str(path))
    plan, breaches = examine(replace(models.load(path), sidecar=text))
    assert plan is None
    assert [breach in str(each) for each in breaches] == [True], breaches
    with pytest.raises(ModelError, match=re.escape(breach.removeprefix("it "))):
        adoption.adopt(models.load(path), TEXTS | {"pixels": "bytes", "labels": "a,b,c"}, None)


def test_a_sidecar_may_begin_with_a_byte_order_mark_and_have_the_line_ends_of_windows(tmp_path: Path) -> None:
    path = adopted(tmp_path, XCEPTION)
    text = models.sidecar_of(path).read_text()
    models.sidecar_of(path).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert OnnxClassifier(path).labels == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def test_too_many_measures_are_counted() -> None:
    measures: dict[str, Any] = {f"m{number}": {"column": number} for number in range(65)}
    assert contract.valid({"measures": measures})[1] == [
        ("measures", "measures: there are 65, and at most 64 are possible")
    ]


def test_without_a_terminal_everything_unknown_is_named(tmp_path: Path) -> None:
    path = EMOTIEFF.write(tmp_path / "mine.onnx")
    with pytest.raises(ConfigError) as raised:
        adoption.adopt(models.load(path), {}, None)
    for name in ("channels", "pixels", "labels", "crop", "license", "trained-on"):
        assert f"(--{name} " in str(raised.value)
    assert "there are 10 columns" in str(raised.value)
    assert "--size" not in str(raised.value), "the file shows it"


def test_a_question_is_asked_until_its_answer_is_valid(tmp_path: Path) -> None:
    path = EMOTIEFF.write(tmp_path / "mine.onnx")
    replies = iter(
        ["red", "RGB", "0..1", "imagenet", ANSWERS[EMOTIEFF]["labels"], "valence=8", "box", "", "MIT", "faces"]
    )
    asked: list[adoption.Question] = []

    def ask(question: adoption.Question) -> str:
        asked.append(question)
        return next(replies)

    text = adoption.adopt(models.load(path), {}, ask)
    assert [question.name for question in asked] == [
        "channels", "channels", "pixels", "pixels", "labels", "measure", "crop", "version", "license", "trained-on",
    ]  # fmt: skip
    assert asked[1].text.startswith("--channels 'red' cannot be used: input.channels = \"red\" is not allowed")
    plan, _ = examine(replace(models.load(path), sidecar=text))
    assert plan is not None
    assert plan.version == "mine", "the suggestion"
    assert [measure.name for measure in plan.measures] == ["valence"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"pixels": "0-1"}, "--pixels '0-1' cannot be used: it must be bytes, unit, signed, imagenet; other scales"),
        ({"size": "224"}, "--size '224' cannot be used: it must be HEIGHTxWIDTH"),
        ({"crop": "1.1"}, "--crop '1.1' cannot be used: it must be box, fer2013, arcface, or X,Y,SIDE"),
        ({"crop": "0,0,-1"}, "--crop '0,0,-1' cannot be used: crop.side = -1.0 is not allowed: it must be a number"),
        ({"columns": "8"}, "--columns '8' cannot be used: it must be FIRST:AFTER"),
        ({"measure": "valence"}, "--measure 'valence' cannot be used: it must be NAME=COLUMN[,LEAST,GREATEST[,OUT"),
        ({"labels": "a,a"}, "--labels 'a,a' cannot be used: labels.names = [\"a\", \"a\"]: names 'a' twice"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_named(tmp_path: Path, wrong: dict[str, str], sentence: str) -> None:
    path = EMOTIEFF.write(tmp_path / "mine.onnx")
    with pytest.raises(ConfigError) as raised:
        adoption.adopt(models.load(path), ANSWERS[EMOTIEFF] | TEXTS | wrong, None)
    assert sentence in str(raised.value)


def test_answers_that_contradict_the_model_are_refused(tmp_path: Path) -> None:
    path = EMOTIEFF.write(tmp_path / "mine.onnx")
    answers = ANSWERS[EMOTIEFF] | TEXTS | {"channels": "grey", "pixels": "unit"}
    with pytest.raises(ModelError, match="cannot be used with these answers: its input `input` has 3 channels"):
        adoption.adopt(models.load(path), answers, None)


# Smoother settings


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ("tau = 0", "smoother.tau = 0 is not allowed: it must be a number above 0"),
        ("enter = 0.2", "leave must be below enter, or labels flicker"),
        ("leave = 1.5", "smoother.leave = 1.5 is not allowed: it must be a number from 0 to 1"),
        ("update_interval = 1.0", "smoother.update_interval"),
    ],
)
def test_invalid_smoother_settings_are_a_breach(tmp_path: Path, section: str, fault: str) -> None:
    path = adopted(tmp_path, XCEPTION)
    sidecar = models.sidecar_of(path)
    sidecar.write_text(f"{sidecar.read_text()}\n[smoother]\n{section}\n")
    plan, (breach,) = examine(models.load(path))
    assert plan is None
    assert fault in str(breach)


def test_a_classifier_has_the_smoother_settings_of_its_sidecar(tmp_path: Path) -> None:
    path = adopted(tmp_path, XCEPTION)
    assert OnnxClassifier(path).smoother == {}
    sidecar = models.sidecar_of(path)
    before = sidecar.read_text()
    sidecar.write_text(contract.with_smoother(before, SmootherContract(tau=0.4, patience=2)))
    assert sidecar.read_text() == f"{before}\n[smoother]\ntau = 0.4\npatience = 2.0\n"
    assert OnnxClassifier(path).smoother == {"tau": 0.4, "patience": 2}


def test_new_smoother_settings_replace_the_old_ones_alone() -> None:
    text = "# mine\nversion = 'a'\n\n[smoother]  # by hand\ntau = 0.1\n\n# the face\n[crop]\nside = 1.1"
    changed = contract.with_smoother(text, SmootherContract(tau=0.4))
    assert changed == "# mine\nversion = 'a'\n\n# the face\n[crop]\nside = 1.1\n\n[smoother]\ntau = 0.4\n"
    assert contract.with_smoother(changed, SmootherContract(tau=0.4)) == changed
    assert contract.with_smoother("", SmootherContract(tau=0.4)) == "[smoother]\ntau = 0.4\n"
    with pytest.raises(ConfigError, match=r"write \[smoother\] into it by hand"):
        contract.with_smoother("smoother.tau = 0.1\n", SmootherContract(tau=0.4))


# Five landmarks


def turned(points: Any, degrees: float, side: float, centre: complex) -> tuple[tuple[float, float], ...]:
    """Return where points of the unit square are, if it has this side and centre, turned clockwise."""
    factor = side * np.exp(1j * np.radians(degrees))
    found = (np.asarray(points) @ (1, 1j) - 0.5 - 0.5j) * factor + centre
    return tuple((value.real, value.imag) for value in found.tolist())


@pytest.mark.parametrize("degrees", [-170, -30, 0, 4, 90, 179])
@pytest.mark.parametrize("side", [20.0, 160.0])
def test_the_square_is_where_the_landmarks_are_at_their_points(degrees: float, side: float) -> None:
    points = tuple(map(tuple, adoption.ARCFACE["points"]))
    crop, box = Crop(0.0, 0.0, 1.0, points), Box(0, 0, 40, 40)
    square = crop.square(box, turned(points, degrees, side, 70 + 90j))
    assert square == pytest.approx(Square(70 - side / 2, 90 - side / 2, side, degrees))
    upright = Crop(0.0, 0.0, 1.0)
    for few in ((), turned(points, degrees, side, 70 + 90j)[:2], ((5.0, 5.0),) * 5):
        assert crop.square(box, few) == upright.square(box, few), "without five landmarks the box counts"


def test_no_other_square_brings_the_landmarks_closer() -> None:
    random = np.random.default_rng(7)
    points = tuple(map(tuple, adoption.ARCFACE["points"]))
    found = np.array(turned(points, 25, 100, 70 + 90j)) + random.normal(0, 4, (5, 2))
    best = Crop(0.0, 0.0, 1.0, points).square(Box(0, 0, 40, 40), found.tolist())

    def distance(x: float, y: float, side: float, angle: float) -> float:
        there = turned(points, angle, side, complex(x + side / 2, y + side / 2))
        return float(np.square(np.array(there) - found).sum())

    for change in random.normal(0, 1, (200, 4)):
        assert distance(*best) <= distance(*(np.array(best) + change * (2, 2, 2, 2)).tolist())


def test_a_model_that_wants_landmarks_sees_an_aligned_face(tmp_path: Path) -> None:
    aligned, boxed = (OnnxClassifier(adopted(tmp_path / name, EMOTIEFF, crop=name)) for name in ("arcface", "box"))
    points = tuple(map(tuple, adoption.ARCFACE["points"]))
    image = np.full((300, 300, 3), 40, np.uint8)
    marks = turned(points, 30, 112, 150 + 140j)
    for x, y in marks:
        cv2.circle(image, (round(x), round(y)), 4, (255, 255, 255), -1)
    face = Face(Box(100, 90, 200, 190), 1.0, marks)
    seen = aligned.sample(image, face)
    assert seen.shape == (224, 224, 3)
    for x, y in points:
        assert seen[round(y * 224), round(x * 224)].min() > 200
    assert (seen > 128).mean() < 0.03
    without = replace(face, landmarks=())
    crop = aligned.crop
    assert (crop.x, crop.y, crop.side) != (0, 0, 1)
    assert not np.array_equal(aligned.sample(image, without), seen)
    assert not np.array_equal(aligned.sample(image, without), boxed.sample(image, without))


@pytest.mark.parametrize(
    ("points", "fault"),
    [
        ("[[0.3, 0.4]]", "it must be a list of 5, each a list of 2, each a number"),
        ("[[0.3, 0.4], [0.3, 0.4], [0.3, 0.4], [0.3, 0.4], [0.3, 0.4]]", "must not all be the same point"),
        ('[["a", 0.4], [0.7, 0.4], [0.5, 0.6], [0.4, 0.8], [0.6, 0.8]]', "crop.points"),
    ],
)
def test_invalid_points_are_a_breach(tmp_path: Path, points: str, fault: str) -> None:
    path = adopted(tmp_path, XCEPTION)
    sidecar = models.sidecar_of(path)
    sidecar.write_text(sidecar.read_text().replace("[crop]", f"[crop]\npoints = {points}"))
    plan, (breach,) = examine(models.load(path))
    assert plan is None
    assert fault in str(breach)


# Measures without labels


def test_a_model_may_have_measures_and_no_labels(tmp_path: Path) -> None:
    path = adopted(tmp_path, EMOTIEFF, labels="none")
    assert "names = []" in models.sidecar_of(path).read_text()
    alone, both = OnnxClassifier(path), OnnxClassifier(adopted(tmp_path / "both", EMOTIEFF))
    assert alone.labels == ()
    image = np.random.default_rng(3).integers(0, 256, (300, 300, 3), np.uint8)
    faces = [Face(Box(20, 20, 244, 244), 1.0), Face(Box(60, 50, 284, 274), 1.0)]
    rows, measures = alone.assess(image, faces)
    assert rows.shape == (2, 0)
    np.testing.assert_array_equal(measures, both.assess(image, faces)[1])


def test_a_model_without_labels_and_measures_is_refused(tmp_path: Path) -> None:
    path = adopted(tmp_path, EMOTIEFF, labels="none")
    sidecar = models.sidecar_of(path)
    sidecar.write_text(sidecar.read_text().partition("[measures")[0])
    plan, (breach,) = examine(models.load(path))
    assert plan is None
    assert str(breach) == "it has neither labels nor measures: write [labels] names = [...], or [measures.NAME]"
    with pytest.raises(ConfigError, match="which further columns are measures"):
        adoption.adopt(models.load(path), ANSWERS[XCEPTION] | TEXTS | {"labels": "none", "channels": "RGB"}, None)


def test_measures_of_several_outputs_need_no_output_of_labels(tmp_path: Path) -> None:
    path = EMOTIEFF.write(tmp_path / "two.onnx")
    model = onnx.load(str(path))
    model.graph.node.append(onnx.helper.make_node("Identity", ["output"], ["again"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("again", onnx.TensorProto.FLOAT, ["batch_size", 10]))
    onnx.save(model, str(path))
    answers = ANSWERS[EMOTIEFF] | TEXTS | {"labels": "none"}
    with pytest.raises(ModelError, match=r"which of its outputs \(`output`, `again`\) have the measures is not said"):
        adoption.adopt(models.load(path), answers, None)
    answers["measure"] = "valence=8,-1,1,again; arousal=9,-1,1,output"
    models.sidecar_of(path).write_text(adoption.adopt(models.load(path), answers, None))
    image = np.random.default_rng(3).integers(0, 256, (260, 260, 3), np.uint8)
    faces = [Face(Box(10, 10, 234, 234), 1.0)]
    expected = OnnxClassifier(adopted(tmp_path / "one", EMOTIEFF)).assess(image, faces)[1]
    np.testing.assert_array_equal(OnnxClassifier(path).assess(image, faces)[1], expected)
    del answers["measure"]
    with pytest.raises(ConfigError, match="which further columns are measures"):
        adoption.adopt(models.load(path), answers, None)


def test_imagenet_s_mean_follows_the_order_of_the_channels(tmp_path: Path) -> None:
    path, said = EMOTIEFF.write(tmp_path / "mine.onnx"), TEXTS | ANSWERS[EMOTIEFF]

    def mean(answers: dict[str, str]) -> list[float]:
        found: list[float] = tomllib.loads(adoption.adopt(models.load(path), answers, None))["input"]["mean"]
        return found

    assert mean(said) == [0.485, 0.456, 0.406]
    assert mean(said | {"channels": "BGR"}) == [0.406, 0.456, 0.485]
    assert mean(said | {"channels": "BGR", "mean": "0.485,0.456,0.406"}) == [0.485, 0.456, 0.406], "as it was given"
