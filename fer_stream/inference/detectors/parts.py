"""Resizes parts of a picture for the nets quickly, where boxes need not be exactly those of facenet-pytorch.

A part is halved, plane by plane, until it is less than twice as large as the result. The result is interpolated from
that, and converted to BGR last. So most of the work is done on single bytes, and conversion touches few pixels.
`fer_stream.inference.detectors.windows` averages over windows with integer edges instead: the results differ slightly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.imaging.yuv import Yuv, to_bgr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from fer_stream.types import Region

    Floats = NDArray[np.float32]
    Ints = NDArray[np.intp]
    Bytes = NDArray[np.uint8]


class Parts:
    """Resizes parts of one region of a picture for the nets: float32 ``[N, 3, h, w]``, BGR, -1..1.

    Outside the picture, its border is repeated.

    Args:
        image: the picture, uint8 ``[H, W, 3]``, BGR; or planar.
        region: the region, by default the whole picture. It is clipped to the picture.
    """

    def __init__(self, image: Bytes | Yuv, region: Region | None = None) -> None:
        self.image = image
        height, width = image.shape[:2]
        left, top, right, bottom = region or (0, 0, width, height)
        self.x, self.y = max(left, 0), max(top, 0)
        """The region's corner in the picture, in pixels."""
        self.width, self.height = max(min(right, width) - self.x, 0), max(min(bottom, height) - self.y, 0)
        self._planes = [(image.y, 1), (image.u, 2), (image.v, 2)] if isinstance(image, Yuv) else [(image, 1)]
        to_net = to_bgr(image.colour) if isinstance(image, Yuv) else np.eye(3, 4, dtype=np.float32)
        self._to_net: list[list[float]] = ((to_net - [0, 0, 0, 127.5]) / 128).tolist()
        """The matrix ``[3, 4]`` from three planes and 1 to the nets' input."""

    def levels(self, scales: Iterable[float]) -> Iterator[Floats]:
        """Yield the region at each scale: ``[1, 3, h, w]``. Scales must fall, as each level is made from the last."""
        edges = self.x, self.y, self.x + self.width, self.y + self.height
        sources = [(plane, [edge / step for edge in edges]) for plane, step in self._planes]
        for scale in scales:
            height, width = int(self.height * scale + 1), int(self.width * scale + 1)
            levels = [_resized(plane, where, height, width) for plane, where in sources]
            yield self._converted(_stacked(levels)[:, None])
            sources = [(level, [0, 0, width, height]) for level in levels]

    def crops(self, edges: Ints, size: int) -> Floats:
        """Return rectangles of the region, given by their edges (x1, y1, x2, y2): ``[N, 3, size, size]``."""
        resized = np.empty((3, len(edges), size, size), np.uint8)
        for i, rectangle in enumerate((edges + np.array([self.x, self.y] * 2)).tolist()):
            crops = [_resized(plane, [edge / step for edge in rectangle], size, size) for plane, step in self._planes]
            resized[:, i] = _stacked(crops)
        return self._converted(resized)

    def _converted(self, planes: Bytes) -> Floats:
        """Return the nets' input, ``[N, 3, h, w]``, for resized planes ``[3, N, h, w]``."""
        made = np.empty((planes.shape[1], 3, *planes.shape[2:]), np.float32)
        first, second, third = planes.reshape(3, planes.shape[1] * planes.shape[2], planes.shape[3])
        for i, (a, b, c, offset) in enumerate(self._to_net if planes.size else ()):
            # Not a matrix product, which would start threads of the BLAS library.
            channel = cv2.addWeighted(first, a, third, c, offset, dtype=cv2.CV_32F)
            if b:
                channel = channel + second * np.float32(b)
            made[:, i] = channel.reshape(planes.shape[1:])
        return made


def _stacked(planes: list[Bytes]) -> Bytes:
    """Return planes ``[h, w]``, or one picture ``[h, w, 3]``, as ``[3, h, w]``."""
    return planes[0].transpose(2, 0, 1) if len(planes) == 1 else np.stack(planes)


def _resized(plane: Bytes, edges: Sequence[float], height: int, width: int) -> Bytes:
    """Return a rectangle of a plane, resized to ``[height, width]``. Its edges (x1, y1, x2, y2) may be outside."""
    x1, y1, x2, y2 = edges
    across, down = (x2 - x1) / width, (y2 - y1) / height
    most = 2 ** int(math.log2(max(min(across, down), 1)))
    left, right = _span(x1, x2, plane.shape[1], most)
    top, bottom = _span(y1, y2, plane.shape[0], most)
    part, step = plane[top:bottom, left:right], 1
    while step < most and min(part.shape[:2]) > 1:
        half = part.shape[1] // 2, part.shape[0] // 2
        part = cv2.resize(part[: 2 * half[1], : 2 * half[0]], half, interpolation=cv2.INTER_AREA).astype(
            np.uint8, copy=False
        )
        step *= 2
    # Column i of the result covers i * across to (i + 1) * across. OpenCV's coordinates are those of pixels' centres.
    to_part = np.array(
        [
            [across / step, 0, (x1 - left + across / 2) / step - 0.5],
            [0, down / step, (y1 - top + down / 2) / step - 0.5],
        ]
    )
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    made = cv2.warpAffine(part, to_part, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE)
    return made.astype(np.uint8, copy=False)


def _span(start: float, end: float, length: int, multiple: int) -> tuple[int, int]:
    """Return the range of a plane's pixels that covers ``start`` to ``end``, a multiple of ``multiple`` if possible."""
    first = min(max(math.floor(start), 0), length - 1)
    count = -(-max(math.ceil(end) - first, 1) // multiple) * multiple
    return first, min(first + count, length)
