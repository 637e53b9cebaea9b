"""Network bodies of different kinds, for teachers: they make different mistakes, so an ensemble makes fewer.

    python -m training.bodies training/recipes/wide.toml        # parameters of each part, and multiply-adds

- `Wide`: residual blocks with the activation first (Zagoruyko and Komodakis 2016, arXiv:1605.07146)
- `Plain`: convolutions and poolings (VGG: Simonyan and Zisserman 2014, arXiv:1409.1556; on FER2013: Khaireddin and Chen
  2021, arXiv:2105.03588)
- `Separable`: inverted bottlenecks with gates on the channels (EfficientNet: Tan and Le 2019, arXiv:1905.11946)
- `training.pretrained`: dlib's face recognition net
- `training.model.Residual`: the body of the shipped models
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fer_stream.errors import ConfigError
from training.model import Net, Residual, show
from training.pretrained import Pretrained

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.recipe import Architecture

LARGE = 64
"""The stem halves the side of larger faces (pixels); otherwise the first stage would take most of the time."""


def build(shape: Architecture) -> Net:
    """Return a net with random weights."""
    kinds: dict[str, Callable[[Architecture], Net]] = {
        "residual": Residual,
        "wide": Wide,
        "plain": Plain,
        "separable": Separable,
        "pretrained": Pretrained,
    }
    return kinds[shape.body](shape)


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)


def _stem_stride(shape: Architecture) -> int:
    return 2 if shape.side > LARGE else 1


class _WideBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1, self.conv2 = _convolution(inputs, outputs, 3, stride), _convolution(outputs, outputs, 3)
        self.shortcut = _convolution(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(h)
        return cast("Tensor", kept + self.conv2(functional.relu(self.norm2(self.conv1(h)))))


class Wide(Net):
    """A wide residual net; every stage except the first halves the side."""

    def __init__(self, shape: Architecture) -> None:
        width, *stages = shape.widths
        super().__init__(stages[-1], shape)
        layers: list[nn.Module] = [_convolution(1, width, 3, _stem_stride(shape))]
        for i, outputs in enumerate(stages):
            for block in range(shape.depth):
                layers.append(_WideBlock(width, outputs, 2 if i and not block else 1))
                width = outputs
        self.blocks, self.norm = nn.Sequential(*layers), nn.BatchNorm2d(width)

    def describe(self, faces: Tensor) -> Tensor:
        """Return the mean of each of the last stage's channels."""
        return functional.relu(self.norm(self.blocks((faces - 128) / 64))).mean(dim=(2, 3))


class Plain(Net):
    """Convolutions and poolings; the features of a face are the mean and the maximum of each channel."""

    def __init__(self, shape: Architecture) -> None:
        width, *stages = shape.widths
        super().__init__(2 * stages[-1], shape)
        layers: list[nn.Module] = [_convolution(1, width, 3, _stem_stride(shape)), nn.BatchNorm2d(width), nn.ReLU()]
        for i, outputs in enumerate(stages):
            if i:
                layers.append(nn.MaxPool2d(2))
            for _ in range(shape.depth):
                layers += [_convolution(width, outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU()]
                width = outputs
        self.layers = nn.Sequential(*layers)

    def describe(self, faces: Tensor) -> Tensor:
        """Return the means of the last stage's channels, and their maxima."""
        h: Tensor = self.layers((faces - 128) / 64)
        return torch.cat([h.mean(dim=(2, 3)), h.amax(dim=(2, 3))], dim=1)


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = 4 * inputs
        self.expand = nn.Sequential(_convolution(inputs, inner, 1), nn.BatchNorm2d(inner), nn.SiLU())
        self.depthwise = nn.Sequential(_convolution(inner, inner, 3, stride, inner), nn.BatchNorm2d(inner), nn.SiLU())
        self.squeeze, self.excite = nn.Linear(inner, max(inputs // 4, 8)), nn.Linear(max(inputs // 4, 8), inner)
        self.project = nn.Sequential(_convolution(inner, outputs, 1), nn.BatchNorm2d(outputs))
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        h = self.depthwise(self.expand(x))
        gate = torch.sigmoid(self.excite(functional.silu(self.squeeze(h.mean(dim=(2, 3))))))
        h = self.project(h * gate[:, :, None, None])
        return cast("Tensor", x + h if self.same else h)


class Separable(Net):
    """Inverted bottlenecks; every stage except the first halves the side."""

    def __init__(self, shape: Architecture) -> None:
        width, *stages = shape.widths
        super().__init__(2 * stages[-1], shape)
        layers: list[nn.Module] = [_convolution(1, width, 3, _stem_stride(shape)), nn.BatchNorm2d(width), nn.SiLU()]
        for i, outputs in enumerate(stages):
            for block in range(shape.depth):
                layers.append(_Bottleneck(width, outputs, 2 if i and not block else 1))
                width = outputs
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Sequential(_convolution(width, 2 * width, 1), nn.BatchNorm2d(2 * width), nn.SiLU())

    def describe(self, faces: Tensor) -> Tensor:
        """Return the means of the last convolution's channels."""
        return cast("Tensor", self.head(self.blocks((faces - 128) / 64)).mean(dim=(2, 3)))


def main() -> None:
    """Print the size and cost of a recipe's net."""
    from training.recipe import load  # noqa: PLC0415 - only this command needs one

    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m training.bodies RECIPE")
    try:
        shape = load(Path(sys.argv[1])).net
    except ConfigError as error:
        raise SystemExit(str(error)) from error
    show(build(shape), shape.side)


if __name__ == "__main__":
    main()
