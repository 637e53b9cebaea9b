"""Synthetic tracks whose truth is known: held-out faces that move, blur, blink, go missing and change expression.

A track is one face after another, each for two to twenty seconds: who is seen changes too, which makes it harder than a
camera does. The faces are those of a split whose label at least `AGREED` of FER+'s ten people share, each as likely as
any other but for those of the label before it: people agree on few faces of disgust and fear, and were each label as
likely, one such face would decide the figures. While one is shown

- it wanders: shifted, scaled and turned along a smooth path, each place with a little noise of its own;
- now and then it is blurred for a moment, as by a quick movement, or seen as from far away;
- at times one to three frames show another face altogether: a wrong detection, a hand, a blink;
- frames are missing, one by one and for up to a second, and come at uneven times;
- a change of expression takes a quarter of a second, in which both are half there.

`training.smoothing` measures on them what smoothers make of a model's scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.errors import SourceError
from fer_stream.imaging import quality
from training import data

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from training.data import Faces

AGREED = 8
"""Of FER+'s ten annotators."""

SHARP, BLURRED = 12, 6
"""Places on a face's path at which it is seen as it is, and blurred."""

LENGTH = 60.0
"""Seconds of a track."""

STAY = (2.0, 20.0)
"""Seconds that an expression is shown."""

CHANGE = 0.25
"""Seconds that a change of expression takes."""

WRONG, BLUR, GAP, MISSING = 0.2, 0.15, 0.08, 0.05
"""Wrong looks, blurs and gaps a second; share of the other frames that are missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """What a model says of many faces, each seen in several views along a closed path.

    ``scores`` is float64 ``[N, V, C]``, ``quality`` float64 ``[N, V]`` (see `fer_stream.imaging.quality`), ``labels``
    int64 ``[N]``; the first `SHARP` views are sharp, the others blurred.
    """

    scores: NDArray[np.float64]
    quality: NDArray[np.float64]
    labels: NDArray[np.int64]

    def __getitem__(self, rows: NDArray[np.bool_]) -> Pool:
        return Pool(self.scores[rows], self.quality[rows], self.labels[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One track: ``times`` in seconds, float64 ``[T]``, with the scores and quality of each frame, and the truth.

    The truth is ``(label, start, end)`` in order, without gaps.
    """

    times: NDArray[np.float64]
    scores: NDArray[np.float64]
    quality: NDArray[np.float64]
    truth: list[tuple[int, float, float]]


def clear_faces(faces: Faces) -> tuple[Faces, NDArray[np.int64]]:
    """Return the faces that most of FER+'s people agree on, and their label by these people, int64 ``[N]``.

    Raises:
        SourceError: there are no votes.
    """
    if faces.votes is None:
        raise SourceError("which labels to trust is in FER+'s votes: give their file with --plus")
    index = np.array([data.LABELS.index(name) if name in data.LABELS else -1 for name in data.PLUS_EMOTIONS])
    votes = faces.votes[:, : len(index)]
    label = index[votes.argmax(axis=1)]
    clear = (votes.max(axis=1) >= AGREED) & (label >= 0)
    return faces[clear], label[clear]


def make_pool(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    predict: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    seed: int = 0,
) -> Pool:
    """Show faces to a model in all their views.

    Args:
        images: uint8 ``[N, 48, 48]``.
        labels: int64 ``[N]``.
        predict: returns probabilities, float64 ``[M, C]``, of faces, uint8 ``[M, 48, 48]``.
        seed: of the paths and the noise.
    """
    random = np.random.default_rng(seed)
    scores, qualities = [], []
    for image in images:
        seen = _views(image, random)
        scores.append(predict(seen))
        qualities.append([quality.judge_sharpness(view) for view in seen])
    return Pool(np.array(scores, np.float64), np.array(qualities), labels)


def make_track(pool: Pool, rate: float, random: np.random.Generator) -> Track:
    """Return a track of about ``rate`` frames/s over faces drawn from a pool, each as likely as any other."""
    times = _times(rate, random)
    truth, faces = _script(pool, random)
    starts = np.array([start for _, start, _ in truth])
    segment = np.searchsorted(starts, times, side="right") - 1
    phase = (times * random.uniform(4, 8) + random.uniform(0, SHARP)).astype(int)
    view = np.where(_moments(times, BLUR, (0.2, 0.8), random), SHARP + phase % BLURRED, phase % SHARP)
    shown = np.array(faces)[segment]
    scores, qualities = pool.scores[shown, view], pool.quality[shown, view]
    share = np.clip((times - starts[segment]) / CHANGE, 0, 1)[:, None]
    before = pool.scores[np.array(faces)[np.maximum(segment - 1, 0)], view]
    scores = share * scores + (1 - share) * before
    wrong = _moments(times, WRONG, (0.5 / rate, 3 / rate), random)
    strangers = random.integers(0, len(pool.labels), len(times))
    scores[wrong], qualities[wrong] = pool.scores[strangers, view][wrong], pool.quality[strangers, view][wrong]
    kept = ~_moments(times, GAP, (0.2, 1.0), random) & (random.random(len(times)) >= MISSING)
    return Track(times[kept], scores[kept], qualities[kept], truth)


def _views(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    side, count = data.SIDE, SHARP + BLURRED
    turn, speed = random.uniform(0, 2 * np.pi, (4, 1)), random.integers(1, 4, (4, 1))
    path = np.sin(speed * 2 * np.pi * np.arange(count) / SHARP + turn)  # [4, views]: angle, scale, x, y
    found = []
    for i, (angle, scale, x, y) in enumerate(path.T):
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), 6 * angle, 1 + 0.06 * scale)
        matrix[:, 2] += 0.04 * side * x, 0.04 * side * y
        view = cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
        if i >= SHARP:
            view = cv2.GaussianBlur(view, (0, 0), random.uniform(1.5, 4))
        found.append(np.clip(view + random.normal(0, 4, view.shape), 0, 255).astype(np.uint8))
    return np.stack(found)


def _times(rate: float, random: np.random.Generator) -> NDArray[np.float64]:
    steps: NDArray[np.float64] = random.uniform(0.7, 1.3, round(LENGTH * rate)) / rate
    times: NDArray[np.float64] = np.cumsum(steps) - steps[0]
    return times


def _script(pool: Pool, random: np.random.Generator) -> tuple[list[tuple[int, float, float]], list[int]]:
    """Draw which expression is shown when, and by which face."""
    truth: list[tuple[int, float, float]] = []
    faces: list[int] = []
    end = 0.0
    while end < LENGTH:
        others = np.flatnonzero(pool.labels != truth[-1][0]) if truth else np.arange(len(pool.labels))
        face = int(random.choice(others))
        start, end = end, end + random.uniform(*STAY)
        truth.append((int(pool.labels[face]), start, min(end, LENGTH)))
        faces.append(face)
    return truth, faces


def _moments(
    times: NDArray[np.float64], often: float, lasting: tuple[float, float], random: np.random.Generator
) -> NDArray[np.bool_]:
    """Return at which times something goes on that begins ``often`` times a second, bool ``[T]``."""
    found = np.zeros(len(times), bool)
    for start in random.uniform(0, LENGTH, random.poisson(often * LENGTH)):
        found |= (times >= start) & (times < start + random.uniform(*lasting))
    return found
