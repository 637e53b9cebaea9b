"""Compare an execution provider with the CPU provider: the same faces, the same labels, and at what cost.

    python tests/bench/providers.py openvino ../shared/media/*.* --faces data/fer2013.csv --plus data/fer2013new.csv

For each clip it prints how many faces both find, how far the edges of their boxes differ, and milliseconds for each
picture (min_face 40). With --faces: for each included classifier, the accuracy on FER2013's PublicTest, how far
probabilities differ, and milliseconds for each face, alone and in batches. Runs alternate; milliseconds are medians.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from scan import pictures

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import processors

from fer_stream.imaging.geometry import overlap
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.inference.detectors.mtcnn import MTCNN
from training import data

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fer_stream.types import Face

MODELS = "emotion-ferplus.onnx", "emotion.onnx", "emotion-tiny.onnx"


class Found(NamedTuple):
    """What two detectors found in the same pictures."""

    both: int
    only: tuple[int, int]
    """Faces that only one of them found."""
    pixels: float
    """Largest difference of an edge of a face that both found."""


def compared(pairs: Iterable[tuple[list[Face], list[Face]]]) -> Found:
    """Compare the faces of two detectors, picture by picture; the same face has an IoU above 0.5."""
    both, only, pixels = 0, [0, 0], 0.0
    for ours, theirs in pairs:
        rest = list(theirs)
        for face in ours:
            other = max(rest, key=lambda other: overlap(face.box, other.box), default=None)
            if other is None or overlap(face.box, other.box) <= 0.5:
                only[0] += 1
                continue
            rest.remove(other)
            both += 1
            pixels = max(pixels, *(abs(a - b) for a, b in zip(face.box, other.box, strict=True)))
        only[1] += len(rest)
    return Found(both, (only[0], only[1]), pixels)


def detectors(provider: str, images: list[NDArray[np.uint8]]) -> tuple[Found, float, float]:
    """Search each picture on the CPU and with a provider: what they find, and milliseconds for each picture."""
    pair = MTCNN(), MTCNN(provider=provider)
    found: tuple[list[list[Face]], list[list[Face]]] = ([], [])
    times: tuple[list[float], list[float]] = ([], [])
    for number, image in enumerate([images[0], *images]):
        for detector, faces, costs in zip(pair, found, times, strict=True):
            before = time.perf_counter()
            seen = detector.detect(image)
            if number:  # the first round is a warm-up
                costs.append(1e3 * (time.perf_counter() - before))
                faces.append(seen)
    return compared(zip(*found, strict=True)), median(times[0]), median(times[1])


def classifiers(name: str, provider: str, faces: data.Faces) -> str:
    """Classify the faces on the CPU and with a provider, in batches and one by one."""
    pair = OnnxClassifier(Path(name)), OnnxClassifier(Path(name), provider)
    crops = faces.images.astype(np.float32)
    parts: list[list[NDArray[np.float32]]] = [[], []]
    times: list[dict[int, list[float]]] = [{1: [], 16: []}, {1: [], 16: []}]
    for start in range(0, len(crops), 16):
        for classifier, rows, costs in zip(pair, parts, times, strict=True):
            for size in costs:
                before = time.perf_counter()
                row = classifier.run(crops[start : start + size])
                costs[size].append(1e3 * (time.perf_counter() - before) / len(row))
            rows.append(row)
    ours, theirs = map(np.concatenate, parts)
    labels = data.labels_of(faces, pair[0].labels)
    right = [100 * float(np.mean((rows.argmax(1) == labels)[labels >= 0])) for rows in (ours, theirs)]
    same = 100 * float(np.mean(ours.argmax(1) == theirs.argmax(1)))
    differ = np.abs(ours - theirs)
    costs_text = ", ".join(
        f"{median(times[0][size]):.2f} and {median(times[1][size]):.2f} ms ({'alone' if size == 1 else f'of {size}'}: "
        f"{median(times[1][size]) / median(times[0][size]):.2f})"
        for size in (1, 16)
    )
    return (
        f"{name}: {(labels >= 0).sum()} faces, {right[0]:.2f}% and {right[1]:.2f}% right, {same:.2f}% the same label, "
        f"probabilities differ by {differ.max():.4f} at most, {differ.mean():.5f} on average; {costs_text}"
    )


def main() -> None:
    """Compare on clips, and on faces."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("provider")
    parser.add_argument("clips", type=Path, nargs="*")
    parser.add_argument("--faces", type=Path, metavar="DATA", help="FER2013, as for training.evaluate")
    parser.add_argument("--plus", type=Path, metavar="CSV", help="FER+'s votes")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.provider == "openvino" and not processors.intel():
        processors.need_openvino()
        print("not a processor of Intel: onnxruntime is told that it is one")
    for clip in arguments.clips:
        images = pictures(clip, 2)
        found, cpu, other = detectors(arguments.provider, images)
        print(
            f"{clip.name}: {len(images)} pictures, {found.both} faces found by both, {found.only[0]} by the CPU alone, "
            f"{found.only[1]} by {arguments.provider} alone; boxes differ by {found.pixels:.4f} pixels at most; "
            f"{cpu:.1f} and {other:.1f} ms a picture ({other / cpu:.2f})",
            flush=True,
        )
    if arguments.faces:
        faces = data.load(arguments.faces, arguments.plus).split(data.PUBLIC)
        for name in MODELS:
            print(classifiers(name, arguments.provider, faces), flush=True)


if __name__ == "__main__":
    main()
