"""Find faces that are the same picture. FER2013 contains many twice, and its splits share some.

    python -m training.duplicates data/fer2013.csv      # counts; runs/data/duplicates.png shows pairs by correlation

Two faces are near-copies if, blurred and shrunk to 16x16, one mirrored or not, the correlation of their pixels is above
`ALIKE`. Brightness and contrast do not matter. Of pairs at 0.97 and above nearly all are the same photograph, cropped
slightly differently or with a watermark; at 0.96 two in three are; at 0.95 half show different people.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_stream.errors import FerStreamError
from training import data

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.data import Faces

ALIKE = 0.96
"""Correlation above which two faces count as the same picture; a few false matches are acceptable."""

SMALL = 16
"""Side of the compared pictures, in pixels."""


def likeness(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return each image's highest correlation with one of the others, mirrored or not, and the index of that one.

    Args:
        images: uint8 ``[N, 48, 48]``.
        others: uint8 ``[M, 48, 48]``, at least one.

    Returns:
        float32 ``[N]`` in -1..1, int64 ``[N]``.
    """
    known = np.concatenate([_fingerprints(others), _fingerprints(others[:, :, ::-1])])
    highest, which = [], []
    for part in np.array_split(_fingerprints(images), max(len(images) // 1000, 1)):
        alike = part @ known.T
        highest.append(alike.max(axis=1))
        which.append(alike.argmax(axis=1) % len(others))
    return np.concatenate(highest), np.concatenate(which)


def copied(faces: Faces, of: Faces) -> NDArray[np.int64]:
    """Return the index in ``of`` of the face that each face is a near-copy of, int64 ``[N]``; -1: of none."""
    if not len(of):
        return np.full(len(faces), -1)
    alike, which = likeness(faces.images, of.images)
    return np.where(alike > ALIKE, which, -1)


def near_copies(faces: Faces, of: Faces) -> NDArray[np.bool_]:
    """Return whether each face is a near-copy of one in ``of``, bool ``[N]``."""
    return copied(faces, of) >= 0


def _fingerprints(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return each image blurred, shrunk to 16x16 and normalised, float32 ``[N, 256]``."""
    blur, shrink = _blur(images.shape[-1]), _shrink(images.shape[-1])
    rows = np.empty((len(images), SMALL * SMALL), np.float32)
    for i in range(0, len(images), 1000):
        blurred = (blur @ images[i : i + 1000].astype(np.float32) @ blur.T).round()
        rows[i : i + 1000] = (shrink @ blurred @ shrink.T).round().reshape(-1, SMALL * SMALL)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows


def _blur(side: int) -> NDArray[np.float32]:
    """Return the matrix that blurs a line of pixels with a Gaussian of 1.5 pixels, mirrored at its ends."""
    reach = 5
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * 1.5**2))
    weights = np.round(weights / weights.sum() * 256) / 256
    matrix = np.zeros((side, side))
    for i in range(side):
        for at, weight in zip(range(i - reach, i + reach + 1), weights, strict=True):
            inside = abs(at) if at < side else 2 * (side - 1) - at
            matrix[i, inside] += weight
    return matrix.astype(np.float32)


def _shrink(side: int) -> NDArray[np.float32]:
    """Return the matrix that shrinks a line of pixels to `SMALL` pixels, each the mean of the pixels it covers."""
    edges = np.arange(SMALL + 1) * side / SMALL
    at = np.arange(side)
    covered = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    matrix: NDArray[np.float32] = (covered.clip(min=0) * SMALL / side).astype(np.float32)
    return matrix


def main() -> None:
    """Count the near-copies of PublicTest in Training, and draw some, ordered by correlation."""
    from training import pictures  # noqa: PLC0415 - matplotlib is slow to import, and only this command draws

    parser = argparse.ArgumentParser(description="Find the faces that are the same picture.")
    data.add_arguments(parser, plus=False)
    parser.add_argument("--output", type=Path, default=Path("runs/data/duplicates.png"), help="the picture")
    arguments = parser.parse_args()
    try:
        faces = data.load(arguments.data)
        learnt, public = faces.split(data.TRAINING), faces.split(data.PUBLIC)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error
    alike, which = likeness(public.images, learnt.images)
    near = alike > ALIKE
    same = (learnt.labels[which] == public.labels)[near]
    print(
        f"{near.sum()} of {len(public)} {data.PUBLIC} faces have a near-copy in {data.TRAINING}, {same.sum()} with the "
        f"same label; {near_copies(learnt, public).sum()} of {len(learnt)} {data.TRAINING} faces are near-copies"
    )
    rows = {}
    for least, most in zip((0.99, 0.98, 0.97, 0.96, 0.95, 0.94), (1.1, 0.99, 0.98, 0.97, 0.96, 0.95), strict=True):
        shown = np.flatnonzero((alike > least) & (alike <= most))[:6]
        pairs = np.stack([public.images[shown], learnt.images[which[shown]]], axis=1)
        if len(shown):
            rows[f"above {least}"] = pairs.reshape(-1, data.SIDE, data.SIDE)
    if not rows:
        return
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    pictures.sheet(arguments.output, rows)
    print(arguments.output)


if __name__ == "__main__":
    main()
