"""Frames per second of one process that computes 1, 2, 4 ... 32 frames together: ``[--provider NAME] [--seconds S]``.

The pictures are scenes of 1280x720 pixels with four faces, each at other places. `searched` looks through the whole
picture, `followed` looks at the four known faces, as most frames of a camera are processed. The sizes run in turns, and
the ratio is to one frame at a time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np

from fer_stream.inference import batching
from fer_stream.inference.recognizer import Recognizer
from fer_stream.settings.tree import load
from fer_stream.types import Expected, Hints

ASSETS = Path(batching.__file__).parents[1] / "assets"
SIZES = (1, 2, 4, 8, 16, 32)
ROUNDS = 3


def scenes(count: int) -> list[np.ndarray]:
    """Return pictures with four portraits each, at random places of a grey wall."""
    numbers = np.random.default_rng(0)
    portraits = [cv2.imread(str(path)) for path in sorted(ASSETS.glob("*.jpg"))]
    made = []
    for _ in range(count):
        scene = np.full((720, 1280, 3), 127, np.uint8)
        for column in range(4):
            portrait = portraits[int(numbers.integers(len(portraits)))]
            assert portrait is not None
            face = cv2.resize(portrait, (240, 300), interpolation=cv2.INTER_AREA)
            x, y = column * 320 + int(numbers.integers(80)), int(numbers.integers(420))
            scene[y : y + 300, x : x + 240] = face
        made.append(scene)
    return made


def rate(recognizer: Recognizer, work: list[tuple[np.ndarray, Hints | None]], size: int, seconds: float) -> float:
    """Return the frames per second with so many frames together."""
    done, begin = 0, time.perf_counter()
    while (passed := time.perf_counter() - begin) < seconds:
        part = [work[(done + number) % len(work)] for number in range(size)]
        batching.together(lambda each: recognizer.recognize(*each), part)
        done += size
    return done / passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each of the three rounds of each size")
    arguments = parser.parse_args()
    flags = {"detector.provider": arguments.provider, "classifier.provider": arguments.provider}
    recognizer = Recognizer.from_settings(load(flags))
    pictures = scenes(32)
    found = [recognizer.recognize(picture).faces for picture in pictures]
    hints = [Hints(tuple(Expected(face.box, due=True) for face in faces)) for faces in found]
    kinds: dict[str, list[tuple[np.ndarray, Hints | None]]] = {
        "searched": [(picture, None) for picture in pictures],
        "followed": list(zip(pictures, hints, strict=True)),
    }
    print("| frames together | " + " | ".join(f"{kind}, frames/s | ratio" for kind in kinds) + " |")
    print("|---|" + "---|" * 2 * len(kinds))
    for size in SIZES:  # the first run of each shape is slow on an accelerator
        for work in kinds.values():
            rate(recognizer, work, size, 0.01)
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for kind, work in kinds.items():
            for size in SIZES:
                rates.setdefault((kind, size), []).append(rate(recognizer, work, size, arguments.seconds))
    medians = {key: statistics.median(values) for key, values in rates.items()}
    for size in SIZES:
        cells = [f"{medians[kind, size]:.1f} | {medians[kind, size] / medians[kind, 1]:.2f}" for kind in kinds]
        print(f"| {size} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
