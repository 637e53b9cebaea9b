"""The classifier's contract, satisfied and broken, and its crop of a face."""

import json
import math

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fer_stream.errors import ModelError
from fer_stream.imaging.yuv import Colour, Yuv
from fer_stream.inference.classifiers import onnx as classifiers
from fer_stream.inference.classifiers.onnx import Crop, OnnxClassifier, Square, sample
from fer_stream.settings.tree import ClassifierSettings
from fer_stream.types import Box, Face

METADATA = {
    "labels": '["bright", "dark"]',
    "crop": '{"x": 0.0, "y": 0.0, "side": 1.0}',
    "version": "brightness 1",
    "license": "MIT",
    "trained_on": "nothing",
}


def write(
    path, *, shape=("N", 1, 48, 48), columns=2, names=("faces", "probabilities"), scale=1.0, kind=None, **metadata
):
    """Write an ONNX classifier of mean brightness; arguments other than the path make it break the contract."""
    given_in, given_out = names
    float_in = kind or TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", [given_in], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "unit"], ["share"]),
        helper.make_node("Unsqueeze", ["share", "axis"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Concat", ["bright", "dark"], [given_out], axis=1),
    ]
    constants = [
        helper.make_tensor("unit", TensorProto.FLOAT, [], [scale / 255]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
    ]
    if columns is None:  # an output whose second axis is dynamic
        nodes[-1].output[0] = "both"
        nodes.append(helper.make_node("Compress", ["both", "all"], [given_out], axis=1))
        constants.append(helper.make_tensor("all", TensorProto.BOOL, [2], [1, 1]))
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info(given_in, float_in, list(shape))],
        [helper.make_tensor_value_info(given_out, TensorProto.FLOAT, [shape[0], columns or "C"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {k: v for k, v in (METADATA | metadata).items() if v is not None})
    onnx.save(model, path)
    return path


def face(x1, y1, x2, y2):
    return Face(Box(x1, y1, x2, y2), 0.9)


def test_a_file_that_satisfies_the_contract_is_a_classifier(tmp_path):
    path = write(tmp_path / "brightness.onnx")
    classifier = classifiers.load(ClassifierSettings(model=path))
    assert classifier.labels == ("bright", "dark")
    assert classifier.version == "brightness 1"
    assert len(classifier.digest) == 64

    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 100:] = 255
    rows = classifier.classify(image, [face(20, 20, 60, 60), face(120, 20, 160, 60), face(80, 20, 120, 60)])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0, 1], [1, 0], [0.5, 0.5]], atol=1e-6)


def test_without_faces_there_are_no_rows(tmp_path):
    classifier = OnnxClassifier(write(tmp_path / "brightness.onnx"))
    rows = classifier.classify(np.zeros((10, 10, 3), np.uint8), [])
    assert rows.shape == (0, 2)
    assert rows.dtype == np.float32


def test_scores_do_not_depend_on_the_batch(tmp_path):
    classifier = OnnxClassifier(write(tmp_path / "brightness.onnx", shape=("N", 1, 24, 32)))
    random = np.random.default_rng(1)
    image = cv2.resize(random.integers(0, 256, (9, 16, 3), np.uint8), (320, 180), interpolation=cv2.INTER_CUBIC)
    crowd = [face(x, y, x + 33, y + 41) for x, y in random.uniform(-20, 300, (100, 2))]
    alone = np.concatenate([classifier.classify(image, [one]) for one in crowd])
    np.testing.assert_allclose(classifier.classify(image, crowd), alone, atol=1e-6)
    assert len(np.unique(alone[:, 0])) > 50


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"kind": TensorProto.INT32}, "its input `faces` is tensor(int32): export it with an input of float32"),
        ({"shape": ("N", 3, 48, 48)}, "the order of the channels of its input `faces`, [N, 3, 48, 48], is not said: "),
        ({"shape": ("N", 2, 48, 48)}, "its input `faces` is [N, 2, 48, 48]: export it with 1 or 3 channels"),
        (
            {"shape": ("N", 1, "H", "W")},
            "the size of its input `faces`, [N, 1, H, W], is not fixed: write [input] size",
        ),
        ({"names": ("faces", "logits")}, "which of its outputs (`logits`) has the labels is not said: write [labels]"),
        ({"scale": 3.0}, "the rows of its output `probabilities` must be probabilities that sum to 1"),
        ({"scale": math.nan}, "its output `probabilities` has values that are not finite"),
        (
            {"labels": None},
            "neither its metadata nor a sidecar has `labels`: write [labels] with names = [...], 2 names",
        ),
        ({"crop": None}, "neither its metadata nor a sidecar has `crop`: write [crop] with x, y and side"),
        ({"version": None}, "neither its metadata nor a sidecar has `version`: write version ="),
        ({"license": " "}, "neither its metadata nor a sidecar has `license`: write license ="),
        ({"trained_on": ""}, "neither its metadata nor a sidecar has `trained_on`: write trained_on ="),
        (
            {"labels": "bright, dark"},
            "its metadata `labels` cannot be used: correct it: it must be a JSON array of names",
        ),
        (
            {"labels": '{"bright": 0}'},
            "its metadata `labels` cannot be used: correct it: it must be a JSON array of names",
        ),
        (
            {"labels": '["bright", 1]'},
            'its metadata `labels` cannot be used: correct it: labels.names = ["bright", 1] is',
        ),
        ({"labels": '["dark", "dark"]'}, "its metadata `labels` cannot be used: correct it: labels.names = "),
        (
            {"labels": '["bright"]'},
            "there are 1 labels for 2 columns of `probabilities`: give as many names as columns",
        ),
        ({"crop": "1.08"}, "its metadata `crop` cannot be used: correct it: it must be an object of x, y and side"),
        ({"crop": '{"x": 0, "z": 1}'}, "its metadata `crop` cannot be used: correct it: there is no setting crop.z"),
        ({"crop": "{"}, "its metadata `crop` cannot be used: correct it: it must be an object of x, y and side"),
        (
            {"crop": '{"x": 0, "y": NaN, "side": 1}'},
            "its metadata `crop` cannot be used: correct it: crop.y = NaN is not",
        ),
        (
            {"crop": '{"x": 0, "y": "0", "side": 1}'},
            'its metadata `crop` cannot be used: correct it: crop.y = "0" is not',
        ),
        (
            {"labels": "[" * 100_000},
            "its metadata `labels` cannot be used: correct it: it must be a JSON array of names",
        ),
        (
            {"crop": "[" * 100_000},
            "its metadata `crop` cannot be used: correct it: it must be an object of x, y and side",
        ),
        ({"crop": f'{{"x": 0, "y": 0, "side": 1{"0" * 400}}}'}, "its metadata `crop` cannot be used: correct it: "),
        (
            {"crop": '{"x": 0, "y": 0, "side": 0}'},
            "its metadata `crop` cannot be used: correct it: crop.side = 0 is not",
        ),
    ],
)
def test_the_error_names_the_breach_of_the_contract(tmp_path, broken, sentence):
    path = write(tmp_path / "broken.onnx", **broken)
    with pytest.raises(ModelError) as raised:
        OnnxClassifier(path)
    message = str(raised.value)
    assert message.startswith(f"{path} is not a classifier for fer-stream: {sentence}")
    assert "\n" not in message


def test_the_error_names_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"the model file .*nowhere\.onnx cannot be read: No such file or directory"):
        OnnxClassifier(tmp_path / "nowhere.onnx")


def test_the_error_names_a_file_that_is_not_a_model(tmp_path):
    text = tmp_path / "text.onnx"
    text.write_text("This is a text.\n" * 100)
    whole = write(tmp_path / "whole.onnx").read_bytes()
    part = tmp_path / "part.onnx"
    part.write_bytes(whole[: len(whole) // 2])
    empty = tmp_path / "empty.onnx"
    empty.touch()
    for path in (text, part, empty):
        with pytest.raises(ModelError) as raised:
            OnnxClassifier(path)
        assert str(raised.value).startswith(f"{path} is not a model that onnxruntime can open: ")
        assert "\n" not in str(raised.value)


def test_a_crop_survives_json():
    crop = Crop(0.004, -0.012, 1.082)
    assert Crop.from_json(crop.to_json()) == crop
    assert json.loads(crop.to_json()) == {"x": 0.004, "y": -0.012, "side": 1.082}


def test_the_square_of_a_crop():
    assert Crop(0, 0, 1).square(Box(10, 20, 50, 110)) == Square(0, 35, 60)  # 60 is the root of 40 times 90
    assert Crop(0.5, -0.25, 2).square(Box(10, 20, 50, 110)) == Square(0, -10, 120)


def gradient(height, width, across, down):
    y, x = np.mgrid[:height, :width]
    return np.repeat((10 + across * x + down * y).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(
    "square", [Square(10, 12, 24), Square(10.3, 11.6, 17.7), Square(4.5, 3.25, 48), Square(2.1, 5.7, 60.4)]
)
def test_samples_are_at_the_right_position_to_a_fraction_of_a_pixel(square):
    image = gradient(80, 70, 2, 1)
    step = square.side / 24
    centre = (np.arange(24) + 0.5) * step - 0.5  # pixel i is centred at i + 0.5
    expected = 10 + 2 * (square.x + centre)[None, :] + (square.y + centre)[:, None]
    # Pixels are constant inside, not sloped: the mean of a window wider than a pixel may be off by an eighth of a step.
    np.testing.assert_allclose(sample(image, square, 24, 24), expected, atol=1e-3 if step <= 1 else 0.4)


def test_an_aligned_square_is_copied_exactly():
    image = np.repeat(np.random.default_rng(2).integers(0, 256, (60, 70, 1), np.uint8), 3, axis=2)
    np.testing.assert_array_equal(sample(image, Square(7, 5, 48), 48, 48), image[5:53, 7:55, 0])


def test_shrinking_does_not_alias():
    stripes = np.zeros((480, 480, 3), np.uint8)
    stripes[:, ::2] = 254
    values = sample(stripes, Square(0.4, 0.4, 470.0), 48, 48)
    np.testing.assert_allclose(values, 127, atol=14)


def weights(start, side, count, length, margin):
    """Return the share of each window that each pixel covers, in a picture padded by a margin."""
    step = side / count
    half = max(step, 1) / 2
    centre = start + (np.arange(count)[:, None] + 0.5) * step
    left = np.arange(-margin, length + margin)[None, :]
    return np.clip(np.minimum(centre + half, left + 1) - np.maximum(centre - half, left), 0, None) / (2 * half)


@settings(deadline=None, max_examples=60)
@given(
    x=st.floats(-90, 90), y=st.floats(-90, 90), side=st.floats(1, 80),
    height=st.integers(1, 30), width=st.integers(1, 30), size=st.integers(1, 12),
)  # fmt: skip
def test_samples_are_the_means_over_windows_with_the_border_repeated(x, y, side, height, width, size):
    grey = np.random.default_rng(height * 31 + width).integers(0, 256, (height, width), np.uint8)
    margin = 180
    padded = np.pad(grey.astype(float), margin, mode="edge")
    expected = weights(y, side, size, height, margin) @ padded @ weights(x, side, size, width, margin).T
    got = sample(np.repeat(grey[..., None], 3, axis=2), Square(x, y, side), size, size)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-3)


# Turned squares


def eyes(degrees):
    x, y = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return ((30 - 8 * x, 60 - 8 * y), (30 + 8 * x, 60 + 8 * y))


@pytest.mark.parametrize("degrees", [-170, -45, -5, 0, 4.9, 5.1, 30, 90, 180])
def test_the_square_is_turned_by_the_lean_beyond_the_one_that_is_left(degrees):
    box, upright = Box(10, 20, 50, 110), Crop(0, 0, 1).square(Box(10, 20, 50, 110))
    square = Crop(0, 0, 1).square(box, eyes(degrees))
    assert square.angle == pytest.approx(math.copysign(max(abs(degrees) - classifiers.UPRIGHT, 0), degrees))
    assert square[:3] == pytest.approx(upright[:3])


def test_the_offset_of_the_square_is_turned_with_it():
    turned = Crop(0.5, 0, 1).square(Box(0, 0, 40, 40), eyes(90 + classifiers.UPRIGHT))
    assert turned == pytest.approx(Square(0, 20, 40, 90))


@pytest.mark.parametrize("side", [20.0, 48.0, 130.5, 700.0])
@pytest.mark.parametrize("angle", [-120.0, -30.0, 17.0, 90.0, 180.0])
def test_a_turned_square_shows_what_the_upright_one_shows_in_the_turned_picture(angle, side):
    size = int(3 * side)
    coarse = np.random.default_rng(3).integers(0, 256, (18, 18), np.uint8)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    centre = size / 2
    turn = cv2.getRotationMatrix2D((centre - 0.5, centre - 0.5), -angle, 1)
    turned = cv2.warpAffine(image, turn, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    there = (centre - side / 2, centre - side / 2, side)
    got = sample(np.repeat(turned[..., None], 3, axis=2), Square(*there, angle), 48, 48)
    wanted = sample(np.repeat(image[..., None], 3, axis=2), Square(*there), 48, 48)
    assert got.dtype == np.float32
    assert got.shape == (48, 48)
    assert np.abs(got - wanted).mean() < 3


def test_a_turned_square_of_a_planar_picture_is_that_of_its_luma():
    luma = cv2.resize(np.random.default_rng(4).integers(0, 256, (12, 16), np.uint8), (160, 120))
    chroma = np.full((60, 80), 128, np.uint8)
    square = Square(40.5, 30.5, 60, 33)
    planar = sample(Yuv(luma, chroma, chroma, Colour.FULL), square, 48, 48)
    np.testing.assert_allclose(planar, sample(np.repeat(luma[..., None], 3, axis=2), square, 48, 48), atol=1)


def test_outside_the_picture_a_turned_square_repeats_the_border():
    image = np.full((30, 40, 3), 90, np.uint8)
    for corner in (-500.0, -10.0, 25.0, 700.0):
        np.testing.assert_array_equal(sample(image, Square(corner, corner, 50, 45), 24, 32), np.full((24, 32), 90))


def test_a_turned_square_that_shrinks_does_not_alias():
    stripes = np.zeros((960, 960, 3), np.uint8)
    stripes[:, ::2] = 254
    np.testing.assert_allclose(sample(stripes, Square(240, 240, 470.0, 30), 48, 48), 127, atol=14)
