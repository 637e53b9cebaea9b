"""Resizes by averaging over windows with integer edges, which MTCNN's nets need, using an integral image.

One `cv2.integral` serves all levels of a pyramid and all crops. For a few known boxes, `patches` first copies their
pixels side by side, so that only a few thousand pixels are integrated, and all boxes are processed together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.imaging.yuv import Yuv, bgr, to_bgr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Ints = NDArray[np.intp]

ENOUGH = 8
"""Width of a window in pixels from which averaging every second pixel is accurate enough."""

TOGETHER = 16
"""Maximum number of patches copied side by side: each may take a megabyte, and its sums four."""


class _Sums:
    """Means over windows of one image, uint8 ``[H, W, C]``, from its integral image."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.height, self.width, self._channels = image.shape
        # Sums of a large image overflow 32 bits. Their differences are still correct, because they wrap around, too.
        self._sums = np.asarray(cv2.integral(np.ascontiguousarray(image)), np.int32)
        self._rows = self._sums.reshape(self.height + 1, -1)

    def level(self, height: int, width: int) -> Floats:
        """Return the means of ``height`` x ``width`` windows that cover the image: float32 ``[C, height, width]``."""
        count = self._channels
        (top, bottom), (left, right) = _edges(self.height, height), _edges(self.width, width)
        channels = np.arange(count)[:, None]
        sums = np.empty((height, self._rows.shape[1]), np.int32)
        for i, (above, below) in enumerate(zip(top.tolist(), bottom.tolist(), strict=True)):
            np.subtract(self._rows[below], self._rows[above], out=sums[i])
        left, right = ((count * edge + channels).ravel() for edge in (left, right))
        # One take() gets the columns of all channels, plane after plane: it also transposes to [C, h, w].
        windows = sums.take(right, 1, mode="clip")
        windows -= sums.take(left, 1, mode="clip")
        area = np.outer(bottom - top, (right - left)[:width] // count)
        return _means(windows.reshape(height, count, width).transpose(1, 0, 2), area)

    def crops(self, edges: Ints, size: int) -> Floats:
        """Return the means of ``size`` x ``size`` windows over rectangles: float32 ``[N, C, size, size]``."""
        x1, y1, x2, y2 = edges.T[:, :, None]
        (top, bottom), (left, right) = _edges(y2 - y1, size), _edges(x2 - x1, size)
        top, bottom = (((y1 + edge) * (self.width + 1))[:, :, None] for edge in (top, bottom))
        left, right = ((x1 + edge)[:, None, :] for edge in (left, right))
        sums = self._sums.reshape(-1, self._channels)
        windows = sums.take(bottom + right, 0, mode="clip")
        windows -= sums.take(bottom + left, 0, mode="clip")
        windows -= sums.take(top + right, 0, mode="clip")
        windows += sums.take(top + left, 0, mode="clip")
        area = (bottom - top) // (self.width + 1) * (right - left)
        return _means(windows.transpose(0, 3, 1, 2), area[:, None])


class _HalfSums:
    """Means over windows of a plane of chroma, uint8 ``[H / 2, W / 2]``, of which each pixel covers 2x2 of the image.

    An odd edge of a window is in the middle of a pixel. There, the integral image is interpolated, which is exact.
    """

    def __init__(self, plane: NDArray[np.uint8]) -> None:
        self.height, self.width = 2 * plane.shape[0], 2 * plane.shape[1]
        self._sums = np.asarray(cv2.integral(np.ascontiguousarray(plane)), np.int32)

    def level(self, height: int, width: int) -> Floats:
        """Return the means of windows that cover the image: float32 ``[height, width]``."""
        (top, bottom), (left, right) = _edges(self.height, height), _edges(self.width, width)
        rows = self._halves(self._sums, bottom, 0)
        rows -= self._halves(self._sums, top, 0)
        windows = self._halves(rows, right, 1)
        windows -= self._halves(rows, left, 1)
        return _means(windows, np.outer(bottom - top, right - left))

    def crops(self, edges: Ints, size: int) -> Floats:
        """Return the means of windows over rectangles of the image: float32 ``[N, size, size]``."""
        x1, y1, x2, y2 = edges.T[:, :, None]
        (top, bottom), (left, right) = _edges(y2 - y1, size), _edges(x2 - x1, size)
        top, bottom, left, right = y1 + top, y1 + bottom, x1 + left, x1 + right
        windows = self._corners(bottom, right)
        windows -= self._corners(bottom, left)
        windows -= self._corners(top, right)
        windows += self._corners(top, left)
        return _means(windows, (bottom - top)[:, :, None] * (right - left)[:, None, :])

    @staticmethod
    def _halves(sums: NDArray[np.int32], edges: Ints, axis: int) -> NDArray[np.int32]:
        """Return twice the interpolated sums at these edges."""
        found: NDArray[np.int32] = sums.take(edges // 2, axis, mode="clip")
        found += sums.take((edges + 1) // 2, axis, mode="clip")
        return found

    def _corners(self, y: Ints, x: Ints) -> NDArray[np.int32]:
        """Return four times the interpolated sums at the rows ``y`` and the columns ``x``."""
        stride = self._sums.shape[1]
        flat = self._sums.reshape(-1)
        rows = ((y // 2 * stride)[:, :, None], ((y + 1) // 2 * stride)[:, :, None])
        columns = ((x // 2)[:, None, :], ((x + 1) // 2)[:, None, :])
        found: NDArray[np.int32] = flat.take(rows[0] + columns[0], mode="clip")
        for row, column in ((0, 1), (1, 0), (1, 1)):
            found += flat.take(rows[row] + columns[column], mode="clip")
        return found


class Windows:
    """Resizes parts of one image (uint8 ``[H, W, 3]``) for the nets: float32 ``[N, 3, h, w]``, -1..1."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.height, self.width = image.shape[:2]
        self._sums = _Sums(image)

    def level(self, scale: float) -> Floats:
        """Return the whole image at a scale: ``[1, 3, h, w]``."""
        return _normalised(self._sums.level(int(self.height * scale + 1), int(self.width * scale + 1)))[None]

    def crops(self, edges: Ints, size: int) -> Floats:
        """Return rectangles of the image, given by their edges (`clipped`), resized to ``[N, 3, size, size]``."""
        return _normalised(self._sums.crops(edges, size))


class PlanarWindows:
    """Resizes parts of one planar picture for the nets, plane by plane; see `Windows`.

    A window's mean is converted to BGR. It equals the mean of converted pixels, unless some of these were clipped.
    """

    def __init__(self, image: Yuv) -> None:
        self.height, self.width = image.y.shape
        self._y, self._u, self._v = _Sums(image.y[:, :, None]), _HalfSums(image.u), _HalfSums(image.v)
        self._matrix = to_bgr(image.colour)

    def level(self, scale: float) -> Floats:
        """Return the whole image at a scale: ``[1, 3, h, w]``."""
        size = int(self.height * scale + 1), int(self.width * scale + 1)
        return self._converted(self._y.level(*size), self._u.level(*size)[None], self._v.level(*size)[None])

    def crops(self, edges: Ints, size: int) -> Floats:
        """Return rectangles of the image, given by their edges (`clipped`), resized to ``[N, 3, size, size]``."""
        return self._converted(self._y.crops(edges, size)[:, 0], self._u.crops(edges, size), self._v.crops(edges, size))

    def _converted(self, y: Floats, u: Floats, v: Floats) -> Floats:
        """Return means of Y, U and V, each ``[N, h, w]``, as normalised BGR, ``[N, 3, h, w]``."""
        pixels = np.empty((len(y), 3, *y.shape[1:]), np.float32)
        for channel, (luma, blue, red, offset) in enumerate(self._matrix.tolist()):
            into = pixels[:, channel]
            np.multiply(y, np.float32(luma), out=into)
            for plane, weight in ((u, blue), (v, red)):
                if weight:
                    into += plane * np.float32(weight)
            into += np.float32(offset)
        np.clip(pixels, 0, 255, out=pixels)
        pixels -= np.float32(127.5)
        pixels *= np.float32(1 / 128)
        return pixels


def of(image: NDArray[np.uint8] | Yuv) -> Windows | PlanarWindows:
    """Return the windows of a picture."""
    return PlanarWindows(image) if isinstance(image, Yuv) else Windows(image)


def clipped(boxes: Floats, height: int, width: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the edges (x1, y1, x2, y2) of boxes clipped to an image of this size, and which boxes are not empty.

    The boxes of the nets count pixels from 1, the edges from 0.
    """
    edges = np.trunc(boxes).astype(np.intp)
    edges[:, :2] = np.maximum(edges[:, :2], 1) - 1
    edges[:, 2:] = np.minimum(edges[:, 2:], (width, height))
    inside: NDArray[np.bool_] = np.all(edges[:, 2:] > edges[:, :2], axis=1)
    return edges, inside


def patches(image: NDArray[np.uint8] | Yuv, edges: Ints, size: int) -> Floats:
    """Return rectangles of an image, resized to ``[N, 3, size, size]``, without processing the rest of the image.

    ``edges`` are integers (x1, y1, x2, y2). Parts outside the image are black. Of rectangles much larger than ``size``,
    only every second, third, ... pixel is used, which bounds the cost.
    """
    if not len(edges):
        return np.empty((0, 3, size, size), np.float32)
    if len(edges) > TOGETHER:
        parts = np.split(edges, range(TOGETHER, len(edges), TOGETHER))
        return np.concatenate([patches(image, part, size) for part in parts])
    steps = np.maximum((edges[:, 2:] - edges[:, :2]).max(axis=1) // (ENOUGH * size), 1)
    sides = -(-(edges[:, 2:] - edges[:, :2]) // steps[:, None])
    left = np.cumsum(sides[:, 0]) - sides[:, 0]
    canvas = np.zeros((int(sides[:, 1].max()), int(sides[:, 0].sum()), 3), np.uint8)
    for (x1, y1, x2, y2), start, step in zip(edges.tolist(), left.tolist(), steps.tolist(), strict=True):
        x, y = max(x1, 0), max(y1, 0)
        part = bgr(image, x, y, min(max(x2, x), image.shape[1]), min(max(y2, y), image.shape[0]))[::step, ::step]
        top, first = (y - y1) // step, start + (x - x1) // step
        canvas[top : top + part.shape[0], first : first + part.shape[1]] = part
    copies = np.stack((left, np.zeros_like(left), left + sides[:, 0], sides[:, 1]), axis=1)
    return Windows(canvas).crops(copies, size)


def _edges(length: int | Ints, count: int) -> tuple[Ints, Ints]:
    """Return the begin and end of ``count`` windows over ``length`` pixels, as in torch's AdaptiveAvgPool2d."""
    index = np.arange(count)
    return index * length // count, -((index + 1) * -length // count)


def _means(sums: NDArray[np.int32], area: Ints) -> Floats:
    pixels = sums.astype(np.float32, order="C")  # convert first: numpy would multiply integers in 64 bits
    pixels *= (1 / area).astype(np.float32)
    return pixels


def _normalised(pixels: Floats) -> Floats:
    pixels *= np.float32(1 / 128)
    pixels -= np.float32(127.5 / 128)
    return pixels
