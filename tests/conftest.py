"""What many tests use: a tiny classifier, a short clip of the demo scene, short paths, and processes that end."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import onnx
import pytest
from onnx import TensorProto, helper
from processes import Cli

from fer_stream.config import EMOTIONS, CameraSettings
from fer_stream.sources.demo import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIP_FRAMES = 60


def write_model(path: Path, labels: tuple[str, ...] = EMOTIONS, likely: str = "happy") -> Path:
    """Write a classifier under the contract: ``likely`` has 0.82, the others share the rest, and brightness shifts it a
    little, so that its answers tell faces apart."""
    rest = 0.18 / (len(labels) - 1)
    base = [0.82 if label == likely else rest for label in labels]
    other = next(label for label in labels if label != likely)
    shift = [-0.1 if label == likely else 0.1 if label == other else 0.0 for label in labels]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["faces"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "unit"], ["share"]),
            helper.make_node("Unsqueeze", ["share", "axis"], ["column"]),
            helper.make_node("MatMul", ["column", "shift"], ["shifted"]),
            helper.make_node("Add", ["shifted", "base"], ["probabilities"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("faces", TensorProto.FLOAT, ["N", 1, 48, 48])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(labels)])],
        [
            helper.make_tensor("unit", TensorProto.FLOAT, [], [1 / 255]),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("shift", TensorProto.FLOAT, [1, len(labels)], shift),
            helper.make_tensor("base", TensorProto.FLOAT, [len(labels)], base),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    metadata = {"labels": json.dumps(labels), "crop": '{"x": 0.0, "y": 0.0, "side": 1.0}', "version": "tiny 1"}
    helper.set_model_props(model, metadata | {"license": "MIT", "trained_on": "nothing"})
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the seven emotions, in microseconds: every face is happy at 0.72 to 0.82."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny.onnx")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames of the demo scene, 640x480 at 15 frames/s: one portrait is there, the second one enters."""
    path = tmp_path_factory.mktemp("clips") / "portraits.avi"
    scene = open_source("demo", CameraSettings())
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15, (640, 480))
    for number in range(45 + CLIP_FRAMES):
        picture = scene.read()
        if number >= 45 and picture is not None:
            writer.write(picture.image)
    writer.release()
    return path


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="f-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def cli(tmp_path: Path, tiny_model: Path) -> Iterator[Cli]:
    """``fer-stream`` commands with the tiny model; what still runs at the end of the test is killed."""
    commands = Cli(tmp_path, tiny_model)
    yield commands
    commands.close()
