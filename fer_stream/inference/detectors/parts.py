"""Resizes parts of a picture for the nets quickly, where boxes need not be exactly those of facenet-pytorch.

A part is halved, plane by plane, until it is less than twice as large as the result. The result is interpolated from
that, and converted to BGR last. So most of the work is done on single bytes, and conversion touches few pixels.
`fer_stream.inference.detectors.windows` averages over windows with integer edges instead: the results differ slightly.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from fer_stream.imaging.geometry import centre
from fer_stream.imaging.yuv import Yuv, to_bgr
from fer_stream.types import Box

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from fer_stream.types import Face, Region

    Floats = NDArray[np.float32]
    Ints = NDArray[np.intp]
    Bytes = NDArray[np.uint8]


class Parts:
    """Resizes parts of one region of a picture for the nets: float32 ``[N, 3, h, w]``, BGR, -1..1.

    Outside the picture, its border is repeated.

    The region can be turned, so that heads that lean are upright. Its width, height, levels and crops are then those of
    the smallest rectangle, upright in the turned picture, around the region; `to_picture` converts coordinates back.

    Args:
        image: the picture, uint8 ``[H, W, 3]``, BGR; or planar.
        region: the region, by default the whole picture. It is clipped to the picture.
        angle: the lean of the heads that become upright, in degrees, clockwise as seen in the picture.
    """

    def __init__(self, image: Bytes | Yuv, region: Region | None = None, angle: float = 0.0) -> None:
        self.image = image
        height, width = image.shape[:2]
        left, top, right, bottom = region or (0, 0, width, height)
        self.x, self.y = max(left, 0), max(top, 0)
        """The region's corner in the picture, in pixels."""
        across, down = max(min(right, width) - self.x, 0), max(min(bottom, height) - self.y, 0)
        self.width, self.height = across, down
        self.whole = (down, across) == (height, width)
        """Whether the region is the whole picture."""
        self.angle = angle
        self._across, self._down = (1.0, 0.0), (0.0, 1.0)  # one pixel to the right and one down, in the picture
        self._corner = float(self.x), float(self.y)
        if angle:
            cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            self.width = math.ceil(across * abs(cosine) + down * abs(sine))
            self.height = math.ceil(across * abs(sine) + down * abs(cosine))
            self._across, self._down = (cosine, sine), (-sine, cosine)
            x, y = self._apart(-self.width / 2, -self.height / 2)
            self._corner = self.x + across / 2 + x, self.y + down / 2 + y
        self._planes = [(image.y, 1), (image.u, 2), (image.v, 2)] if isinstance(image, Yuv) else [(image, 1)]
        to_net = to_bgr(image.colour) if isinstance(image, Yuv) else np.eye(3, 4, dtype=np.float32)
        self._to_net: list[list[float]] = ((to_net - [0, 0, 0, 127.5]) / 128).tolist()
        """The matrix ``[3, 4]`` from three planes and 1 to the nets' input."""

    def levels(self, scales: Iterable[float]) -> Iterator[Floats]:
        """Yield the region at each scale: ``[1, 3, h, w]``. Scales must fall, as each level is made from the last."""
        whole = 0.0, 0.0, float(self.width), float(self.height)
        sources = [(plane, self._place(whole, step)) for plane, step in self._planes]
        for scale in scales:
            height, width = int(self.height * scale + 1), int(self.width * scale + 1)
            levels = [_resized(plane, place, height, width) for plane, place in sources]
            yield self._converted(_stacked(levels)[:, None])
            sources = [(level, _Place((0, 0), (width, 0), (0, height))) for level in levels]

    def crops(self, edges: Ints, size: int) -> Floats:
        """Return rectangles of the region, given by their edges (x1, y1, x2, y2): ``[N, 3, size, size]``."""
        resized = np.empty((3, len(edges), size, size), np.uint8)
        for i, rectangle in enumerate(edges.tolist()):
            crops = [_resized(plane, self._place(rectangle, step), size, size) for plane, step in self._planes]
            resized[:, i] = _stacked(crops)
        return self._converted(resized)

    def part(self, region: Region, angle: float = 0.0) -> Parts:
        """Return another region of the same picture."""
        return Parts(self.image, region, angle)

    def to_picture(self, face: Face) -> Face:
        """Return a face found in the region as it is in the picture.

        If the region is turned, the box has the same centre and area, and is about as wide and high as the head.
        """
        if not self.angle:
            x1, y1, x2, y2 = face.box
            box = Box(x1 + self.x, y1 + self.y, x2 + self.x, y2 + self.y)
            return replace(face, box=box, landmarks=tuple((x + self.x, y + self.y) for x, y in face.landmarks))
        box = self._turned(face.box, self._there(*centre(face.box)))
        return replace(face, box=box, landmarks=tuple(self._there(x, y) for x, y in face.landmarks))

    def from_picture(self, box: Box) -> Box:
        """Return a box of the picture as it is in the region."""
        if not self.angle:
            x1, y1, x2, y2 = box
            return Box(x1 - self.x, y1 - self.y, x2 - self.x, y2 - self.y)
        x, y = centre(box)
        x, y = x - self._corner[0], y - self._corner[1]
        (ax, ay), (dx, dy) = self._across, self._down
        return self._turned(box, (x * ax + y * ay, x * dx + y * dy))

    def _turned(self, box: Box, middle: tuple[float, float]) -> Box:
        """Return the upright box of the same area around a turned box, with this centre."""
        width, height = box.x2 - box.x1, box.y2 - box.y1
        cosine, sine = self._across
        across, down = math.hypot(width * cosine, height * sine), math.hypot(width * sine, height * cosine)
        share = math.sqrt(abs(width * height) / max(across * down, 1e-9)) / 2
        (x, y), across, down = middle, across * share, down * share
        return Box(x - across, y - down, x + across, y + down)

    def _there(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the region, counted from its corner, is in the picture, in pixels."""
        across, down = self._apart(x, y)
        return self._corner[0] + across, self._corner[1] + down

    def _apart(self, x: float, y: float) -> tuple[float, float]:
        """Return the vector in the picture for a vector in the region."""
        return x * self._across[0] + y * self._down[0], x * self._across[1] + y * self._down[1]

    def _place(self, rectangle: Sequence[float], step: int) -> _Place:
        """Return where a rectangle of the region is in a plane with a sample for each ``step`` pixels."""
        x1, y1, x2, y2 = rectangle
        corner, across, down = self._there(x1, y1), self._apart(x2 - x1, 0), self._apart(0, y2 - y1)
        return _Place(*((x / step, y / step) for x, y in (corner, across, down)))

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


class _Place(NamedTuple):
    """A rectangle in a plane, perhaps turned and partly outside: its top left corner, and its two sides as vectors."""

    corner: tuple[float, float]
    across: tuple[float, float]
    down: tuple[float, float]


def _resized(plane: Bytes, place: _Place, height: int, width: int) -> Bytes:
    """Return a rectangle of a plane, resized to ``[height, width]``."""
    (x, y), (ax, ay), (dx, dy) = place.corner, place.across, place.down
    shrunk = math.hypot(ax, ay) / width, math.hypot(dx, dy) / height
    most = 2 ** int(math.log2(max(min(shrunk), 1)))
    left, right = _span(x + min(ax, 0) + min(dx, 0), x + max(ax, 0) + max(dx, 0), plane.shape[1], most)
    top, bottom = _span(y + min(ay, 0) + min(dy, 0), y + max(ay, 0) + max(dy, 0), plane.shape[0], most)
    part, step = plane[top:bottom, left:right], 1
    while step < most and min(part.shape[:2]) > 1:
        half = part.shape[1] // 2, part.shape[0] // 2
        part = cv2.resize(part[: 2 * half[1], : 2 * half[0]], half, interpolation=cv2.INTER_AREA).astype(
            np.uint8, copy=False
        )
        step *= 2
    ax, ay, dx, dy = ax / width, ay / width, dx / height, dy / height
    # Column i of the result covers i to i + 1 times (ax, ay). OpenCV's coordinates are those of pixels' centres.
    to_part = np.array(
        [
            [ax / step, dx / step, (x - left + (ax + dx) / 2) / step - 0.5],
            [ay / step, dy / step, (y - top + (ay + dy) / 2) / step - 0.5],
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
