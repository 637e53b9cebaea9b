r"""Convert a published ONNX file back to a net for further training, without the run that the file came from.

    python -m training.train training/recipes/own.toml my_faces/ --run runs/own \
        --start models/emotion.onnx models/emotion-ferplus.onnx

`training.export` folds normalisations into the convolutions before them and quantizes these. This module reads the
weights back, and initialises the normalisations so that the net's outputs stay the same. A file has one head: give both
files of a net, or the other head begins with random weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from fer_stream.errors import ConfigError
from training.model import set_norms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.model import Residual


def adopt(net: Residual, files: Sequence[Path], faces: Tensor) -> None:
    """Give a net the weights of published files.

    Args:
        net: the net, of the files' shape; a head that is in no file is not changed.
        files: made by `training.export`, all from the same net.
        faces: some raw grey faces ``[N, 1, H, W]``, on which the normalisations' statistics are measured.

    Raises:
        ConfigError: a file cannot be read, the files are of different nets, or the net has another shape.
    """
    convolutions = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d)}
    norms = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    state: dict[str, Tensor] = {}
    offsets: dict[str, Tensor] = {}
    for path in files:
        weights = _Weights(path, list(convolutions))
        if any(not torch.equal(state.get(name, kernel), kernel) for name, kernel in weights.kernels.items()):
            raise ConfigError(f"{path} and {files[0]} are not heads of the same net; give files of one net")
        state |= weights.kernels | weights.others
        offsets = weights.offsets
    heads = {f"{head}.{part}" for head in ("emotion", "plus") for part in ("weight", "bias")}
    expected = {name for name in net.state_dict() if name.rpartition(".")[0] not in norms}
    if state.keys() - expected or expected - heads - state.keys() or not heads & state.keys():
        raise ConfigError(f"{files[0]} has other layers than the recipe's net, or training.export did not write it")
    try:
        net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ConfigError(
            f"the net of {files[0]} has another shape than the recipe's; its widths must agree"
        ) from error
    affine = {
        norm: torch.stack([torch.ones_like(offsets[name]), offsets[name]])
        for name, norm in zip(convolutions, norms.values(), strict=True)  # each follows its convolution
    }
    set_norms(net, affine, faces)


class _Weights:
    """The weights in a file, by the names of their layers in the net.

    ``kernels`` are those of the convolutions, ``offsets`` are added to each channel after them, and ``others`` belong
    to layers without a folded normalisation.
    """

    def __init__(self, path: Path, convolutions: Sequence[str]) -> None:
        try:
            graph = onnx.load(path).graph
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except Exception as error:  # an error of protobuf
            raise ConfigError(f"{path} is not an ONNX file") from error
        self._initializers = {item.name: item for item in graph.initializer}
        self._nodes = {node.output[0]: node for node in graph.node}
        nodes = {node.name: node for node in graph.node if node.op_type == "Conv"}
        self.kernels: dict[str, Tensor] = {}
        self.offsets: dict[str, Tensor] = {}
        try:
            for name in convolutions:
                _, kernel, offset = nodes.pop(_scope(name)).input
                self.kernels[f"{name}.weight"], self.offsets[name] = self._tensor(kernel), self._tensor(offset)
            values = [name for name in (*self._initializers, *self._nodes) if name.startswith("net.")]
            self.others = {name.removeprefix("net."): self._tensor(name) for name in values}
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path} has other layers than the recipe's net, or training.export did not write it"
            ) from error
        if nodes:
            raise ConfigError(f"{path} has more layers than the recipe's net; its widths must agree")

    def _tensor(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self._value(name), np.float32))

    def _value(self, name: str) -> NDArray[Any]:
        """Return the numbers of a name; follows `Identity` nodes and dequantizes.

        Raises:
            ValueError: another operation computes the value.
        """
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        node = self._nodes[name]
        values = [self._value(value) for value in node.input]
        if node.op_type == "Identity":  # torch writes equal tensors only once
            return values[0]
        if node.op_type != "DequantizeLinear":
            raise ValueError(f"{name} is computed")
        numbers, scale, zero = values
        shape = (-1,) + (1,) * (numbers.ndim - 1)  # one scale per channel, which is the first axis
        floats: NDArray[np.float32] = (numbers.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)
        return floats


def _scope(name: str) -> str:
    """Return torch's name of a layer's node: ``blocks.0.conv1`` becomes ``/net/blocks/blocks.0/conv1/Conv``."""
    parts: list[str] = []
    for part in name.split("."):
        parts.append(f"{parts[-1]}.{part}" if part.isdigit() else part)
    return "/".join(["", "net", *parts, "Conv"])
