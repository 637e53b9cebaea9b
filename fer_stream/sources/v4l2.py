"""The modes that a webcam offers, from Linux's video driver interface (V4L2).

Layouts and numbers are those of ``linux/videodev2.h``. This was not tested with a real device.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.system import standard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_fcntl = standard.module("fcntl")

CAPTURE, DISCRETE = 1, 1
"""``V4L2_BUF_TYPE_VIDEO_CAPTURE``; ``V4L2_FRMSIZE_TYPE_DISCRETE`` and ``V4L2_FRMIVAL_TYPE_DISCRETE``."""

_FORMATS, _SIZES, _INTERVALS = 2, 74, 75
"""Numbers of ``VIDIOC_ENUM_FMT``, ``VIDIOC_ENUM_FRAMESIZES`` and ``VIDIOC_ENUM_FRAMEINTERVALS``."""

MAX_ENTRIES = 256
"""Maximum number of entries read from each list, in case a driver's list has no end."""

_FORMAT = struct.Struct("=III32s4s16x")  # index, type, flags, description, pixelformat
_SIZE = struct.Struct("=I4sIII16x8x")  # index, pixelformat, type, width, height
_INTERVAL = struct.Struct("=I4sIIIII16x8x")  # index, pixelformat, width, height, type, numerator, denominator


class Mode(NamedTuple):
    """A mode of a webcam."""

    format: str
    """Four-letter code of the pixel format, such as MJPG or YUYV."""
    width: int
    height: int
    rates: tuple[float, ...]
    """Frames/s, the highest first; empty if the driver gives no fixed rates."""

    def __str__(self) -> str:
        rates = f" at {', '.join(f'{rate:g}' for rate in self.rates)} frames/s" if self.rates else ""
        return f"{self.format} {self.width}x{self.height}{rates}"


def modes(device: Path) -> list[Mode]:
    """Return a webcam's modes with fixed sizes.

    Raises:
        OSError: the device cannot be opened.
    """
    if not hasattr(os, "O_NONBLOCK") or not hasattr(_fcntl, "ioctl"):
        raise OSError(errno.ENOSYS, "this system has no V4L2")
    descriptor = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    try:
        return [
            Mode(code.decode("ascii", "replace").strip(), width, height, tuple(_rates(descriptor, code, width, height)))
            for _, _, _, _, code in _entries(descriptor, _FORMATS, _FORMAT, (CAPTURE, 0, b"", bytes(4)))
            for _, _, kind, width, height in _entries(descriptor, _SIZES, _SIZE, (code, 0, 0, 0))
            if kind == DISCRETE
        ]
    finally:
        os.close(descriptor)


def _rates(descriptor: int, code: bytes, width: int, height: int) -> list[float]:
    found = _entries(descriptor, _INTERVALS, _INTERVAL, (code, width, height, 0, 0, 0))
    # The driver gives frame intervals, in seconds: their inverses are the rates.
    rates = {below / above for *_, kind, above, below in found if kind == DISCRETE and above}
    return sorted(rates, reverse=True)


def _entries(
    descriptor: int, number: int, layout: struct.Struct, arguments: tuple[object, ...]
) -> Iterator[tuple[Any, ...]]:
    """Yield the entries of one of the driver's lists. The driver marks the end of a list with an error."""
    request = 3 << 30 | layout.size << 16 | ord("V") << 8 | number  # _IOWR('V', number, layout)
    for index in range(MAX_ENTRIES):
        try:
            yield layout.unpack(_fcntl.ioctl(descriptor, request, layout.pack(index, *arguments)))
        except OSError:
            return
