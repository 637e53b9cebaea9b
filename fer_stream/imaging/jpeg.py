"""JPEGs as cameras encode them. They are passed on unchanged, and decoded only if their pixels are needed."""

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
"""Start-of-frame markers of baseline and extended sequential JPEGs, which cameras use."""

_LOSSLESS = (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF)
"""Start-of-frame markers of lossless and hierarchical JPEGs."""

_APP1, _SCAN = 0xE1, 0xDA

START, END = b"\xff\xd8", b"\xff\xd9"
"""The first and the last marker of a JPEG."""

MAX_BYTES = 3 * MAX_PIXELS
"""Maximum size in bytes of a JPEG that is passed on: that of the largest decoded picture."""

MAX_MARKERS = 512
"""Maximum number of markers read from a JPEG's header. A file with more would only waste CPU time."""


class Jpeg:
    """A JPEG, parsed and decoded on demand. Any bytes are accepted; errors are raised on first use."""

    __slots__ = ("_image", "_shape", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        """The bytes that the camera sent."""
        self._image: NDArray[np.uint8] | None = None
        self._shape: tuple[int, int, int] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(H, W, 3)`` from the header, without decoding.

        Raises:
            WireError: there is no valid header, or the end marker is missing.
        """
        if self._shape is not None:
            return self._shape
        width, height = header_size(self.data)
        scan = next((end for marker, _, end in _segments(self.data) if marker == _SCAN), len(self.data))
        if self.data.rfind(END, scan) < 0:
            raise WireError("a JPEG that is cut short")
        self._shape = height, width, 3
        return self._shape

    @property
    def plain(self) -> bool:
        """Whether the JPEG is sequential, 8 bits, grey or colour, in one scan, without Exif data, at most `MAX_BYTES`.

        Only such JPEGs are passed on; the capture decodes all others itself. Extra scans, for example, are cheap to
        send and expensive to decode.

        Raises:
            WireError: there is no valid header.
        """
        if len(self.data) > MAX_BYTES:
            return False
        frames, components = [], b""
        for marker, begin, _ in _segments(self.data):
            if marker == _APP1 and self.data.startswith(b"Exif", begin):
                return False  # Exif may demand a rotation
            if _begins_frame(marker):
                bits, components = self.data[begin : begin + 1], self.data[begin + 5 : begin + 6]
                frames.append(marker in _SEQUENTIAL and bits == b"\x08" and components in (b"\x01", b"\x03"))
            if marker == _SCAN and self.data[begin : begin + 1] != components:
                return False
        return frames == [True]

    def decode(self) -> NDArray[np.uint8]:
        """Return the pixels, uint8 ``[H, W, 3]`` in BGR order, with the Exif rotation applied. The result is cached.

        Raises:
            WireError: the JPEG does not decode.
        """
        if self._image is None:
            self._image = decode(self.data)
        return self._image


def decode(data: Buffer) -> NDArray[np.uint8]:
    """Return the pixels, uint8 ``[H, W, 3]`` in BGR order, of an image in any format that OpenCV reads, except SVG.

    The size in the header is checked first: a few kilobytes can decode to gigabytes.

    Raises:
        WireError: the image does not decode, or has more than `fer_stream.imaging.limits.MAX_PIXELS` pixels.
    """
    try:
        width, height = image_size(data)
    except WireError as error:
        raise WireError(f"a picture that does not decode: {error}") from error
    if width * height > MAX_PIXELS:
        raise WireError(f"a picture of {width}x{height} is over the limit of {MAX_PIXELS} pixels")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise WireError(f"a picture that does not decode: {_fault(data)}")
    return image.astype(np.uint8, copy=False)


def image_size(data: Buffer) -> tuple[int, int]:
    """Return an image's ``(width, height)`` from its header.

    Raises:
        WireError: the header is damaged, or the format is unknown.
    """
    if bytes(data[:2]) == START:
        return header_size(data)
    try:
        # Do not let imagesize parse SVG, which begins with "<": it would use an XML parser, and OpenCV reads no SVG.
        width, height = (0, 0) if bytes(data[:1]) == b"<" else imagesize.get(io.BytesIO(data))
    except Exception as error:  # imagesize raises many kinds of errors on damaged headers
        raise WireError("its header is damaged") from error
    if width <= 0 or height <= 0:
        raise WireError("its format is unknown")
    return width, height


def header_size(data: Buffer) -> tuple[int, int]:
    """Return ``(width, height)`` from a JPEG's start-of-frame header, without decoding (ITU-T T.81, B.2.2).

    A few kilobytes can decode to gigabytes, so callers check the size before they decode.

    Raises:
        WireError: there is no valid header.
    """
    for marker, begin, _ in _segments(data):
        if _begins_frame(marker):
            height, width = struct.unpack_from("!HH", data, begin + 1)
            return width, height
    raise WireError("a JPEG without a start of frame")


def _segments(data: Buffer) -> Iterator[tuple[int, int, int]]:
    """Yield each segment of a JPEG's header, up to that of the first scan: marker, offset of its content, end offset.

    At most `MAX_MARKERS` markers are read. At least 5 bytes follow the offset of the content.

    Raises:
        WireError: while iterating, the bytes are not a JPEG, or a marker is invalid.
    """
    view = memoryview(data)
    if bytes(view[:2]) != START:
        raise WireError("not a JPEG")
    at, marker = 2, 0
    for _ in range(MAX_MARKERS):
        if at + 9 > len(view) or marker == 0xDA:
            return
        marker = view[at + 1]
        if view[at] != 0xFF or marker == 0x00:  # decoders would search for the next marker, even inside a segment
            raise WireError("a JPEG with a broken marker")
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            at += 2
        else:
            begin, at = at + 4, at + 2 + max(2, struct.unpack_from("!H", view, at + 2)[0])
            yield marker, begin, at


def _fault(data: Buffer) -> str:
    """Return why a picture does not decode, as far as its header tells."""
    for marker, begin, _ in _segments(data) if bytes(data[:2]) == START else ():
        if _begins_frame(marker) and (bits := data[begin]) != 8:
            return f"it has {bits} bits a colour, and only JPEGs of 8 bits can be read"
        if marker in _LOSSLESS:
            return "it is a lossless or hierarchical JPEG, which OpenCV does not read"
    return "it is damaged"


def _begins_frame(marker: int) -> bool:
    """Tell whether a JPEG marker is a start of frame (SOF0 to SOF15), whose segment holds the size."""
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
