"""How to run a model whose contract is complete: the pixels that it takes, and what its outputs are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fer_stream.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fer_stream.inference.classifiers.contract import CropContract
    from fer_stream.inference.models import Model
    from fer_stream.types import Measure

    Rows = NDArray[np.float32]

BATCH = 32
"""Maximum number of faces in one run: larger batches need more memory, and are no faster per face."""

TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
"""The types that an input may have, by onnxruntime's name."""

FREE = 0
"""The batch of a model that takes any number of faces at once."""


class Column(NamedTuple):
    """Where a measure is: a column of an output."""

    output: str
    number: int


class Pixels(NamedTuple):
    """The model's input: its name and type, the order of its axes, its size in pixels and faces, and its scale."""

    name: str
    dtype: type[np.generic]
    layout: str
    colour: str
    height: int
    width: int
    batch: int
    """Faces in each run, or `FREE`."""
    factor: NDArray[np.float32]
    offset: NDArray[np.float32]
    """Values are ``pixels * factor + offset``: one number of each for all channels, or one for each channel."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A model with a complete contract.

    ``columns`` are the labels' columns in the output ``output``: the first, and the one after the last.
    """

    model: Model
    pixels: Pixels
    labels: tuple[str, ...]
    output: str
    columns: tuple[int, int]
    logits: bool
    measures: Mapping[Measure, Column]
    """Where each measure is."""
    crop: CropContract
    smoother: Mapping[str, float]
    """Smoother settings of its own."""
    version: str

    def run(self, faces: NDArray[np.float32]) -> tuple[Rows, Rows]:
        """Return the probabilities ``[N, labels]`` and the measures ``[N, measures]`` of N faces, float32.

        Args:
            faces: the model's crops, float32 ``[N, H, W]`` (grey) or ``[N, H, W, 3]`` (BGR), 0 to 255.

        Raises:
            ModelError: onnxruntime cannot run the model.
        """
        size = self.pixels.batch or BATCH
        parts = [self._run(faces[start : start + size]) for start in range(0, len(faces), size)]
        probabilities = [np.empty((0, len(self.labels)), np.float32), *(part[0] for part in parts)]
        measures = [np.empty((0, len(self.measures)), np.float32), *(part[1] for part in parts)]
        return np.concatenate(probabilities), np.concatenate(measures)

    def _run(self, faces: NDArray[np.float32]) -> tuple[Rows, Rows]:
        outputs = {self.output, *(place.output for place in self.measures.values())}
        found = run_outputs(self.model, self.pixels, sorted(outputs), faces)
        rows = found[self.output][:, slice(*self.columns)]
        if self.logits:
            powers = np.exp(rows - rows.max(axis=1, keepdims=True))
            rows = powers / powers.sum(axis=1, keepdims=True)
        measures = np.empty((len(faces), len(self.measures)), np.float32)
        for at, (measure, place) in enumerate(self.measures.items()):
            measures[:, at] = found[place.output][:, place.number].clip(measure.least, measure.greatest)
        return rows, measures


def run_outputs(model: Model, pixels: Pixels, names: Sequence[str], faces: NDArray[np.float32]) -> dict[str, Rows]:
    """Run a model on some faces, at most a batch, and return its outputs by name: float32 ``[N, columns]``.

    Raises:
        ModelError: onnxruntime cannot run the model, or an output has not one row for each face.
    """
    values = faces if faces.ndim == 4 else faces[..., None]
    if pixels.colour == "RGB":
        values = values[..., ::-1]
    if (pixels.factor != 1).any() or (pixels.offset != 0).any():
        values = values * pixels.factor + pixels.offset
    if pixels.dtype is np.uint8:
        values = np.rint(values)
    if pixels.layout == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    if missing := max(pixels.batch - len(faces), 0):
        values = np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
    values = np.ascontiguousarray(values, pixels.dtype)
    results = model.run(names, {pixels.name: values}, joint=pixels.batch == FREE)
    found = {}
    for name, result in zip(names, results, strict=True):
        rows = np.asarray(result)
        if rows.shape[:1] != (len(values),):
            raise ModelError(f"{model.path} gives {list(rows.shape)} as {name} for {len(values)} faces")
        found[name] = rows.reshape(len(values), -1)[: len(faces)].astype(np.float32, copy=False)
    return found
