"""A classifier in an ONNX file. What the file's metadata do not say is in a sidecar beside it.

`fer_stream.inference.classifiers.contract` has what can be said, `examination` beside it compares that with the file,
and `plan` runs the model. This module cuts the faces out.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from fer_stream.errors import ModelError
from fer_stream.imaging.geometry import roll
from fer_stream.imaging.pixels import pixels
from fer_stream.imaging.yuv import Yuv, bgr, grey
from fer_stream.inference import models
from fer_stream.inference.classifiers.examination import examine
from fer_stream.inference.classifiers.plan import BATCH

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fer_stream.inference.classifiers.plan import Plan
    from fer_stream.settings.tree import ClassifierSettings
    from fer_stream.types import Box, Face

DEFAULT = "emotion-ferplus.onnx"
"""The shipped model that is better on faces in video (`models/emotion.md`)."""

UPRIGHT = 5.0
"""Degrees of a head's lean that remain in the crop: the shipped models were trained on faces that lean a little, and
recognise slightly more of them than with a fully upright crop (`training.turned`)."""

FINER = 2
"""How much finer a turned square is interpolated than the model's input."""


def load(settings: ClassifierSettings) -> OnnxClassifier:
    """Return the classifier that the settings name (the entry point).

    Raises:
        ModelError: the file is missing or breaks the contract; the message says which part of it.
    """
    return OnnxClassifier(settings.model, settings.provider)


@dataclass(frozen=True, slots=True)
class Crop:
    """The square region that a model expects, relative to a detector's box. Measured by ``training/crop.py``.

    ``x`` and ``y`` are the offset of the square's centre from the box's centre, ``side`` is the square's side, all in
    units of the box's size ``sqrt(width * height)``. If there are ``points``, the square is placed so that a face's
    landmarks come closest to them; they are in fractions of the square's side. The box is then only used for a face
    without landmarks.
    """

    x: float
    y: float
    side: float
    points: tuple[tuple[float, float], ...] = ()

    @classmethod
    def from_json(cls, text: str) -> Crop:
        """Return the crop that ``text`` describes.

        Raises:
            ValueError: ``text`` is not an object of three finite numbers, or the side is not positive.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or set(value) != {"x", "y", "side"}:
            raise ValueError("it must be an object of x, y and side")
        most = sys.float_info.max  # also excludes integers too large for a float
        if not all(type(number) in (int, float) and abs(number) <= most for number in value.values()):
            raise ValueError("x, y and side must be finite numbers")
        if value["side"] <= 0:
            raise ValueError("side must be positive")
        return cls(**value)

    def to_json(self) -> str:
        """Return the JSON text that `from_json` takes."""
        return json.dumps({"x": self.x, "y": self.y, "side": self.side})

    def square(self, box: Box, landmarks: Sequence[tuple[float, float]] = ()) -> Square:
        """Return the model's square in the image for a detector's box, turned with the line through the eyes.

        A lean of up to `UPRIGHT` degrees remains in the crop, and that many of a larger one. With ``points`` none does.
        """
        if len(landmarks) == len(self.points) > 0 and (fitted := _fitted(self.points, landmarks)).side >= 1:
            return fitted
        lean = roll(landmarks)
        angle = math.copysign(max(abs(lean) - UPRIGHT, 0.0), lean)
        size = math.sqrt(max(box.x2 - box.x1, 1.0) * max(box.y2 - box.y1, 1.0))
        side, cosine, sine = self.side * size, math.cos(math.radians(angle)), math.sin(math.radians(angle))
        x = (box.x1 + box.x2) / 2 + (self.x * cosine - self.y * sine) * size - side / 2
        y = (box.y1 + box.y2) / 2 + (self.x * sine + self.y * cosine) * size - side / 2
        return Square(x, y, side, angle)


class Square(NamedTuple):
    """A square in an image: left edge, top edge and side, in pixels, before it is turned around its centre.

    ``angle`` is in degrees, clockwise as seen in the picture.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0


def _fitted(points: Sequence[tuple[float, float]], landmarks: Sequence[tuple[float, float]]) -> Square:
    """Return the square in which landmarks come closest to points in the unit square, by least squares.

    It is the similarity transform of S. Umeyama, "Least-squares estimation of transformation parameters between two
    point patterns", IEEE TPAMI 13(4), 1991. In the plane it is a complex factor and an offset.
    """
    wanted, found = (np.asarray(each, np.float64) @ (1, 1j) for each in (points, landmarks))
    spread = wanted - wanted.mean()
    factor = np.vdot(spread, found) / np.vdot(spread, spread)
    centre, side = complex(found.mean() + factor * (0.5 + 0.5j - wanted.mean())), float(abs(factor))
    return Square(centre.real - side / 2, centre.imag - side / 2, side, math.degrees(np.angle(factor)))


class OnnxClassifier:
    """A classifier in an ONNX file, given by its path or by the name of a shipped file; by default `DEFAULT`.

    ``labels``, ``measures``, ``version`` and ``crop`` come from the file's metadata and its sidecar, ``digest`` is that
    of `models.Model`.

    Raises:
        ModelError: the file is missing or breaks the contract; the message says which part of it.
    """

    def __init__(self, path: Path | None = None, provider: str = "cpu") -> None:
        model = _model(path, "cpu")
        self._plan = _complete(model)
        if provider != "cpu":  # only the CPU refuses an input that does not fit: OpenVINO reads past its end
            self._plan = replace(self._plan, model=_model(path, provider))
        self.digest, self.version = model.digest, self._plan.version
        self.labels, self.measures = self._plan.labels, tuple(self._plan.measures)
        crop = self._plan.crop
        self.crop = Crop(crop.x, crop.y, crop.side, crop.points or ())
        self.smoother = self._plan.smoother

    planar = True
    """It takes planar pictures, too (`fer_stream.plugins.Classifier`)."""

    concurrent = True

    def classify(self, image: NDArray[np.uint8] | Yuv, faces: Sequence[Face]) -> NDArray[np.float32]:
        """Return the probabilities of faces in ``image``: float32 ``[len(faces), len(labels)]``.

        ``image`` is uint8 ``[H, W, 3]`` in BGR order, or planar.

        Raises:
            ValueError: ``image`` is not such an array (`fer_stream.imaging.pixels`).
        """
        return self.assess(image, faces)[0]

    def assess(
        self, image: NDArray[np.uint8] | Yuv, faces: Sequence[Face]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the probabilities as `classify`, and the measures: float32 ``[len(faces), len(measures)]``.

        Raises:
            ValueError: as `classify`.
        """
        image = image if isinstance(image, Yuv) else pixels(image)
        parts = [self._plan.run(np.empty((0, 1, 1), np.float32))]
        for start in range(0, len(faces), BATCH):
            crops = [self.sample(image, face) for face in faces[start : start + BATCH]]
            parts.append(self._plan.run(np.stack(crops)))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def sample(self, image: NDArray[np.uint8] | Yuv, face: Face) -> NDArray[np.float32]:
        """Return the model's crop of a face: grey float32 ``[H, W]``, or BGR ``[H, W, 3]``, 0 to 255."""
        wanted = self._plan.pixels
        square = self.crop.square(face.box, face.landmarks)
        return sample(image, square, wanted.height, wanted.width, colour=wanted.colour != "grey")

    def run(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities, float32 ``[N, C]``, of crops as `sample` makes them, stacked."""
        return self._plan.run(crops)[0]


def _model(path: Path | None, provider: str) -> models.Model:
    return models.find(path, provider) if path else models.shipped(DEFAULT, provider)


def _complete(model: models.Model) -> Plan:
    """Return how to run a model.

    Raises:
        ModelError: it breaks its contract.
    """
    plan, breaches = examine(model)
    if plan is None:
        more = f" (and {len(breaches) - 1} more: fer-stream model check {model.path})" if len(breaches) > 1 else ""
        raise ModelError(f"{model.path} is not a classifier for fer-stream: {breaches[0]}{more}")
    return plan


def sample(
    image: NDArray[np.uint8] | Yuv, square: Square, height: int, width: int, *, colour: bool = False
) -> NDArray[np.float32]:
    """Return a square of an image, resampled: grey float32 ``[height, width]``, or BGR ``[height, width, 3]``, 0..255.

    Each value is the mean of the image over the window that the value covers, which is at least one pixel wide. Edges
    of windows may be fractions of a pixel. So a large face is shrunk without aliasing, and a small one is enlarged as
    by bilinear interpolation. Outside the image, the border is repeated.

    For a turned square the windows are approximate: it is interpolated at `FINER` times the resolution, and averaged.
    """
    if square.angle:
        return _turned(image, square, height, width, colour=colour)
    (top, bottom), (left, right) = _windows(square.y, square.side, height), _windows(square.x, square.side, width)
    y1, y2 = _span(top[0], bottom[-1], image.shape[0])
    x1, x2 = _span(left[0], right[-1], image.shape[1])
    area = np.outer(bottom - top, right - left)

    def means(plane: NDArray[np.uint8]) -> NDArray[np.float32]:
        sums = np.asarray(cv2.integral(plane, sdepth=cv2.CV_64F), np.float64)
        rows = _at(sums, bottom - y1) - _at(sums, top - y1)
        windows = _at(rows.T, right - x1) - _at(rows.T, left - x1)
        return (windows.T / area).astype(np.float32)

    if colour:
        return np.dstack([means(np.asarray(plane, np.uint8)) for plane in cv2.split(bgr(image, x1, y1, x2, y2))])
    return means(grey(image, x1, y1, x2, y2))


def _turned(
    image: NDArray[np.uint8] | Yuv, square: Square, height: int, width: int, *, colour: bool
) -> NDArray[np.float32]:
    """Return a turned square as `sample` does.

    It is interpolated at `FINER` times the wanted resolution from the image, which is halved before if it is large.
    """
    down, across = FINER * height, FINER * width
    cosine, sine = math.cos(math.radians(square.angle)), math.sin(math.radians(square.angle))
    middle_x, middle_y, half = square.x + square.side / 2, square.y + square.side / 2, square.side / 2
    reach = half * (abs(cosine) + abs(sine)) + 1
    x1, x2 = _span(middle_x - reach, middle_x + reach, image.shape[1])
    y1, y2 = _span(middle_y - reach, middle_y + reach, image.shape[0])
    part, shrunk = (bgr if colour else grey)(image, x1, y1, x2, y2), 1
    while square.side / shrunk >= 2 * max(down, across) and min(part.shape[:2]) > 1:
        wide, high = part.shape[1] // 2, part.shape[0] // 2
        halved = cv2.resize(part[: 2 * high, : 2 * wide], (wide, high), interpolation=cv2.INTER_AREA)
        part = halved.astype(np.uint8, copy=False)
        shrunk *= 2
    # OpenCV's coordinates are those of pixels' centres.
    step_x, step_y = square.side / across / shrunk, square.side / down / shrunk
    x, y = (middle_x - x1) / shrunk - 0.5, (middle_y - y1) / shrunk - 0.5
    left, top = (across - 1) / 2 * step_x, (down - 1) / 2 * step_y
    to_part = np.array(
        [
            [cosine * step_x, -sine * step_y, x - cosine * left + sine * top],
            [sine * step_x, cosine * step_y, y - sine * left - cosine * top],
        ]
    )
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    made = cv2.warpAffine(part, to_part, (across, down), flags=how, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(made.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _windows(start: float, side: float, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the begin and end, in pixels, of each of ``count`` windows along a side of a square."""
    step = side / count
    centre = start + (np.arange(count, dtype=np.float64) + 0.5) * step
    half = max(step, 1.0) / 2
    return centre - half, centre + half


def _span(start: float, end: float, length: int) -> tuple[int, int]:
    """Return the range of whole pixels that covers ``start`` to ``end`` inside the image, at least one pixel."""
    first = min(max(math.floor(start), 0), length - 1)
    return first, max(min(math.ceil(end), length), first + 1)


def _at(sums: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate running sums at fractional rows; they are extrapolated beyond the ends, which repeats the border."""
    row = np.clip(np.floor(positions).astype(np.intp), 0, len(sums) - 2)
    below, above = sums[row], sums[row + 1]
    return below + (positions - row)[:, None] * (above - below)
