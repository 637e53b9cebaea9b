"""Synthetic tracks with known ground truth: held-out faces that move, blur, blink, go missing and change expression.

A track shows several faces one after the other, each for two to twenty seconds. The person changes with the expression,
which is harder than a camera's picture. The faces are those of a split on whose label at least `AGREED` of FER+'s ten
annotators agree. Each is equally likely, except that the label must change. Labels are not equally likely: annotators
agree on few faces of disgust and fear, and a single such face would dominate the figures. While a face is shown

- it is shifted, scaled and rotated along a smooth path, with independent noise in each view;
- at random times it is blurred briefly, as by a quick movement or from far away;
- at random times one to three frames show another face, as by a wrong detection, a hand or a blink;
- single frames and up to a second of frames are missing, and frame intervals are uneven;
- a change of expression takes a quarter of a second, in which the scores of both faces are blended.

`training.smoothing` compares smoothers on these tracks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.errors import SourceError
from fer_stream.imaging import quality
from training import data

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.data import Faces

AGREED = 8
"""Minimum number of FER+'s ten annotators who agree on a label."""

SHARP, BLURRED = 12, 6
"""Number of sharp and of blurred views on a face's path."""

LENGTH = 60.0
"""Length of a track in seconds."""

STAY = (2.0, 20.0)
"""Shortest and longest time in seconds for which an expression is shown."""

CHANGE = 0.25
"""Duration of a change of expression in seconds."""

SMILE, PAUSE = (2.0, 4.0), 1.5
"""Shortest and longest smile in a track of `smiles`, and the time between two smiles, in seconds."""

SURE = 0.9
"""The probability that a model that is never wrong gives to the label."""

WRONG, BLUR, GAP, MISSING = 0.2, 0.15, 0.08, 0.05
"""Number of wrong faces, blurs and gaps per second, and share of single frames that are missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """A model's scores for many faces, each in several views along a closed path.

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
    """One track: ``times`` in seconds, float64 ``[T]``, with each frame's scores ``[T, C]`` and quality ``[T]``.

    ``truth`` is the ground truth: ``(label, start, end)`` in order, without gaps.
    """

    times: NDArray[np.float64]
    scores: NDArray[np.float64]
    quality: NDArray[np.float64]
    truth: list[tuple[int, float, float]]


Script = Callable[[Pool, np.random.Generator], tuple[list[tuple[int, float, float]], list[int]]]
"""Draws the truth of a track (see `Track`), and for each part of it the index of its face in the pool."""


def clear_faces(faces: Faces) -> tuple[Faces, NDArray[np.int64]]:
    """Return the faces on which at least `AGREED` annotators agree, and the label that they gave, int64 ``[N]``.

    Raises:
        SourceError: there are no votes.
    """
    if faces.votes is None:
        raise SourceError("FER+'s votes are needed to select clear faces: give their file with --plus")
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
    """Predict all views of some faces.

    Args:
        images: uint8 ``[N, 48, 48]``.
        labels: int64 ``[N]``.
        predict: returns probabilities, float64 ``[M, C]``, of faces, uint8 ``[M, 48, 48]``.
        seed: seed of the paths and the noise.
    """
    random = np.random.default_rng(seed)
    scores, qualities = [], []
    for image in images:
        seen = _views(image, random)
        scores.append(predict(seen))
        qualities.append([quality.judge_sharpness(view) for view in seen])
    return Pool(np.array(scores, np.float64), np.array(qualities), labels)


def make_track(pool: Pool, rate: float, random: np.random.Generator, script: Script | None = None) -> Track:
    """Return a track of about ``rate`` frames/s; ``script`` is `expressions` by default."""
    times = _times(rate, random)
    truth, faces = (script or expressions)(pool, random)
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


def perfect(pool: Pool) -> Pool:
    """Return the pool with the scores of a model that is never wrong: `SURE` for each face's label, in every view.

    The scores' columns become those of `training.data.LABELS`.
    """
    faces, views = pool.scores.shape[:2]
    scores = np.full((faces, views, len(data.LABELS)), (1 - SURE) / (len(data.LABELS) - 1))
    scores[np.arange(faces), :, pool.labels] = SURE
    return Pool(scores, pool.quality, pool.labels)


def expressions(pool: Pool, random: np.random.Generator) -> tuple[list[tuple[int, float, float]], list[int]]:
    """Draw expressions with their times, and for each the index of its face; all faces are equally likely."""
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


def smiles(pool: Pool, random: np.random.Generator) -> tuple[list[tuple[int, float, float]], list[int]]:
    """Draw smiles of one face, `SMILE` seconds long, with another, neutral face for `PAUSE` seconds between them.

    Raises:
        ValueError: the pool has no happy or no neutral face.
    """
    shown = (np.flatnonzero(pool.labels == data.LABELS.index(name)) for name in ("happy", "neutral"))
    happy, neutral = (int(random.choice(each)) for each in shown)
    truth: list[tuple[int, float, float]] = []
    faces: list[int] = []
    end = 0.0
    while end < LENGTH:
        smiling = not faces or faces[-1] == neutral
        faces.append(happy if smiling else neutral)
        start, end = end, end + (random.uniform(*SMILE) if smiling else PAUSE)
        truth.append((int(pool.labels[faces[-1]]), start, min(end, LENGTH)))
    return truth, faces


def _moments(
    times: NDArray[np.float64], often: float, lasting: tuple[float, float], random: np.random.Generator
) -> NDArray[np.bool_]:
    """Return at which times a random period is active, bool ``[T]``: ``often`` per second, of ``lasting`` seconds."""
    found = np.zeros(len(times), bool)
    for start in random.uniform(0, LENGTH, random.poisson(often * LENGTH)):
        found |= (times >= start) & (times < start + random.uniform(*lasting))
    return found
