"""A source that sways one of the demo's portraits, and a classifier that tells bright faces from dark ones."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.errors import SourceError
from fer_stream.types import Picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fer_stream.settings.tree import CameraSettings, ClassifierSettings
    from fer_stream.types import Face


class Sway:
    """A portrait that sways, for as many pictures as the address says: ``sway:150``."""

    live = False

    def __init__(self, frames: int) -> None:
        self.frames: int | None = frames
        self._read = 0
        portrait = (files("fer_stream") / "assets" / "grace_hopper.jpg").read_bytes()
        self._portrait = cv2.imdecode(np.frombuffer(portrait, np.uint8), cv2.IMREAD_COLOR)

    def read(self) -> Picture | None:
        if self._read == self.frames:
            return None
        shift = 20 * math.sin(self._read / 10)
        image = cv2.warpAffine(self._portrait, np.float32([[1, 0, 40 + shift], [0, 1, 40]]), (344, 410))
        self._read += 1
        return Picture(image, (self._read - 1) * 40_000_000)

    def close(self) -> None:
        self._read = self.frames


def open_source(address: str, settings: CameraSettings) -> Sway:
    if not address.isdecimal():
        raise SourceError(f"sway needs a number of pictures, as in sway:150, not {address!r}")
    return Sway(int(address))


class Brightness:
    """The brighter a face's box, the more probable ``bright``."""

    labels = ("dark", "bright")
    version = "brightness 1.0.0"

    def classify(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> NDArray[np.float32]:
        probabilities = np.zeros((len(faces), 2), np.float32)
        height, width = image.shape[:2]
        for row, face in zip(probabilities, faces, strict=True):
            left, right = (int(np.clip(x, 0, width)) for x in (face.box.x1, face.box.x2))
            top, bottom = (int(np.clip(y, 0, height)) for y in (face.box.y1, face.box.y2))
            grey = image[top:bottom, left:right].mean() if left < right and top < bottom else 0
            bright = 1 / (1 + math.exp((100 - grey) / 10))
            row[:] = 1 - bright, bright
        return probabilities


def load(settings: ClassifierSettings) -> Brightness:
    return Brightness()
