"""A classifier in an ONNX file, which must satisfy a contract.

| part               | must be                                                                                       |
|--------------------|-----------------------------------------------------------------------------------------------|
| input `faces`      | float32 ``[N, 1, H, W]``, N dynamic: grey values 0..255, normalised inside the graph           |
| output             | `probabilities`, float32 ``[N, C]``, rows summing to 1                                        |
| metadata `labels`  | JSON array of C different names, in the order of the columns                                  |
| metadata `crop`    | JSON object ``{"x": ..., "y": ..., "side": ...}``: the model's crop of a face, see `Crop`     |
| metadata           | `version`, `license`, `trained_on`: text                                                      |
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from fer_stream.errors import ModelError
from fer_stream.imaging.geometry import roll
from fer_stream.imaging.pixels import pixels
from fer_stream.imaging.yuv import Yuv, grey
from fer_stream.inference import models

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fer_stream.settings.tree import ClassifierSettings
    from fer_stream.types import Box, Face

DEFAULT = "emotion-ferplus.onnx"
"""The shipped model that is better on faces in video (`models/emotion.md`)."""

UPRIGHT = 5.0
"""Degrees of lean that are left in the crop: the shipped models know faces that lean a little, and read some of them
better so (`training.turned`)."""

FINER = 2
"""How much finer a turned square is interpolated than the model's input."""

BATCH = 32
"""Maximum number of faces in one run: larger batches need more memory, and are no faster per face."""


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
    units of the box's size ``sqrt(width * height)``.
    """

    x: float
    y: float
    side: float

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
        if not isinstance(value, dict) or set(value) != {field.name for field in fields(cls)}:
            raise ValueError("it must be an object of x, y and side")
        most = sys.float_info.max  # also excludes integers too large for a float
        if not all(type(number) in (int, float) and abs(number) <= most for number in value.values()):
            raise ValueError("x, y and side must be finite numbers")
        if value["side"] <= 0:
            raise ValueError("side must be positive")
        return cls(**value)

    def to_json(self) -> str:
        """Return the JSON text that `from_json` takes."""
        return json.dumps(asdict(self))

    def square(self, box: Box, landmarks: Sequence[tuple[float, float]] = ()) -> Square:
        """Return the model's square in the image for a detector's box, turned with the line through the eyes.

        A lean of up to `UPRIGHT` is left in the crop; of a larger one, as much is left.
        """
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


class OnnxClassifier:
    """A classifier in an ONNX file, given by its path or by the name of a shipped file; by default `DEFAULT`.

    ``labels``, ``version`` and ``crop`` come from the file's metadata, ``digest`` is that of `models.Model`.

    Raises:
        ModelError: the file is missing or breaks the contract; the message says which part of it.
    """

    def __init__(self, path: Path | None = None, provider: str = "cpu") -> None:
        self._model = models.find(path, provider) if path else models.shipped(DEFAULT, provider)
        self.digest = self._model.digest
        self._height, self._width, columns = _shapes(self._model)
        self.labels, self.crop, self.version = _metadata(self._model, columns)
        self._check_rows()

    planar = True
    """It takes planar pictures, too (`fer_stream.plugins.Classifier`)."""

    def classify(self, image: NDArray[np.uint8] | Yuv, faces: Sequence[Face]) -> NDArray[np.float32]:
        """Return the probabilities of faces in ``image``: float32 ``[len(faces), len(labels)]``.

        ``image`` is uint8 ``[H, W, 3]`` in BGR order, or planar.

        Raises:
            ValueError: ``image`` is not such an array (`fer_stream.imaging.pixels`).
        """
        image = image if isinstance(image, Yuv) else pixels(image)
        rows = [np.empty((0, len(self.labels)), np.float32)]
        for start in range(0, len(faces), BATCH):
            crops = [self.sample(image, face) for face in faces[start : start + BATCH]]
            rows.append(self.run(np.stack(crops)[:, None]))
        return np.concatenate(rows)

    def sample(self, image: NDArray[np.uint8] | Yuv, face: Face) -> NDArray[np.float32]:
        """Return the model's input for a face: grey 0..255, float32 ``[H, W]``."""
        return sample(image, self.crop.square(face.box, face.landmarks), self._height, self._width)

    def run(self, faces: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities, float32 ``[N, C]``, of the model's inputs, float32 ``[N, 1, H, W]``."""
        return self._model.run(("probabilities",), {"faces": faces})[0]

    def _check_rows(self) -> None:
        noise = np.random.default_rng(0).uniform(0, 255, (2, 1, self._height, self._width)).astype(np.float32)
        rows = self.run(noise)
        if (
            rows.shape != (2, len(self.labels))
            or not (rows >= 0).all()
            or not np.allclose(rows.sum(axis=1), 1, atol=1e-3)
        ):
            raise _breach(self._model, "the rows of its output `probabilities` must be probabilities that sum to 1")


def sample(image: NDArray[np.uint8] | Yuv, square: Square, height: int, width: int) -> NDArray[np.float32]:
    """Return a square of an image in grey, resampled: float32 ``[height, width]``, 0..255.

    Each value is the mean of the image over the window that the value covers, which is at least one pixel wide. Edges
    of windows may be fractions of a pixel. So a large face is shrunk without aliasing, and a small one is enlarged as
    by bilinear interpolation. Outside the image, the border is repeated.

    For a turned square the windows are approximate: it is interpolated at `FINER` times the resolution, and averaged.
    """
    if square.angle:
        return _turned(image, square, height, width)
    (top, bottom), (left, right) = _windows(square.y, square.side, height), _windows(square.x, square.side, width)
    y1, y2 = _span(top[0], bottom[-1], image.shape[0])
    x1, x2 = _span(left[0], right[-1], image.shape[1])
    sums = np.asarray(cv2.integral(grey(image, x1, y1, x2, y2), sdepth=cv2.CV_64F), np.float64)
    rows = _at(sums, bottom - y1) - _at(sums, top - y1)
    windows = _at(rows.T, right - x1) - _at(rows.T, left - x1)
    area = np.outer(bottom - top, right - left)
    return (windows.T / area).astype(np.float32)


def _turned(image: NDArray[np.uint8] | Yuv, square: Square, height: int, width: int) -> NDArray[np.float32]:
    """Return a turned square as `sample` does.

    It is interpolated at `FINER` times the wanted resolution from the image, which is halved before if it is large.
    """
    down, across = FINER * height, FINER * width
    cosine, sine = math.cos(math.radians(square.angle)), math.sin(math.radians(square.angle))
    middle_x, middle_y, half = square.x + square.side / 2, square.y + square.side / 2, square.side / 2
    reach = half * (abs(cosine) + abs(sine)) + 1
    x1, x2 = _span(middle_x - reach, middle_x + reach, image.shape[1])
    y1, y2 = _span(middle_y - reach, middle_y + reach, image.shape[0])
    part, shrunk = grey(image, x1, y1, x2, y2), 1
    while square.side / shrunk >= 2 * max(down, across) and min(part.shape) > 1:
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


def _breach(model: models.Model, what: str) -> ModelError:
    return ModelError(f"{model.path} is not a classifier for fer-stream: {what}")


def _shapes(model: models.Model) -> tuple[int, int, int]:
    """Return height and width of the input, and the number of columns of the output.

    Raises:
        ModelError: an input or output breaks the contract.
    """
    inputs = {value.name: value for value in model.session.get_inputs()}
    if list(inputs) != ["faces"]:
        raise _breach(model, f"it must have one input, `faces`, and has {', '.join(inputs) or 'none'}")
    faces = inputs["faces"]
    if faces.type != "tensor(float)":
        raise _breach(model, f"its input `faces` must be float32 and is {faces.type}")
    match faces.shape:
        case [int(batch), 1, int(), int()]:
            raise _breach(model, f"its input `faces` takes exactly {batch} faces; export it with a dynamic first axis")
        case [_, 1, int(height), int(width)]:
            pass
        case shape:
            raise _breach(model, f"its input `faces` must be [N, 1, H, W] with H and W fixed and is {shape}")
    outputs = {value.name: value for value in model.session.get_outputs()}
    if "probabilities" not in outputs:
        raise _breach(model, f"it must have an output `probabilities` and has {', '.join(outputs)}")
    probabilities = outputs["probabilities"]
    if probabilities.type != "tensor(float)":
        raise _breach(model, f"its output `probabilities` must be float32 and is {probabilities.type}")
    match probabilities.shape:
        case [_, int(columns)]:
            return height, width, columns
        case shape:
            raise _breach(model, f"its output `probabilities` must be [N, C] with C fixed and is {shape}")


def _metadata(model: models.Model, columns: int) -> tuple[tuple[str, ...], Crop, str]:
    """Return labels, crop and version.

    Raises:
        ModelError: a metadata entry is missing or breaks the contract.
    """
    metadata = model.metadata
    for key in ("labels", "crop", "version", "license", "trained_on"):
        if not metadata.get(key, "").strip():
            raise _breach(model, f"its metadata has no `{key}`")
    try:
        labels = json.loads(metadata["labels"])
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise _breach(model, "its metadata `labels` must be a JSON array of names")
    if len(set(labels)) != len(labels):
        raise _breach(model, "its metadata `labels` names a label twice")
    if len(labels) != columns:
        raise _breach(model, f"its metadata `labels` has {len(labels)} names for {columns} columns of probabilities")
    try:
        crop = Crop.from_json(metadata["crop"])
    except ValueError as error:
        raise _breach(model, f"its metadata `crop` cannot be read: {error}") from error
    return tuple(labels), crop, metadata["version"]
