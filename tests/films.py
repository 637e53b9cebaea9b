"""Films that PyAV writes, with each picture's number in it as bars, so that what a source gives can be checked."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BITS = 8
"""Bars in a picture: a film has fewer than ``2**BITS`` pictures."""

ORIENTATIONS = {
    "upright": lambda image: image,
    "90": np.rot90,
    "180": lambda image: np.rot90(image, 2),
    "270": lambda image: np.rot90(image, 3),
}
"""How the pictures of a film with a rotation are stored, by its degrees."""


@dataclass(frozen=True)
class Film:
    """How a film is written. Sizes are those that a player shows, in pixels."""

    container: str = "mp4"
    codec: str = "libx264"
    width: int = 320
    height: int = 240
    rate: int = 25
    count: int = 20
    rotation: int = 0
    aspect: Fraction = Fraction(1)
    interlaced: bool = False

    def write(self, path: Path) -> Path:
        """Write it; return its path."""
        with av.open(str(path), "w") as file:
            stream = file.add_stream(self.codec, rate=self.rate)
            stored = self.stored(0)
            stream.height, stream.width = stored.shape[:2]
            stream.pix_fmt = "yuvj420p" if self.codec == "mjpeg" else "yuv420p"
            stream.codec_context.sample_aspect_ratio = self.aspect
            if self.codec == "libx264":
                stream.options = {"preset": "ultrafast", "crf": "12"}
                if self.interlaced:
                    stream.options |= {"flags": "+ildct"}
            if self.rotation:
                stream.set_display_rotation(self.rotation)
            for number in range(self.count):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(self.stored(number)), format="bgr24")
                frame.pts, frame.time_base = number, Fraction(1, self.rate)
                for packet in stream.encode(frame):
                    file.mux(packet)
            for packet in stream.encode(None):
                file.mux(packet)
        return path

    def stored(self, number: int) -> NDArray[np.uint8]:
        """Return a picture as it is stored: turned back, and squeezed by the sample aspect ratio."""
        image = ORIENTATIONS["upright" if not self.rotation else str(360 - self.rotation)](
            bars(number, self.width, self.height)
        )
        squeezed = round(image.shape[1] / self.aspect) // 2 * 2
        columns = np.linspace(0, image.shape[1] - 1, squeezed).round().astype(int)
        return np.ascontiguousarray(image[:, columns])


def bars(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Return a picture, uint8 ``[height, width, 3]``: a white row on top, then a bar a bit, the highest one left."""
    image = np.full((height, width, 3), 40, np.uint8)
    image[: height // 4] = 220
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        image[height // 2 :, left:right] = 220 if number >> (BITS - 1 - bit) & 1 else 40
    return image


def read_bars(image: NDArray[np.uint8]) -> int:
    """Return the number in a picture; -1 if its top is not white, as it is in a picture the right way up."""
    height, width = image.shape[:2]
    if image[height // 16 : height // 6].mean() < 130:
        return -1
    number = 0
    for bit in range(BITS):
        middle = (2 * bit + 1) * width // (2 * BITS)
        number = 2 * number + bool(image[3 * height // 4, middle - 1 : middle + 2].mean() > 130)
    return number
