"""Pictures in planar YUV 4:2:0 (I420), as video decoders give them. They need half the memory of BGR.

Conversions are those of ITU-R BT.601 and BT.709: R = Y + (2 - 2 Kr) V and B = Y + (2 - 2 Kb) U; G follows from
Y = Kr R + Kg G + Kb B. Before that, Y, U and V are scaled from the range in which the stream stores them.
"""

from __future__ import annotations

from enum import IntFlag
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fer_stream.types import Encoded

    Plane = NDArray[np.uint8]


class Colour(IntFlag):
    """How a stream stores colours; 0 is BT.601 in limited range."""

    LIMITED_BT601 = 0
    FULL = 1
    """Luma and chroma use 0 to 255, as in JPEGs; otherwise luma uses 16 to 235, and chroma 16 to 240."""
    BT709 = 2
    """The matrix of BT.709, as in high definition; otherwise that of BT.601."""


class Yuv:
    """A picture in planar YUV 4:2:0, of even width W and even height H.

    Args:
        y: luma, uint8 ``[H, W]``.
        u: chroma (blue), uint8 ``[H / 2, W / 2]``.
        v: chroma (red), uint8 ``[H / 2, W / 2]``.
        colour: how the colours are stored.
    """

    __slots__ = ("_data", "_image", "colour", "u", "v", "y")

    def __init__(self, y: Plane, u: Plane, v: Plane, colour: Colour = Colour.LIMITED_BT601) -> None:
        self.y, self.u, self.v, self.colour = y, u, v, colour
        self._data: Plane | None = None
        self._image: NDArray[np.uint8] | None = None

    @classmethod
    def from_i420(cls, data: Plane, colour: Colour = Colour.LIMITED_BT601) -> Yuv:
        """Return a picture whose planes are views of ``data``, uint8 ``[H * 3 / 2, W]``: Y, then U, then V."""
        height, width = data.shape[0] * 2 // 3, data.shape[1]
        chroma = data[height:].reshape(2, height // 2, width // 2)
        made = cls(data[:height], chroma[0], chroma[1], colour)
        made._data = data
        return made

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(H, W, 3)``, the shape of `decode`'s result."""
        return (*self.y.shape, 3)

    @property
    def full(self) -> bool:
        """Whether luma uses 0 to 255."""
        return bool(self.colour & Colour.FULL)

    def i420(self) -> Plane:
        """Return the planes in one array, uint8 ``[H * 3 / 2, W]``: that of `from_i420`, or else a copy."""
        if self._data is not None:
            return self._data
        parts = (self.y.reshape(-1), self.u.reshape(-1), self.v.reshape(-1))
        return np.concatenate(parts).reshape(-1, self.y.shape[1])

    def decode(self) -> NDArray[np.uint8]:
        """Return the pixels, uint8 ``[H, W, 3]`` in BGR order. The result is cached."""
        if self._image is None:
            self._image = self.bgr(0, 0, self.y.shape[1], self.y.shape[0])
        return self._image

    def part(self, x1: int, y1: int, x2: int, y2: int) -> Yuv:
        """Return a rectangle as views. Its edges must be even, and inside the picture."""
        half = slice(y1 // 2, y2 // 2), slice(x1 // 2, x2 // 2)
        return Yuv(self.y[y1:y2, x1:x2], self.u[half], self.v[half], self.colour)

    def bgr(self, x1: int, y1: int, x2: int, y2: int) -> NDArray[np.uint8]:
        """Return a rectangle's pixels, uint8 ``[y2 - y1, x2 - x1, 3]`` in BGR order; it must be inside the picture."""
        import cv2  # noqa: PLC0415  (OpenCV is large, and an aggregator does not need it)

        if x2 <= x1 or y2 <= y1:
            return np.empty((max(y2 - y1, 0), max(x2 - x1, 0), 3), np.uint8)
        whole = self.part(x1 // 2 * 2, y1 // 2 * 2, -(-x2 // 2) * 2, -(-y2 // 2) * 2)
        if self.colour == Colour.LIMITED_BT601:
            image = cv2.cvtColor(whole.i420(), cv2.COLOR_YUV2BGR_I420)
        else:
            size = whole.y.shape[::-1]
            chroma = (cv2.resize(half, size, interpolation=cv2.INTER_NEAREST) for half in (whole.u, whole.v))
            image = cv2.transform(np.dstack([whole.y, *chroma]), to_bgr(self.colour))
        return np.ascontiguousarray(image[y1 % 2 :, x1 % 2 :][: y2 - y1, : x2 - x1], np.uint8)

    def resized(self, width: int, height: int) -> Yuv:
        """Return the picture shrunk or enlarged to an even size."""
        import cv2  # noqa: PLC0415  (OpenCV is large, and an aggregator does not need it)

        smaller = width < self.y.shape[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        data = np.empty((height * 3 // 2, width), np.uint8)
        made = Yuv.from_i420(data, self.colour)
        for before, after in ((self.y, made.y), (self.u, made.u), (self.v, made.v)):
            cv2.resize(before, after.shape[::-1], dst=after, interpolation=how)
        return made


@cache
def _expansion() -> NDArray[np.uint8]:
    """Return a table, uint8 ``[256]``, from limited-range luma to full-range luma."""
    return np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)


@cache
def to_bgr(colour: Colour) -> NDArray[np.float32]:
    """Return the matrix ``[3, 4]`` that converts (Y, U, V, 1) to (B, G, R), 0 to 255."""
    red, blue = (0.2126, 0.0722) if colour & Colour.BT709 else (0.299, 0.114)
    green = 1 - red - blue
    rows = np.array(
        [
            [1, 2 - 2 * blue, 0],
            [1, -blue * (2 - 2 * blue) / green, -red * (2 - 2 * red) / green],
            [1, 0, 2 - 2 * red],
        ]
    )
    low = 0 if colour & Colour.FULL else 16
    rows *= [1, 1, 1] if colour & Colour.FULL else [255 / 219, 255 / 224, 255 / 224]
    return np.hstack((rows, -rows @ [[low], [128], [128]])).astype(np.float32)


def grey(
    image: NDArray[np.uint8] | Yuv, x1: int, y1: int, x2: int, y2: int, enough: int | None = None
) -> NDArray[np.uint8]:
    """Return a rectangle of a picture in grey, uint8 ``[h, w]``; it must be inside the picture.

    If ``enough`` is given, and a side has more than twice as many pixels, some pixels are skipped. But no side is
    reduced to fewer than ``enough`` pixels.
    """
    down = across = 1
    if enough is not None and max(y2 - y1, x2 - x1) > 2 * enough:
        down, across = (y2 - y1) // enough or 1, (x2 - x1) // enough or 1
    if isinstance(image, Yuv):
        luma = image.y[y1:y2:down, x1:x2:across]
        return luma if image.full else _expansion()[luma]
    import cv2  # noqa: PLC0415  (OpenCV is large, and an aggregator does not need it)

    return cv2.cvtColor(image[y1:y2:down, x1:x2:across], cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)


def planar_or_bgr(content: NDArray[np.uint8] | Encoded) -> NDArray[np.uint8] | Yuv:
    """Return the pixels in a frame's content: planar as they are, all others as uint8 ``[H, W, 3]``, BGR.

    Raises:
        WireError: the content is a JPEG that does not decode.
    """
    return content if isinstance(content, np.ndarray | Yuv) else content.decode()


def bgr(image: NDArray[np.uint8] | Yuv, x1: int, y1: int, x2: int, y2: int) -> NDArray[np.uint8]:
    """Return a rectangle of a picture, uint8 ``[y2 - y1, x2 - x1, 3]`` in BGR order; it must be inside the picture."""
    return image.bgr(x1, y1, x2, y2) if isinstance(image, Yuv) else image[y1:y2, x1:x2]
