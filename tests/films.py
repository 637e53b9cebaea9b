"""Videos for tests, written with PyAV. Each picture shows its number as bars, so that a test can read it back."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.media import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from fer_stream import Picture

BITS = 8
"""Number of bars: a video has fewer than ``2**BITS`` pictures."""

PIXELS = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le", "gif": "gray"}
"""FFmpeg's name of the pixel format that a codec stores, if it is not ``yuv420p``."""


@dataclass(frozen=True)
class Film:
    """A video to write. Sizes are those that a player shows, in pixels."""

    container: str = "mp4"
    codec: str = "libx264"
    width: int = 320
    height: int = 240
    rate: int = 25
    count: int = 20
    rotation: int = 0
    mirrored: bool = False
    """Whether the picture is mirrored after the rotation, as by the front camera of a phone."""
    aspect: Fraction = Fraction(1)
    interlaced: bool = False
    keys: int | None = None
    """Pictures from one key frame to the next."""

    def write(self, path: Path, options: dict[str, str] | None = None) -> Path:
        """Write the video with options of FFmpeg's muxer; return its path."""
        with av.open(str(path), "w", options=options or {}) as file:
            stream = file.add_stream(self.codec, rate=self.rate)
            stored = self.stored(0)
            stream.height, stream.width = stored.shape[:2]
            stream.pix_fmt = PIXELS.get(self.codec, "yuv420p")
            stream.codec_context.sample_aspect_ratio = self.aspect
            if self.keys:
                stream.codec_context.gop_size = self.keys
            if self.codec == "libx264":
                stream.options = {"preset": "ultrafast", "crf": "12"}
                if self.interlaced:
                    stream.options |= {"flags": "+ildct"}
            if self.codec == "mpeg2video" and self.interlaced:
                stream.options = {"flags": "+ildct+ilme"}
            if self.rotation or self.mirrored:
                stream.set_display_rotation(self.rotation, hflip=self.mirrored)
            for number in range(self.count):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(self.stored(number)), format="bgr24")
                frame.pts, frame.time_base = number, Fraction(1, self.rate)
                for packet in stream.encode(frame):
                    file.mux(packet)
            for packet in stream.encode(None):
                file.mux(packet)
        return path

    def stored(self, number: int) -> NDArray[np.uint8]:
        """Return a picture as the video stores it: before mirroring, rotation, and stretching to square pixels."""
        image = bars(number, self.width, self.height)
        image = np.rot90(image[:, ::-1] if self.mirrored else image, -self.rotation // 90)
        squeezed = round(image.shape[1] / self.aspect) // 2 * 2
        columns = np.linspace(0, image.shape[1] - 1, squeezed).round().astype(int)
        return np.ascontiguousarray(image[:, columns])


def bars(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Return a picture, uint8 ``[height, width, 3]``: a white row on top, below it a bar for each bit of ``number``."""
    image = np.full((height, width, 3), 40, np.uint8)
    image[: height // 4] = 220
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        image[height // 2 :, left:right] = 220 if number >> (BITS - 1 - bit) & 1 else 40
    return image


def read_bars(image: NDArray[np.uint8]) -> int:
    """Return the number in a picture; -1 if its top is not white, so the picture is not upright."""
    height, width = image.shape[:2]
    if image[height // 16 : height // 6].mean() < 130:
        return -1
    number = 0
    for bit in range(BITS):
        middle = (2 * bit + 1) * width // (2 * BITS)
        number = 2 * number + bool(image[3 * height // 4, middle - 1 : middle + 2].mean() > 130)
    return number


def read(path: Path, **settings: object) -> list[Picture]:
    """Return all pictures that a source gives."""
    source = open_source(str(path), CameraSettings(**settings))  # type: ignore[arg-type]
    return list(iter(source.read, None))


def shown(pictures: list[Picture]) -> list[int]:
    """Return the numbers in pictures."""
    return [read_bars(picture.image) for picture in pictures]
