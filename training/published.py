r"""A published ONNX file as a net that can learn again: for your own faces, without the run that the file came from.

    python -m training.train training/recipes/own.toml my_faces/ --run runs/own \
        --start models/emotion.onnx models/emotion-ferplus.onnx

`training.export` folds normalisations into the convolutions before them and quantizes these. Here their numbers are
read back, and the normalisations begin as what keeps the net's answers as they were. A file has one head; of a net
whose heads were exported one by one, give both files, or the other head begins with random weights.
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
        net: the net, of the files' shape; a head that no file has stays as it is.
        files: made by `training.export`, all of one net.
        faces: some raw grey faces ``[N, 1, H, W]``, on which the normalisations are set.

    Raises:
        ConfigError: a file cannot be read, is of another net, or the net has another shape.
    """
    convolutions = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d)}
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]  # each follows its convolution
    state: dict[str, Tensor] = {}
    offsets: dict[str, Tensor] = {}
    for path in files:
        weights = _Weights(path)
        for name in convolutions:
            kernel, offset = weights.convolution(name)
            if name in offsets and not torch.equal(state[f"{name}.weight"], kernel):
                raise ConfigError(f"{path} and {files[0]} are not heads of the same net; give files of one run's net")
            state[f"{name}.weight"], offsets[name] = kernel, offset
        state |= weights.others
    try:
        net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ConfigError(
            f"the net of {files[0]} has another shape than the recipe's; its widths must agree"
        ) from error
    affine = {
        norm: torch.stack([torch.ones_like(offsets[name]), offsets[name]])
        for name, norm in zip(convolutions, norms, strict=True)
    }
    set_norms(net, affine, faces)


class _Weights:
    """The numbers in a file: ``others`` are those of what was not folded, by their names in the net."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            graph = onnx.load(path).graph
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except Exception as error:  # protobuf's
            raise ConfigError(f"{path} is not an ONNX file") from error
        self._values: dict[str, NDArray[Any]] = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in self._values:
                self._values[node.output[0]] = self._dequantized(*node.input)
        self._convolutions = {node.name: node.input[1:] for node in graph.node if node.op_type == "Conv"}
        self.others = {
            name.removeprefix("net."): _tensor(values)
            for name, values in self._values.items()
            if name.startswith("net.")
        }

    def convolution(self, name: str) -> tuple[Tensor, Tensor]:
        """Return a convolution's kernel, and what is added to each channel, by the layer's name in the net."""
        try:
            kernel, offset = (self._values[value] for value in self._convolutions[_scope(name)])
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"{self._path} has no layer {name}: it is of another net than the recipe's, or not of training.export"
            ) from error
        return _tensor(kernel), _tensor(offset)

    def _dequantized(self, values: str, scale: str, zero: str) -> NDArray[np.float32]:
        numbers = self._values[values].astype(np.float32)
        shape = (-1,) + (1,) * (numbers.ndim - 1)  # one scale a channel, of which the first axis is
        floats: NDArray[np.float32] = (numbers - self._values[zero].reshape(shape)) * self._values[scale].reshape(shape)
        return floats


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _scope(name: str) -> str:
    """Return what torch calls a layer's node: ``blocks.0.conv1`` is ``/net/blocks/blocks.0/conv1/Conv``."""
    parts: list[str] = []
    for part in name.split("."):
        parts.append(f"{parts[-1]}.{part}" if part.isdigit() else part)
    return "/".join(["", "net", *parts, "Conv"])
