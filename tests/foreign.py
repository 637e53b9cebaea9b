"""Classifiers in other people's layouts, with random weights: their answers mean nothing, but can be computed.

Each pools its pixels to `CELLS` x `CELLS` cells and multiplies these with a matrix.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from fer_stream.inference import models
from fer_stream.inference.classifiers import adoption

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CELLS = 4


class Foreign(NamedTuple):
    """The layout of a model: where it comes from is said at each of them."""

    name: str
    shape: tuple[int | str, int | str, int | str, int | str]
    layout: str
    entry: str
    exit: str
    columns: int
    softmax: bool = False
    side: int = 0
    """Pixels, where the shape does not say them."""
    batch: int = 0
    """The only batch that it takes, though its shape does not say so."""

    weight: float = 1.0
    """How large the weights are: the smaller, the larger the pixels' values."""

    certain: int = -1
    """The column that is far above the others, so that events have a label; -1: none is."""

    @property
    def channels(self) -> int:
        return int(self.shape[self.layout.index("C")])

    @property
    def pixels(self) -> int:
        side = self.shape[self.layout.index("H")]
        return side if isinstance(side, int) else self.side

    def weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        random = np.random.default_rng(len(self.name))
        inside = self.channels * CELLS * CELLS
        return (
            random.normal(0, self.weight / inside, (inside, self.columns)).astype(np.float32),
            (random.normal(0, 0.3, self.columns) + 3.5 * (np.arange(self.columns) == self.certain)).astype(np.float32),
        )

    def answer(self, pixels: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return the output for one face, ``[side, side, channels]``, computed without onnxruntime."""
        step = self.pixels // CELLS
        cells = pixels.reshape(CELLS, step, CELLS, step, self.channels).mean(axis=(1, 3)).transpose(2, 0, 1)
        matrix, base = self.weights()
        found = cells.reshape(-1) @ matrix.astype(np.float64) + base
        return softmax(found) if self.softmax else found

    def write(self, path: Path) -> Path:
        matrix, base = self.weights()
        nodes = [helper.make_node("Identity", [self.entry], ["pixels"])]
        if self.layout == "NHWC":
            nodes = [helper.make_node("Transpose", [self.entry], ["pixels"], perm=[0, 3, 1, 2])]
        step = self.pixels // CELLS
        nodes += [
            helper.make_node("AveragePool", ["pixels"], ["cells"], kernel_shape=[step, step], strides=[step, step]),
            helper.make_node("Reshape", ["cells", "flat"], ["row"]),
            helper.make_node("MatMul", ["row", "matrix"], ["product"]),
            helper.make_node("Add", ["product", "base"], ["sum"]),
            helper.make_node("Softmax", ["sum"], [self.exit], axis=1)
            if self.softmax
            else helper.make_node("Identity", ["sum"], [self.exit]),
        ]
        flat = [self.batch or (self.shape[0] if isinstance(self.shape[0], int) else -1), len(matrix)]
        graph = helper.make_graph(
            nodes,
            self.name,
            [helper.make_tensor_value_info(self.entry, TensorProto.FLOAT, list(self.shape))],
            [helper.make_tensor_value_info(self.exit, TensorProto.FLOAT, [self.shape[0], self.columns])],
            [
                helper.make_tensor("flat", TensorProto.INT64, [2], flat),
                helper.make_tensor("matrix", TensorProto.FLOAT, matrix.shape, matrix.reshape(-1)),
                helper.make_tensor("base", TensorProto.FLOAT, base.shape, base),
            ],
        )
        opset = helper.make_opsetid("", 17)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), str(path))
        return path


def softmax(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    powers = np.exp(values - values.max()).astype(np.float64)
    return powers / math.fsum(powers)


FERPLUS = Foreign("emotion-ferplus-8", (1, 1, 64, 64), "NCHW", "Input3", "Plus692_Output_0", 8, weight=0.05)
"""FER+ of the ONNX Model Zoo: one grey face of 0 to 255, logits of eight labels."""

EMOTIEFF = Foreign("enet_b0_8_va_mtl", ("batch_size", 3, 224, 224), "NCHW", "input", "output", 10, certain=4)
"""EmotiEffLib's enet_b0_8_va_mtl: RGB with ImageNet's mean and deviation; logits of eight labels, valence, arousal."""

XCEPTION = Foreign("mini_xception", ("N", 64, 64, 1), "NHWC", "input_1", "predictions", 7, softmax=True)
"""mini-Xception, as `fer` uses it, converted from Keras: grey, -1 to 1, channels last, seven probabilities."""

FREE = Foreign("free", ("N", 3, "H", "W"), "NCHW", "image", "scores", 3, side=32, batch=1)
"""Exported with all axes free but the channels', though only one face of one size can be reshaped."""


def measuring(path: Path) -> Path:
    """Write a model of eight labels, which is always happy, and the measures valence and arousal; and its sidecar."""
    EMOTIEFF.write(path)
    answers = {
        "channels": "RGB",
        "pixels": "imagenet",
        "labels": "angry,contempt,disgust,fear,happy,neutral,sad,surprise",
        "measure": "valence=8; arousal=9",
        "crop": "box",
        "license": "MIT",
        "trained-on": "nothing",
    }
    models.sidecar_of(path).write_text(adoption.adopt(models.load(path), answers, None))
    return path
