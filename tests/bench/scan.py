"""Measure a search of a whole picture, compared with facenet-pytorch's; each in one thread, in turn.

    python tests/bench/scan.py ../shared/media/facenet_video.mp4

For 1080p and 640x480, with a minimum face size of 40 pixels, it prints CPU milliseconds per picture, the ratio, and
whether the boxes are the same (the number of matching faces, and their mean IoU).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import theirs

from fer_stream.imaging.geometry import overlap
from fer_stream.inference.detectors import mtcnn
from fer_stream.settings.tree import DetectorSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.plugins import Detector
    from fer_stream.types import Face


def pictures(video: Path, step: int) -> list[NDArray[np.uint8]]:
    """Return every ``step``-th picture of a video."""
    source, found = cv2.VideoCapture(str(video)), []
    while True:
        there, image = source.read()
        if not there:
            return found[::step]
        found.append(image)


def timed(detector: Detector, image: NDArray[np.uint8]) -> tuple[float, list[Face]]:
    """Return the CPU milliseconds of a search, and the faces."""
    before = time.process_time()
    faces = detector.detect(image)
    return 1e3 * (time.process_time() - before), faces


def main() -> None:
    """Measure at both sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    detectors = mtcnn.load(DetectorSettings()), theirs.detector()
    images = pictures(arguments.video, 8)
    for size in ((1920, 1080), (640, 480)):
        costs: tuple[list[float], list[float]] = ([], [])
        overlaps, found, expected = [], 0, 0
        for number, whole in enumerate([images[0], *images]):
            image = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
            (a, mine), (b, other) = (timed(detector, image) for detector in detectors)  # type: ignore[arg-type]
            if number:  # the first round is a warm-up
                costs[0].append(a)
                costs[1].append(b)
                found, expected = found + len(mine), expected + len(other)
                overlaps += [max((overlap(face.box, its.box) for its in mine), default=0.0) for face in other]
        a, b = map(statistics.median, costs)
        print(
            f"{size[0]}x{size[1]}: ours {a:.1f} ms ({min(costs[0]):.1f} to {max(costs[0]):.1f}), "
            f"facenet-pytorch {b:.1f} ({min(costs[1]):.1f} to {max(costs[1]):.1f}): {b / a:.1f}x; "
            f"{found} faces of {expected}, mean IoU {statistics.mean(overlaps):.4f}"
        )


if __name__ == "__main__":
    main()
