"""Corrects a classifier's probabilities on one camera, before they are smoothed.

``p_k' ~ exp(log(p_k) / T + b_k)``: a temperature ``T`` for all labels (C. Guo et al. 2017, "On Calibration of Modern
Neural Networks", section 4.2) and a bias ``b_k`` for each, which adjusts to the class frequencies of the camera
(M. Saerens et al. 2002, "Adjusting the Outputs of a Classifier to New a Priori Probabilities").
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from fer_stream.errors import ConfigError
from fer_stream.types import Probabilities, Setting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fer_stream.settings.tree import CalibrationSettings

Each = TypeVar("Each")

FLOOR = 1e-4
"""Smaller probabilities are raised to this before the logarithm: tables of faces have four decimal places."""

ANY = "*"
"""The name in the settings for cameras without a calibration of their own."""


class Calibration:
    """One camera's correction, for a model with these labels."""

    def __init__(self, settings: CalibrationSettings, labels: Sequence[str]) -> None:
        self._settings = settings
        self._bias = tuple(settings.bias.get(label, 0.0) for label in labels)

    def apply(self, scored: Probabilities) -> Probabilities:
        """Return corrected probabilities; they sum to 1."""
        if not scored.values:  # a model that has measures only
            return scored
        logits = [
            math.log(max(value, FLOOR)) / self._settings.temperature + bias
            for value, bias in zip(scored.values, self._bias, strict=True)
        ]
        highest = max(logits)
        weights = [math.exp(value - highest) for value in logits]
        total = math.fsum(weights)
        return Probabilities(scored.labels, tuple(weight / total for weight in weights))

    def as_dict(self) -> dict[str, Setting]:
        """Return its values as in the event ``camera.online``."""
        biases = {f"bias.{label}": Setting(value) for label, value in self._settings.bias.items()}
        return {"temperature": Setting(self._settings.temperature), **biases}


class Calibrations:
    """The corrections of all cameras."""

    def __init__(self, by_camera: Mapping[str, Calibration]) -> None:
        self._by_camera = by_camera

    def of(self, camera: str) -> Calibration | None:
        """Return a camera's correction, if it has one."""
        return next(iter(of_camera(self._by_camera, camera).values()), None)


def of_camera(by_camera: Mapping[str, Each], camera: str) -> dict[str, Each]:
    """Return the entry for a camera with its key: the camera's own, else that of `ANY`, else nothing."""
    name = camera if camera in by_camera else ANY
    return {name: by_camera[name]} if name in by_camera else {}


def calibrations(settings: Mapping[str, CalibrationSettings], labels: Sequence[str]) -> Calibrations:
    """Return the corrections that the settings ask for.

    Raises:
        ConfigError: one has a bias for a label that the model does not have.
    """
    for camera, each in settings.items():
        if unknown := [label for label in each.bias if label not in labels]:
            raise ConfigError(
                f"calibration.{camera}.bias: the model has no label {unknown[0]!r}; it has: "
                f"{', '.join(labels) or 'none'}; fit the calibration again for this model"
            )
    return Calibrations({camera: Calibration(each, labels) for camera, each in settings.items()})
