"""Measures a classifier's run time and another one's, alternately, because a machine's speed drifts."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fer_stream.types import Box, Face

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.inference.classifiers.onnx import OnnxClassifier

CROWD = 8
"""Faces in the larger of the two pictures."""

HEIGHT, WIDTH = 480, 640


class Cost(NamedTuple):
    """Milliseconds for each face: of one that is alone in a picture, and of one among `CROWD`."""

    alone: float
    crowd: float


def measure(classifiers: Sequence[OnnxClassifier], seconds: float = 4.0) -> list[Cost]:
    """Return the cost of each classifier: the median of alternating runs, for about ``seconds``."""
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    boxes = [Box(20.0 + 70 * at, 100.0, 110.0 + 70 * at, 220.0) for at in range(CROWD)]
    faces = [Face(box, 1.0) for box in boxes]
    groups = (faces[:1], faces)
    times: list[list[list[float]]] = [[[] for _ in groups] for _ in classifiers]
    for classifier in classifiers:  # the first run is slow
        classifier.assess(picture, faces)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times[0][0]:
        for classifier, found in zip(classifiers, times, strict=True):
            for group, runs in zip(groups, found, strict=True):
                before = time.perf_counter()
                classifier.assess(picture, group)
                runs.append(1000 * (time.perf_counter() - before) / len(group))
    return [Cost(*(median(runs) for runs in found)) for found in times]
