"""Which faces are the same picture? FER2013 holds many twice, and its splits share some.

    python -m training.duplicates data/fer2013.csv      # how many; runs/data/duplicates.png to judge the threshold by

Two faces are near-copies if they look the same when blurred and shrunk to 16x16, mirrored or not: the correlation of
their pixels is above `ALIKE`, whatever their light and contrast. Of pairs at 0.97 and above nearly all are the same
photograph, cut a little differently or with a watermark; at 0.96 two in three are; at 0.95 half are of other people.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.errors import FerStreamError
from training import data

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.data import Faces

ALIKE = 0.96
"""Correlation from which two faces are taken for the same picture: a few that are not are a small price."""


def likeness(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return each image's highest correlation with one of the others, mirrored or not, and which one that is.

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
    """Return which of the others each face is a near-copy of, int64 ``[N]``; -1 where it is of none."""
    if not len(of):
        return np.full(len(faces), -1)
    alike, which = likeness(faces.images, of.images)
    return np.where(alike > ALIKE, which, -1)


def near_copies(faces: Faces, of: Faces) -> NDArray[np.bool_]:
    """Return which of the faces are near-copies of one of the others, bool ``[N]``."""
    return copied(faces, of) >= 0


def _fingerprints(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = [
        cv2.resize(cv2.GaussianBlur(image, (0, 0), 1.5), (16, 16), interpolation=cv2.INTER_AREA).reshape(-1)
        for image in np.ascontiguousarray(images)
    ]
    rows = np.array(small, np.float32).reshape(len(images), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows


def main() -> None:
    """Count the near-copies of PublicTest in Training, and draw some by how alike they are."""
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
