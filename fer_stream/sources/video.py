"""What OpenCV has opened, as a live source or as a recording."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, cast

import cv2

from fer_stream.errors import SourceError, WireError
from fer_stream.imaging.jpeg import Jpeg
from fer_stream.types import Picture

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.plugins import Allocate
    from fer_stream.settings.tree import CameraSettings

COMPLETE = 0.9
"""Lengths and times are rough: a recording that ends before this part of its length is truncated, a wait that took
this part of its limit was cut off by it."""

NEVER = 1e12
"""A time stamp in ms (32 years) that no recording has; what is beyond it, or not a number, is no stamp."""


MJPEG = frozenset({b"MJPG", b"mjpg", b"jpeg"})
"""What FFmpeg and OpenCV call a stream whose packets are JPEGs, each a picture."""


class Capture:
    """A ``cv2.VideoCapture`` that another thread may close while one reads.

    ``opened`` tells whether it may be read at all, ``closed`` whether `close` was called.
    """

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self._lock = threading.Lock()
        self._packets = False
        self._shape: tuple[int, ...] | None = None
        self._first: tuple[Jpeg, float] | None = None
        self.opened = capture.isOpened()
        self.closed = False

    def get(self, prop: int) -> float:
        """Return a property (``cv2.CAP_PROP_...``)."""
        return self._capture.get(prop)

    def pass_through(self) -> bool:
        """Have `read` give each picture as it came, not decoded, from the first one on.

        Return ``False`` where that one is no JPEG that FFmpeg shows as it lies (two fields, turned, broken): then this
        is of no use any more, and is to be opened again. Where there are no JPEGs at all, nothing changes.
        """
        if (int(self.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little") not in MJPEG:
            return True
        size = self.get(cv2.CAP_PROP_FRAME_HEIGHT), self.get(cv2.CAP_PROP_FRAME_WIDTH), 3
        upright = not self.get(cv2.CAP_PROP_ORIENTATION_META)
        self._packets = self._capture.set(cv2.CAP_PROP_FORMAT, -1)
        got = self.read() if self._packets else None
        if got is None or not isinstance(got[0], Jpeg):
            return True
        self._first = got[0], got[1]
        try:
            return upright and got[0].shape == size and got[0].plain
        except WireError:
            return False

    def read(self, allocate: Allocate | None = None) -> tuple[NDArray[np.uint8] | Jpeg, float] | None:
        """Return the next picture, BGR or as it came, and its time stamp in ms; ``None`` at the end.

        One of the size of the last one is written to the memory that ``allocate`` gives.
        """
        try:
            with self._lock:
                if self.closed:
                    return None
                if self._first is not None:
                    first, self._first = self._first, None
                    return first
                room = allocate(self._shape) if allocate and self._shape and not self._packets else None
                good, image = self._capture.read(room)  # into another array, where this one does not fit
                if not good:
                    return None
                self._shape = image.shape
                content = Jpeg(image.tobytes()) if self._packets else cast("NDArray[np.uint8]", image)
                return content, self._capture.get(cv2.CAP_PROP_POS_MSEC)
        finally:
            if self.closed:  # while this thread held the lock
                self.close()

    def close(self) -> None:
        """Release the device or file, at the latest when the read that is under way returns."""
        self.closed = True
        if self._lock.acquire(blocking=False):  # else the reader closes: releasing under a reader crashes
            self._capture.release()
            self._lock.release()


def open_video(connect: Callable[[], Capture], decode: bool) -> Capture:
    """Open a video, which gives JPEGs undecoded where it consists of them, unless ``decode``."""
    capture = connect()
    if decode or capture.pass_through():
        return capture
    capture.close()
    return connect()


class Live:
    """A webcam or a stream: it has no regular end, so an end is an error."""

    live = True
    frames: int | None = None
    allocate: Allocate | None = None

    def __init__(self, capture: Capture, name: str, settings: CameraSettings) -> None:
        self._capture = capture
        self._name = name
        self._timeout = settings.read_timeout

    def read(self) -> Picture | None:
        """Return the next picture; ``None`` after `close`.

        Raises:
            SourceError: none came within the time limit, or the device or the peer has gone.
        """
        begin = time.monotonic()
        got = self._capture.read(self.allocate)
        if got is not None:
            return Picture(got[0])
        if self._capture.closed:
            return None
        if time.monotonic() - begin > COMPLETE * self._timeout:
            raise SourceError(f"{self._name} has sent no picture for {self._timeout:g} s")
        raise SourceError(f"{self._name} has stopped sending pictures")

    def close(self) -> None:
        """Release the device or connection."""
        self._capture.close()


class Recording:
    """A video with a beginning and an end.

    Args:
        capture: The video, opened.
        reopen: Opens it once more for each repetition, for not every container can be rewound.
        name: What to call it in an error.
        settings: The camera's; `rate` and `loop` matter here.
    """

    live = False
    allocate: Allocate | None = None

    def __init__(self, capture: Capture, reopen: Callable[[], Capture], name: str, settings: CameraSettings) -> None:
        self._capture = capture
        self._reopen = reopen
        self._closed = False
        self._name = name
        self._loop = settings.loop
        count, fps = self._capture.get(cv2.CAP_PROP_FRAME_COUNT), self._capture.get(cv2.CAP_PROP_FPS)
        self._announced = int(count) if 0 < count < 2**31 else 0
        self._period = 1000 / fps if 0 < fps <= 1000 else 40.0
        self._stamps = Stamps(self._period, settings.rate)
        self._read = 0
        self._reached = 0.0
        self.frames = None if self._loop else self._announced or None

    def read(self) -> Picture | None:
        """Return the next picture with its offset; ``None`` at the end, or after `close`.

        Raises:
            SourceError: there is no picture in it, or it ends long before its stated length.
        """
        got = self._capture.read(self.allocate)
        if got is None and self._loop and self._read and not self._closed:
            self._rewind()
            got = self._capture.read(self.allocate)
        if got is None:
            if not self._closed:
                self._check_end()
            return None
        image, position = got
        self._read += 1
        self._reached = max(self._reached, position)
        return Picture(image, self._stamps.next(position))

    def close(self) -> None:
        """Close the file."""
        self._closed = True
        self._capture.close()

    def _rewind(self) -> None:
        self._capture.close()
        self._capture = self._reopen()
        if self._closed:  # meanwhile, by another thread
            self._capture.close()
        self._stamps.rewind()
        self._read, self._reached = 0, 0.0

    def _check_end(self) -> None:
        if not self._read:
            raise SourceError(f"no picture can be read from {self._name}; it is truncated or damaged")
        # Both, because a file of a varying rate rightly has fewer frames than its length times its rate.
        enough = COMPLETE * self._announced
        if self._read < enough and self._reached / self._period + 1 < enough:
            raise SourceError(
                f"{self._name} is truncated: frame {self._read} of {self._announced} is the last that can be read"
            )


class Stamps:
    """A recording's time: nanoseconds since its first picture, always rising, going on over its repetitions.

    Args:
        period: Between two pictures, in ms, where the container does not tell.
        rate: Pictures a second that replace the container's stamps.
    """

    def __init__(self, period: float, rate: float | None) -> None:
        self._period = round(period * 1e6)
        self._rate = rate
        self._count = 0
        self._last = -self._period
        self._shift: int | None = None

    def next(self, position: float) -> int:
        """Return the offset of the next picture, whose container has it at ``position`` ms."""
        if self._rate:
            self._last = round(self._count * 1e9 / self._rate)
            self._count += 1
            return self._last
        stamp = round(position * 1e6) if abs(position) < NEVER else 0
        if self._shift is None:
            self._shift = self._last + self._period - stamp
        # Some containers stamp their last picture 0, some repeat stamps, some have none.
        self._last = stamp + self._shift if stamp + self._shift > self._last else self._last + self._period
        return self._last

    def rewind(self) -> None:
        """The recording begins again: its first picture follows one period after its last."""
        self._shift = None
