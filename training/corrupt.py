"""Image corruptions as cameras cause them, at fixed strengths, to measure how much accuracy a model keeps.

python -m training.corrupt data/fer2013.csv         # runs/data/corrupted.png: six faces, with each corruption
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
    from collections.abc import Callable

    from numpy.typing import NDArray

    Image = NDArray[np.uint8]
    Change = Callable[[Image, np.random.Generator], Image]


def _blur(image: Image, _: np.random.Generator) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0), np.uint8)


def _noise(image: Image, random: np.random.Generator) -> Image:
    return np.clip(image + random.normal(0, 15, image.shape), 0, 255).astype(np.uint8)


def _darkness(image: Image, _: np.random.Generator) -> Image:
    return (image * 0.3).astype(np.uint8)


def _jpeg(image: Image, _: np.random.Generator) -> Image:
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)


def _occlusion(image: Image, random: np.random.Generator) -> Image:
    side = image.shape[0] // 2
    y, x = random.integers(0, image.shape[0] - side + 1, 2)
    covered = image.copy()
    covered[y : y + side, x : x + side] = 128
    return covered


def _small(image: Image, _: np.random.Generator) -> Image:
    small = cv2.resize(image, (24, 24), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def _moved(image: Image, random: np.random.Generator) -> Image:
    angle, way = random.uniform(0, 2 * np.pi), 0.1 * image.shape[0]
    matrix = np.array([[1, 0, way * np.cos(angle)], [0, 1, way * np.sin(angle)]])
    return _warp(image, matrix)


def _scaled(image: Image, random: np.random.Generator) -> Image:
    middle = (image.shape[0] - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), 0, random.choice([0.9, 1.1]))
    return _warp(image, np.asarray(matrix, np.float64))


def _warp(image: Image, matrix: NDArray[np.float64]) -> Image:
    return np.asarray(cv2.warpAffine(image, matrix, image.shape[::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8)


CORRUPTIONS: dict[str, Change] = {
    "blurred (1 pixel)": _blur,
    "noisy (15 grey levels)": _noise,
    "dark (30% of the light)": _darkness,
    "JPEG of quality 20": _jpeg,
    "a quarter covered": _occlusion,
    "enlarged from 24 pixels": _small,
}

MISPLACED: dict[str, Change] = {"box moved by 10%": _moved, "box scaled by 10%": _scaled}


def apply(change: Change, images: Image, seed: int = 0) -> Image:
    """Return the corrupted faces, uint8 ``[N, H, W]``; the result depends only on the faces and the seed."""
    random = np.random.default_rng(seed)
    return np.stack([change(image, random) for image in images])


def main() -> None:
    """Draw some faces with each corruption."""
    from training import pictures  # noqa: PLC0415 - only this command draws

    parser = argparse.ArgumentParser(description="Show what the corruptions do.")
    data.add_arguments(parser, plus=False)
    parser.add_argument("--output", type=Path, default=Path("runs/data/corrupted.png"), help="the picture")
    arguments = parser.parse_args()
    try:
        faces = data.load(arguments.data)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error
    shown = faces.images[np.random.default_rng(0).permutation(len(faces))[:6]]
    rows = {name: apply(change, shown) for name, change in (CORRUPTIONS | MISPLACED).items()}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    pictures.sheet(arguments.output, {"as it is": shown} | rows)
    print(arguments.output)


if __name__ == "__main__":
    main()
