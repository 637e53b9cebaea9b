"""A ``cv2.VideoCapture`` as a live source or as a recording."""

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
"""Share of a nominal value that counts as all of it, as lengths and times are approximate: a recording that ends before
this share of its length is truncated, and a read that took this share of its timeout has timed out."""

NEVER = 1e12
"""Time stamps of this many ms (32 years) or more, and NaN, are invalid."""

MJPEG = frozenset({b"MJPG", b"mjpg", b"jpeg"})
"""FOURCC codes of FFmpeg and OpenCV for streams in which each packet is a JPEG picture."""


class Capture:
    """A ``cv2.VideoCapture`` that one thread may close while another one reads.

    ``opened`` is whether it can be read at all, ``closed`` whether `close` was called.
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
        """Make `read` return undecoded JPEGs, from the first picture on, if the stream consists of them.

        Return ``False`` if FFmpeg would not show the first JPEG unchanged (it has two fields, is rotated or damaged):
        the caller must then reopen the video and decode it. A stream of another kind is decoded as before.
        """
        if (int(self.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little") not in MJPEG:
            return True
        size = self.get(cv2.CAP_PROP_FRAME_HEIGHT), self.get(cv2.CAP_PROP_FRAME_WIDTH), 3
        upright = not self.get(cv2.CAP_PROP_ORIENTATION_META)
        self._packets = self._capture.set(cv2.CAP_PROP_FORMAT, -1)
        first = self.read() if self._packets else None
        if first is None or not isinstance(first[0], Jpeg):
            return True
        self._first = first[0], first[1]
        try:
            return upright and first[0].shape == size and first[0].plain
        except WireError:
            return False

    def read(self, allocate: Allocate | None = None) -> tuple[NDArray[np.uint8] | Jpeg, float] | None:
        """Return the next picture, BGR or undecoded, and its time stamp in ms; ``None`` at the end.

        A picture of the same shape as the last one is written to the memory that ``allocate`` returns.
        """
        try:
            with self._lock:
                if self.closed:
                    return None
                if self._first is not None:
                    first, self._first = self._first, None
                    return first
                room = allocate(self._shape) if allocate and self._shape and not self._packets else None
                good, image = self._capture.read(room)  # OpenCV makes a new array if this one does not fit
                if not good:
                    return None
                self._shape = image.shape
                content = Jpeg(image.tobytes()) if self._packets else cast("NDArray[np.uint8]", image)
                return content, self._capture.get(cv2.CAP_PROP_POS_MSEC)
        finally:
            if self.closed:  # close() was called while this thread held the lock
                self.close()

    def close(self) -> None:
        """Release the device or file, at the latest when the current read returns."""
        self.closed = True
        if self._lock.acquire(blocking=False):  # otherwise the reader releases: doing so during a read crashes
            self._capture.release()
            self._lock.release()


def open_video(connect: Callable[[], Capture], decode: bool) -> Capture:
    """Open a video. Unless ``decode`` is set, a video of JPEGs is read undecoded."""
    capture = connect()
    if decode or capture.pass_through():
        return capture
    capture.close()
    return connect()


class Live:
    """A webcam or a stream. It has no regular end, so an end is an error."""

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
            SourceError: no picture came within the timeout, or the device or the connection is gone.
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
        capture: The open video.
        reopen: Opens the video again for each repetition, as not every container can be rewound.
        name: The video's name in errors.
        settings: The camera's settings; `rate` and `loop` are used here.
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
            SourceError: the video has no picture, or ends long before its stated length.
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
        if self._closed:  # by another thread, during the reopening
            self._capture.close()
        self._stamps.rewind()
        self._read, self._reached = 0, 0.0

    def _check_end(self) -> None:
        if not self._read:
            raise SourceError(f"no picture can be read from {self._name}; it is truncated or damaged")
        # Check count and time: a file with a varying rate has fewer frames than its length times its rate.
        enough = COMPLETE * self._announced
        if self._read < enough and self._reached / self._period + 1 < enough:
            raise SourceError(
                f"{self._name} is truncated: frame {self._read} of {self._announced} is the last that can be read"
            )


class Stamps:
    """A recording's time: nanoseconds since its first picture, strictly increasing, also across repetitions.

    Args:
        period: Milliseconds between two pictures, used where the container has no valid stamp.
        rate: Pictures per second; if given, it replaces the container's stamps.
    """

    def __init__(self, period: float, rate: float | None) -> None:
        self._period = round(period * 1e6)
        self._rate = rate
        self._count = 0
        self._last = -self._period
        self._shift: int | None = None

    def next(self, position: float) -> int:
        """Return the offset (ns) of the next picture, which the container places at ``position`` ms."""
        if self._rate:
            self._last = round(self._count * 1e9 / self._rate)
            self._count += 1
            return self._last
        stamp = round(position * 1e6) if abs(position) < NEVER else 0
        if self._shift is None:
            self._shift = self._last + self._period - stamp
        # Some containers stamp their last picture 0, repeat stamps, or have none.
        self._last = stamp + self._shift if stamp + self._shift > self._last else self._last + self._period
        return self._last

    def rewind(self) -> None:
        """Begin again: the next picture follows one period after the last one."""
        self._shift = None
