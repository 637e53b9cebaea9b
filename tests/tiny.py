"""A small classifier that follows the contract of ONNX files and needs no training."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from fer_stream.types import EMOTIONS

if TYPE_CHECKING:
    from pathlib import Path


def write_beside(path: Path, likely: str = "happy") -> Path:
    """Write such a classifier with its weights in a separate file, ``NAME.data``."""
    model = onnx.load(write_model(path, likely=likely))
    for tensor in model.graph.initializer:
        if tensor.name in ("shift", "base"):  # only the weights; shapes may not depend on external data
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    beside = path.with_name(f"{path.name}.data")
    beside.unlink(missing_ok=True)  # onnx would append to it
    onnx.save(model, str(path), save_as_external_data=True, location=beside.name, size_threshold=0)
    return path


def write_model(path: Path, labels: tuple[str, ...] = EMOTIONS, likely: str = "happy") -> Path:
    """Write a classifier: ``likely`` has 0.82, the other labels share the rest, and brightness shifts this slightly, so
    that results differ between faces."""
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
