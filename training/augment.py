"""What a batch goes through before the net sees it. All faces of a batch at once, each in its own way.

python -m training.augment data/fer2013.csv         # runs/data/augmented.png: six faces, eleven ways each
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from fer_stream.errors import SourceError

if TYPE_CHECKING:
    from training.recipe import Augmentation


def augment(faces: Tensor, size: int, how: Augmentation, random: torch.Generator) -> Tensor:
    """Return the faces turned, scaled, shifted, mirrored, relit, made coarse and noisy, and partly covered.

    Args:
        faces: grey 0..255, float32 ``[N, 1, H, W]``.
        size: side of what is returned, in pixels.
        how: how far each change may go.
        random: where every draw comes from.

    Returns:
        float32 ``[N, 1, size, size]``, grey 0..255.
    """
    moved = _move(faces, size, how, random)
    relit = _relight(moved, how, random)
    coarse = _coarsen(relit, how, random)
    return _cover(coarse, how, random).clamp(0, 255)


def mixup(faces: Tensor, targets: tuple[Tensor, ...], alpha: float, random: torch.Generator) -> tuple[Tensor, ...]:
    """Blend each face, and each of its targets, with another of the batch (Zhang et al. 2017, arXiv:1710.09412).

    Args:
        faces: float32 ``[N, ...]``.
        targets: float32 ``[N, ...]`` each.
        alpha: the blend is drawn from Beta(alpha, alpha), once for the batch.
        random: where every draw comes from.

    Returns:
        The faces and the targets, blended.
    """
    partner = torch.randperm(len(faces), generator=random)
    share = _beta(alpha, random)
    return tuple(torch.lerp(value[partner], value, share) for value in (faces, *targets))


def _beta(alpha: float, random: torch.Generator) -> float:
    """Draw from Beta(alpha, alpha) by Jöhnk's method: quick for an alpha of up to 2 or so."""
    while True:
        one, other = (torch.rand(2, generator=random, dtype=torch.float64) ** (1 / alpha)).tolist()
        if 0 < one + other <= 1:
            return float(one / (one + other))


def _move(faces: Tensor, size: int, how: Augmentation, random: torch.Generator) -> Tensor:
    count = len(faces)
    angle = _even(count, math.radians(how.rotation), random)
    across = torch.exp(_even(count, how.scale, random))
    stretch = torch.exp(_even(count, how.stretch, random))
    mirror = torch.where(torch.rand(count, generator=random) < 0.5, -1.0, 1.0)

    # Row by row what leads from a place in the result to a place in the face; both reach from -1 to 1.
    matrix = torch.empty(count, 2, 3)
    matrix[:, 0, 0] = angle.cos() * across * stretch * mirror
    matrix[:, 0, 1] = -angle.sin() * across
    matrix[:, 1, 0] = angle.sin() * across * mirror
    matrix[:, 1, 1] = angle.cos() * across / stretch
    matrix[:, :, 2] = _even((count, 2), 2 * how.shift, random)
    grid = functional.affine_grid(matrix, [count, 1, size, size], align_corners=False)
    return functional.grid_sample(faces, grid, padding_mode="border", align_corners=False)


def _relight(faces: Tensor, how: Augmentation, random: torch.Generator) -> Tensor:
    contrast = torch.exp(_even((len(faces), 1, 1, 1), how.contrast, random))
    brightness = _even((len(faces), 1, 1, 1), how.brightness, random)
    mean = faces.mean(dim=(1, 2, 3), keepdim=True)
    return (faces - mean) * contrast + mean + brightness


def _coarsen(faces: Tensor, how: Augmentation, random: torch.Generator) -> Tensor:
    """Make some faces as coarse as one of down to 0.35 of the side, and add each face's own amount of noise."""
    count, size = len(faces), faces.shape[-1]
    small = round(size * (0.35 + 0.55 * float(torch.rand((), generator=random))))  # one size for the batch
    shrunk = functional.interpolate(faces, size=(small, small), mode="bilinear", antialias=True)
    blurred = functional.interpolate(shrunk, size=(size, size), mode="bilinear")
    chosen = torch.rand(count, 1, 1, 1, generator=random) < how.coarse
    amount = how.noise * torch.rand(count, 1, 1, 1, generator=random) ** 2
    noise = torch.randn(faces.shape, generator=random) * amount
    return torch.where(chosen, blurred, faces) + noise


def _cover(faces: Tensor, how: Augmentation, random: torch.Generator) -> Tensor:
    """Blot out a rectangle of an eighth to two fifths of the side each way, in an even grey."""
    count, size = len(faces), faces.shape[-1]
    extent = (torch.rand(count, 2, generator=random) * 0.3 + 0.12) * size
    start = torch.rand(count, 2, generator=random) * (size - extent)
    grey = torch.rand(count, 1, 1, generator=random) * 255
    chosen = torch.rand(count, generator=random) < how.erase
    place = torch.arange(size) + 0.5
    inside = (place >= start[..., None]) & (place < (start + extent)[..., None])  # [N, 2, size]: rows, columns
    covered = inside[:, 0, :, None] & inside[:, 1, None, :] & chosen[:, None, None]
    return torch.where(covered[:, None], grey[:, None], faces)


def _even(shape: int | tuple[int, ...], most: float, random: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=random) * 2 - 1) * most


def main() -> None:
    """Draw some faces and what becomes of them."""
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
