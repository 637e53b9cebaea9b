"""Augmentation: all faces of a batch are changed at once, each with its own random parameters.

python -m training.augment data/fer2013.csv         # runs/data/augmented.png: six faces, eleven ways each

All of it is tensor code without branches on values, so that a CUDA graph can capture and replay it (`training.loop`).
There are three parts: `pose` draws the position and lighting of each face, `show` applies them, and `spoil` reduces
resolution, adds noise and covers parts of the face. Teachers and students see the same poses (`views`), but `spoil`
draws other random numbers for each.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from fer_stream.errors import SourceError

if TYPE_CHECKING:
    from training.recipe import Augmentation

COARSEST, FINEST = 0.35, 0.9
"""Smallest and largest side to which coarse faces are shrunk, as a share of the frame's side."""

STEPS = 28
"""Number of sides between the two."""


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """Position and lighting of each of N faces.

    ``matrix`` float32 ``[N, 2, 3]`` maps a position in the result to a position in the face, both in -1..1;
    ``contrast`` float32 ``[N]`` multiplies the difference from the face's mean; ``brightness`` float32 ``[N]``, in grey
    levels, is added.
    """

    matrix: Tensor
    contrast: Tensor
    brightness: Tensor

    def __getitem__(self, index: Tensor | tuple[Tensor, Tensor]) -> Pose:
        return Pose(self.matrix[index], self.contrast[index], self.brightness[index])

    def to(self, device: torch.device) -> Pose:
        """Return the pose on a device."""
        return Pose(self.matrix.to(device), self.contrast.to(device), self.brightness.to(device))


def augment(faces: Tensor, size: int, how: Augmentation, random: torch.Generator) -> Tensor:
    """Return the faces rotated, scaled, shifted, mirrored, relit, at reduced resolution, with noise, partly covered.

    Args:
        faces: grey 0..255, float32 ``[N, 1, H, W]``.
        size: side of the returned faces, in pixels.
        how: how far each change may go.
        random: the generator of all draws, on the faces' device.

    Returns:
        float32 ``[N, 1, size, size]``, grey 0..255.
    """
    return spoil(show(faces, pose(len(faces), how, random), size), how, random)


def pose(count: int, how: Augmentation, random: torch.Generator, mirrored: bool = True) -> Pose:
    """Draw the position and lighting of each face; half of them are mirrored, unless ``mirrored`` is false."""
    even = (
        _Draw(random).rand((count, 8)) * 2 - 1
    )  # in -1..1; one row for each face, so that the first rows do not depend on N
    angle = even[:, 0] * math.radians(how.rotation)
    across, stretch = torch.exp(even[:, 1] * how.scale), torch.exp(even[:, 2] * how.stretch)
    mirror = torch.where(even[:, 3] < 0, -1.0, 1.0) if mirrored else torch.ones_like(angle)
    x = torch.stack([angle.cos() * across * stretch * mirror, -angle.sin() * across], dim=1)
    y = torch.stack([angle.sin() * across * mirror, angle.cos() * across / stretch], dim=1)
    shift = even[:, 4:6, None] * 2 * how.shift
    matrix = torch.cat([torch.stack([x, y], dim=1), shift], dim=2)
    return Pose(matrix, torch.exp(even[:, 6] * how.contrast), even[:, 7] * how.brightness)


def views(rows: Tensor, count: int, how: Augmentation, seed: int) -> Pose:
    """Return the poses of some faces in several views; each array begins with the axes ``[count, N]``.

    A face's views depend only on its row, the seed and ``how``. Teachers and students on different machines therefore
    see the same views.

    Args:
        rows: rows of the faces in their source, int64 ``[N]``.
        count: number of views of each face.
        how: how far each change may go.
        seed: seed of the draws.
    """
    draws = [torch.Generator().manual_seed(1000 * seed + k) for k in range(count)]
    every = [pose(int(rows.max()) + 1, how, random)[rows] for random in draws]
    matrix, contrast, brightness = zip(*((view.matrix, view.contrast, view.brightness) for view in every), strict=True)
    return Pose(torch.stack(matrix), torch.stack(contrast), torch.stack(brightness))


def show(faces: Tensor, how: Pose, size: int) -> Tensor:
    """Return the faces, float32 ``[N, 1, size, size]``, in a pose; grey values may be outside 0..255."""
    grid = functional.affine_grid(how.matrix, [len(faces), 1, size, size], align_corners=False)
    moved = functional.grid_sample(faces, grid, padding_mode="border", align_corners=False)
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    contrast, brightness = (values[:, None, None, None] for values in (how.contrast, how.brightness))
    return (moved - mean) * contrast + mean + brightness


def spoil(faces: Tensor, how: Augmentation, random: torch.Generator) -> Tensor:
    """Return the faces, float32 ``[N, 1, S, S]``, grey 0..255: some coarser, some partly covered, all with noise."""
    return _cover(_coarsen(faces, how, random), how, random).clamp(0, 255)


def blend(values: Tensor, share: Tensor) -> Tensor:
    """Blend each of the values ``[N, ...]`` with the previous one, whose weight is ``1 - share``.

    Args:
        values: faces or targets, float32 ``[N, ...]``.
        share: float32, one number, or one for each pixel as `patch` returns them.
    """
    return torch.lerp(values.roll(1, 0), values, share)


def patch(mix: Tensor, size: int) -> Tensor:
    """Return the weight of a face's own pixels in a blend, float32 ``[size, size]``.

    With mixup (Zhang et al. 2017, arXiv:1710.09412) the weight is the same everywhere; with CutMix (Yun et al. 2019,
    arXiv:1905.04899) it is 0 in a rectangle and 1 outside.

    Args:
        mix: float32 ``[5]``: the share outside the rectangle, and the rectangle's x1, y1, x2, y2 from 0 to 1.
        size: side in pixels.
    """
    position = (torch.arange(size, device=mix.device) + 0.5) / size
    across, down = ((position >= mix[i]) & (position < mix[i + 2]) for i in (1, 2))
    return mix[0] * (~(down[:, None] & across)).float()


class _Draw:
    """Random numbers of a generator, on its device."""

    def __init__(self, random: torch.Generator) -> None:
        self.random, self.device = random, random.device

    def rand(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self.random, device=self.device)

    def chosen(self, shape: tuple[int, ...], share: float) -> Tensor:
        return self.rand(shape) < share


@cache
def _shrunk(size: int, device: torch.device) -> Tensor:
    """Return matrices ``[STEPS + 1, size, size]`` that shrink and enlarge a line of pixels; the last is the identity.

    Shrinking and enlarging are linear, so one matrix, applied to rows and columns, does both. Each face of a batch can
    have its own matrix.
    """
    line = torch.eye(size)[:, None, None]  # one image for each pixel, in which only that pixel is set
    found = []
    for step in range(STEPS):
        small = max(round(size * (COARSEST + (FINEST - COARSEST) * (step + 0.5) / STEPS)), 1)
        shrunk = functional.interpolate(line, size=(1, small), mode="bilinear", antialias=True)
        found.append(functional.interpolate(shrunk, size=(1, size), mode="bilinear")[:, 0, 0].T)
    return torch.stack([*found, torch.eye(size)]).to(device)


def _coarsen(faces: Tensor, how: Augmentation, random: torch.Generator) -> Tensor:
    """Reduce some faces' resolution to as little as 0.35 of the side, and add a random amount of noise to each."""
    draw, count = _Draw(random), len(faces)
    step = (draw.rand((count,)) * STEPS).long()
    chosen = draw.chosen((count,), how.coarse)
    amount = how.noise * draw.rand((count, 1, 1, 1)) ** 2
    noise = torch.randn(faces.shape, generator=random, device=faces.device) * amount
    matrix = _shrunk(faces.shape[-1], faces.device)[torch.where(chosen, step, STEPS)]
    return (matrix @ faces[:, 0] @ matrix.mT)[:, None] + noise


def _cover(faces: Tensor, how: Augmentation, random: torch.Generator) -> Tensor:
    """Fill a rectangle with uniform grey; each side is 1/8 to 2/5 of the face's side."""
    draw, (count, size) = _Draw(random), (len(faces), faces.shape[-1])
    extent = (draw.rand((count, 2)) * 0.3 + 0.12) * size
    start = draw.rand((count, 2)) * (size - extent)
    grey = draw.rand((count, 1, 1)) * 255
    chosen = draw.chosen((count,), how.erase)
    position = torch.arange(size, device=faces.device) + 0.5
    inside = (position >= start[..., None]) & (position < (start + extent)[..., None])  # [N, 2, size]: rows, columns
    covered = inside[:, 0, :, None] & inside[:, 1, None, :] & chosen[:, None, None]
    return torch.where(covered[:, None], grey[:, None], faces)


def main() -> None:
    """Draw some faces, and each of them in several augmented versions."""
    from training import data, pictures, recipe  # noqa: PLC0415 - only this command draws

    parser = argparse.ArgumentParser(description="Show what augmentation does.")
    data.add_arguments(parser, plus=False)
    parser.add_argument("--output", type=Path, default=Path("runs/data/augmented.png"), help="the picture")
    arguments = parser.parse_args()
    try:
        faces = data.load(arguments.data)
    except SourceError as error:
        raise SystemExit(str(error)) from error
    random = torch.Generator().manual_seed(0)
    rows = {}
    for i in torch.randperm(len(faces), generator=random)[:6].tolist():
        face = torch.from_numpy(faces.images[i]).float().expand(11, 1, -1, -1)
        ways = augment(face, data.SIDE, recipe.Augmentation(), random)
        rows[f"row {i}"] = torch.cat([face[:1], ways])[:, 0].byte().numpy()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    pictures.sheet(arguments.output, rows)
    print(arguments.output)


if __name__ == "__main__":
    main()
