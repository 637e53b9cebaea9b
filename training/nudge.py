"""A second look at each face of a batch, nearly the same: as a camera's next frame and a detector's next box show it.

    python -m training.nudge data/fer2013.csv           # runs/data/nudged.png: six faces, eleven looks each

With `loss.steady` a net learns to predict the same for both looks. `nudged` turns, scales, shifts and relights a pose
a little; `degraded` blurs some faces, codes some as JPEG, and adds noise. As in `training.augment`, all of it is tensor
code without branches on values.
"""

from __future__ import annotations

import argparse
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from fer_stream.errors import SourceError
from training.augment import Pose, pose, show, spoil
from training.recipe import Augmentation

if TYPE_CHECKING:
    from training.recipe import Nudge

WORST, BEST = 30.0, 95.0
"""Lowest and highest quality of JPEG."""

BLOCK = 8
"""Side of JPEG's blocks, in pixels."""

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantization of brightness at quality 50: ITU-T T.81 (1992), table K.1."""


def nudged(how: Pose, most: Nudge, random: torch.Generator) -> Pose:
    """Return poses that differ a little from those given.

    Args:
        how: the first looks' poses ``[N]``.
        most: how far each change may go.
        random: the generator of all draws, on the poses' device.
    """
    small = pose(len(how.matrix), _as_augmentation(most), random, mirrored=False)
    # A position in the result is mapped by the small change first, and then by the given pose.
    turned = how.matrix[:, :, :2] @ small.matrix[:, :, :2]
    shift = how.matrix[:, :, :2] @ small.matrix[:, :, 2:] + how.matrix[:, :, 2:]
    return Pose(torch.cat([turned, shift], dim=2), how.contrast * small.contrast, how.brightness + small.brightness)


def degraded(faces: Tensor, most: Nudge, random: torch.Generator) -> Tensor:
    """Return the faces, float32 ``[N, 1, S, S]``, grey 0..255: some blurred, some coded as JPEG, all with noise."""
    spoiled = spoil(faces, _as_augmentation(most), random)
    quality, chosen = torch.rand((2, len(faces)), generator=random, device=faces.device)
    coded = jpeg(spoiled, WORST + (BEST - WORST) * quality)
    return torch.where((chosen < most.jpeg)[:, None, None, None], coded, spoiled)


def jpeg(faces: Tensor, quality: Tensor) -> Tensor:
    """Return faces as JPEG changes them: quantized in the frequencies of blocks of 8 by 8 pixels.

    Args:
        faces: grey 0..255, float32 ``[N, 1, H, W]``.
        quality: 1 to 100 for each face, float32 ``[N]``, as libjpeg counts it.
    """
    height, width = faces.shape[2:]
    padded = functional.pad(faces, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    count, _, *sides = padded.shape
    blocks = padded.view(count, sides[0] // BLOCK, BLOCK, sides[1] // BLOCK, BLOCK).transpose(2, 3)
    waves, table = _waves(faces.device), _table(faces.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None, None, None]
    step = ((table * scale + 50) / 100).floor().clamp(1, 255)
    kept = (waves @ (blocks - 128) @ waves.T / step).round() * step
    back = (waves.T @ kept @ waves + 128).round().clamp(0, 255)
    return back.transpose(2, 3).reshape(count, 1, *sides)[..., :height, :width]


@cache
def _waves(device: torch.device) -> Tensor:
    """Return the matrix ``[8, 8]`` of the discrete cosine transform (DCT-II, orthonormal)."""
    index = torch.arange(BLOCK, dtype=torch.float32)
    waves = torch.cos(math.pi * (2 * index + 1) * index[:, None] / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    waves[0] /= math.sqrt(2)
    return waves.to(device)


@cache
def _table(device: torch.device) -> Tensor:
    return torch.tensor(LUMINANCE, dtype=torch.float32, device=device)


def _as_augmentation(most: Nudge) -> Augmentation:
    """Return the augmentation with the changes of a nudge and no others."""
    return Augmentation(
        rotation=most.rotation, scale=most.scale, stretch=0.0, shift=most.shift, contrast=most.contrast,
        brightness=most.brightness, coarse=most.blur, noise=most.noise, erase=0.0,
    )  # fmt: skip


def main() -> None:
    """Draw some faces, and several looks at each of them."""
    from training import data, pictures, recipe  # noqa: PLC0415 - only this command draws

    parser = argparse.ArgumentParser(description="Show what a second look changes.")
    data.add_arguments(parser, plus=False)
    parser.add_argument("--output", type=Path, default=Path("runs/data/nudged.png"), help="the picture")
    arguments = parser.parse_args()
    try:
        faces = data.load(arguments.data)
    except SourceError as error:
        raise SystemExit(str(error)) from error
    random, most = torch.Generator().manual_seed(0), recipe.Nudge()
    still = Augmentation(rotation=0, scale=0, stretch=0, shift=0, contrast=0, brightness=0)
    rows = {}
    for i in torch.randperm(len(faces), generator=random)[:6].tolist():
        face = torch.from_numpy(faces.images[i]).float().expand(11, 1, -1, -1)
        first = pose(len(face), still, random, mirrored=False)
        looks = degraded(show(face, nudged(first, most, random), data.SIDE), most, random)
        rows[f"row {i}"] = torch.cat([face[:1], looks])[:, 0].byte().numpy()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    pictures.sheet(arguments.output, rows)
    print(arguments.output)


if __name__ == "__main__":
    main()
