"""Resizes by averaging over windows with integer edges, as MTCNN's nets need, using an integral image.

One `cv2.integral` serves all levels of a pyramid and all crops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Ints = NDArray[np.intp]


class Windows:
    """Resizes parts of one image (uint8 ``[H, W, 3]``) for the nets: float32 ``[N, 3, h, w]``, -1..1."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.height, self.width = image.shape[:2]
        # Sums of a large image overflow 32 bits. Differences of sums are still correct, because they wrap around, too.
        self._sums = np.asarray(cv2.integral(np.ascontiguousarray(image)), np.int32)
        self._rows = self._sums.reshape(self.height + 1, -1)

    def levels(self, scales: Iterable[float]) -> Iterator[Floats]:
        """Yield the whole image at each scale: ``[1, 3, h, w]``."""
        return map(self._level, scales)

    def _level(self, scale: float) -> Floats:
        height, width = int(self.height * scale + 1), int(self.width * scale + 1)
        (top, bottom), (left, right) = _edges(self.height, height), _edges(self.width, width)
        channels = np.arange(3)[:, None]
        sums = np.empty((height, self._rows.shape[1]), np.int32)
        for i, (above, below) in enumerate(zip(top.tolist(), bottom.tolist(), strict=True)):
            np.subtract(self._rows[below], self._rows[above], out=sums[i])
        left, right = ((3 * edge + channels).ravel() for edge in (left, right))
        # One take() gets the columns of all channels, plane after plane: it also transposes to [3, h, w].
        windows = sums.take(right, 1, mode="clip")
        windows -= sums.take(left, 1, mode="clip")
        area = np.outer(bottom - top, (right - left)[:width] // 3)
        return _normalised(windows.reshape(height, 3, width).transpose(1, 0, 2), area)[None]

    def crops(self, edges: Ints, size: int) -> Floats:
        """Return rectangles of the image, given by their edges (`clipped`), resized to ``[N, 3, size, size]``."""
        x1, y1, x2, y2 = edges.T[:, :, None]
        (top, bottom), (left, right) = _edges(y2 - y1, size), _edges(x2 - x1, size)
        top, bottom = (((y1 + edge) * (self.width + 1))[:, :, None] for edge in (top, bottom))
        left, right = ((x1 + edge)[:, None, :] for edge in (left, right))
        sums = self._sums.reshape(-1, 3)
        windows = sums.take(bottom + right, 0, mode="clip")
        windows -= sums.take(bottom + left, 0, mode="clip")
        windows -= sums.take(top + right, 0, mode="clip")
        windows += sums.take(top + left, 0, mode="clip")
        area = (bottom - top) // (self.width + 1) * (right - left)
        return _normalised(windows.transpose(0, 3, 1, 2), area[:, None])


def clipped(boxes: Floats, height: int, width: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the edges (x1, y1, x2, y2) of boxes clipped to an image of this size, and which boxes are not empty.

    The boxes of the nets count pixels from 1, the edges from 0.
    """
    edges = np.trunc(boxes).astype(np.intp)
    edges[:, :2] = np.maximum(edges[:, :2], 1) - 1
    edges[:, 2:] = np.minimum(edges[:, 2:], (width, height))
    inside: NDArray[np.bool_] = np.all(edges[:, 2:] > edges[:, :2], axis=1)
    return edges, inside


def _edges(length: int | Ints, count: int) -> tuple[Ints, Ints]:
    """Return the begins and the ends of ``count`` windows over ``length`` pixels, as in torch's AdaptiveAvgPool2d."""
    index = np.arange(count)
    return index * length // count, -((index + 1) * -length // count)


def _normalised(sums: NDArray[np.int32], area: Ints) -> Floats:
    pixels = sums.astype(np.float32, order="C")  # convert first: numpy would multiply integers in 64 bits
    pixels *= (1 / (128 * area)).astype(np.float32)
    pixels -= np.float32(127.5 / 128)
    return pixels
