"""JPEGs as cameras encode them: they are passed on unchanged, and decoded only where their pixels are needed."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import cv2
import imagesize
import numpy as np

from fer_stream.errors import WireError
from fer_stream.imaging.limits import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Buffer = bytes | bytearray | memoryview

_SEQUENTIAL = (0xC0, 0xC1)
"""Starts of frames of baseline and extended JPEGs, the ones that cameras make."""

_APP1, _SCAN, _END = 0xE1, 0xDA, b"\xff\xd9"

MAX_BYTES = 3 * MAX_PIXELS
"""Bytes of a JPEG that is passed on: as many as its pixels may have."""

MAX_MARKERS = 512
"""Markers that are read before a JPEG's size; more are no picture, but a way to keep the reader busy."""


class Jpeg:
    """A JPEG, parsed and decoded on demand. Any bytes are accepted; errors are raised by the first use."""

    __slots__ = ("_image", "_shape", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        """What the camera sent."""
        self._image: NDArray[np.uint8] | None = None
        self._shape: tuple[int, int, int] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(H, W, 3)`` as its header says, without decoding.

        Raises:
            WireError: there is no such header, or the end is missing.
        """
        if self._shape is not None:
            return self._shape
        width, height = header_size(self.data)
        scan = next((end for marker, _, end in _segments(self.data) if marker == _SCAN), len(self.data))
        if self.data.rfind(_END, scan) < 0:
            raise WireError("a JPEG that is cut short")
        self._shape = height, width, 3
        return self._shape

    @property
    def plain(self) -> bool:
        """Whether it is grey or in colour, of 8 bits, in one scan, and shown as it lies: nothing else is passed on.

        Extra scans are cheap to send and expensive to decode: the capture decodes such a JPEG itself.

        Raises:
            WireError: it has no header.
        """
        if len(self.data) > MAX_BYTES:
            return False
        frames, components = [], b""
        for marker, begin, _ in _segments(self.data):
            if marker == _APP1 and self.data.startswith(b"Exif", begin):
                return False  # it may have to be turned
            if _begins_frame(marker):
                bits, components = self.data[begin : begin + 1], self.data[begin + 5 : begin + 6]
                frames.append(marker in _SEQUENTIAL and bits == b"\x08" and components in (b"\x01", b"\x03"))
            if marker == _SCAN and self.data[begin : begin + 1] != components:
                return False
        return frames == [True]

    def decode(self) -> NDArray[np.uint8]:
        """Return its pixels, uint8 ``[H, W, 3]`` in BGR order, the right way up; they are decoded once.

        Raises:
            WireError: it does not decode.
        """
        if self._image is None:
            self._image = decode(self.data)
        return self._image


def decode(data: Buffer) -> NDArray[np.uint8]:
    """Return the pixels, uint8 ``[H, W, 3]`` in BGR order, of a JPEG, PNG, TIFF or another image that OpenCV knows.

    The size in its header is checked first: a few kilobytes can decode to gigabytes.

    Raises:
        WireError: it does not decode, or has more than `fer_stream.imaging.limits.MAX_PIXELS` pixels.
    """
    try:
        width, height = _size(data)
    except WireError as error:
        raise WireError(f"a picture that does not decode: {error}") from error
    if width * height > MAX_PIXELS:
        raise WireError(f"a picture of {width}x{height} is over the limit of {MAX_PIXELS} pixels")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise WireError("a picture that does not decode: it is damaged")
    return image.astype(np.uint8, copy=False)


def _size(data: Buffer) -> tuple[int, int]:
    """Return an image's ``(width, height)`` from its header.

    Raises:
        WireError: there is none that is known.
    """
    if bytes(data[:2]) == b"\xff\xd8":
        return header_size(data)
    try:
        # SVG, which begins with "<", OpenCV does not read, and its parser is one for XML.
        width, height = (0, 0) if bytes(data[:1]) == b"<" else imagesize.get(io.BytesIO(data))
    except Exception as error:  # whatever it makes of a damaged header
        raise WireError("its header is damaged") from error
    if width <= 0 or height <= 0:
        raise WireError("it is of no kind that is known")
    return width, height


def header_size(data: Buffer) -> tuple[int, int]:
    """Return ``(width, height)`` from a JPEG's start-of-frame header, without decoding (ITU-T T.81, B.2.2).

    A few kilobytes can decode to gigabytes, so callers check the size before they decode.

    Raises:
        WireError: no such header.
    """
    for marker, begin, _ in _segments(data):
        if _begins_frame(marker):
            height, width = struct.unpack_from("!HH", data, begin + 1)
            return width, height
    raise WireError("a JPEG without a start of frame")


def _segments(data: Buffer) -> Iterator[tuple[int, int, int]]:
    """Yield each segment of a JPEG's header, up to the first scan's: its marker, where it begins behind it, its end.

    Of `MAX_MARKERS` at most, and none of fewer than 5 bytes.

    Raises:
        WireError: while iterating, what comes is none.
    """
    view = memoryview(data)
    if bytes(view[:2]) != b"\xff\xd8":
        raise WireError("not a JPEG")
    at, marker = 2, 0
    for _ in range(MAX_MARKERS):
        if at + 9 > len(view) or marker == 0xDA:
            return
        marker = view[at + 1]
        if view[at] != 0xFF or marker == 0x00:  # behind which decoders would look for the next one, within a segment
            raise WireError("a JPEG with a broken marker")
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            at += 2
        else:
            begin, at = at + 4, at + 2 + max(2, struct.unpack_from("!H", view, at + 2)[0])
            yield marker, begin, at


def _begins_frame(marker: int) -> bool:
    """Return whether a JPEG's marker is one of those that begin a frame, whose size comes then."""
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
