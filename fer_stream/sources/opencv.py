"""Cameras, streams, video files and images, as OpenCV reads them.

| address                                        | what it is                                      | live |
|------------------------------------------------|-------------------------------------------------|------|
| ``0``, ``/dev/video0``                         | a webcam                                        | yes  |
| ``rtsp://``, ``rtsps://``, other FFmpeg URLs   | a stream                                        | yes  |
| ``http://``, ``https://``                      | a stream, or a recording if it has a length     |      |
| a video file, a GIF                            | a recording with its own time stamps            | no   |
| an image, a folder of images                   | a recording (see `fer_stream.sources.images`)   | no   |
"""

from __future__ import annotations

import math
import re
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fer_stream.config import redact
from fer_stream.errors import SourceError
from fer_stream.sources._cv2 import cv2
from fer_stream.sources.images import Images, is_image
from fer_stream.types import Picture

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.config import CameraSettings
    from fer_stream.plugins import Source

COMPLETE = 0.9
"""Containers only estimate their length: a file that ends before this part of it is truncated."""

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935}


def open_source(address: str, settings: CameraSettings) -> Source:
    """Open whatever ``address`` names (see the table above).

    Raises:
        SourceError: there is nothing, or nothing that gives pictures. The message holds no password.
    """
    if webcam := re.fullmatch(r"(?:/dev/video)?(\d{1,3})", address):
        return _Live(_open_webcam(int(webcam[1])), f"webcam {int(webcam[1])}", settings)
    if "://" in address:
        return _open_url(address, settings)
    path = Path(address).expanduser()
    try:
        if path.is_dir() or is_image(path):
            return Images(path, settings)
        _check_video(path)
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {error.strerror}") from error

    def open_file() -> _Capture:
        # Without the scheme FFmpeg takes "12:30.mp4" for a protocol and "%03d.mp4" for a pattern.
        capture = _Capture(cv2.VideoCapture(f"file:{path}", cv2.CAP_FFMPEG))
        if not capture.opened:
            raise SourceError(
                f"{str(path)!r} cannot be read as a video; it is truncated, damaged, or of a format that is not known"
            )
        return capture

    return _Recording(open_file(), open_file, repr(str(path)), settings)


class _Capture:
    """A ``cv2.VideoCapture`` that another thread may close while one reads."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self._lock = threading.Lock()
        self.opened = capture.isOpened()
        self.closed = False

    def get(self, prop: int) -> float:
        return self._capture.get(prop)

    def read(self) -> tuple[NDArray[np.uint8], float] | None:
        """Return the next picture and its time stamp in ms; ``None`` if there is none, or after `close`."""
        try:
            with self._lock:
                if self.closed:
                    return None
                good, image = self._capture.read()
                return (_to_bgr(image), self._capture.get(cv2.CAP_PROP_POS_MSEC)) if good else None
        finally:
            if self.closed:  # while the lock was ours
                self.close()

    def close(self) -> None:
        self.closed = True
        if self._lock.acquire(blocking=False):  # else the reader closes: releasing under a reader crashes
            self._capture.release()
            self._lock.release()


class _Live:
    """A webcam or a stream: it has no end, so whatever ends it is an error."""

    live = True
    frames = None

    def __init__(self, capture: _Capture, name: str, settings: CameraSettings) -> None:
        self._capture = capture
        self._name = name
        self._timeout = settings.read_timeout

    def read(self) -> Picture | None:
        begin = time.monotonic()
        got = self._capture.read()
        if got is not None:
            return Picture(got[0])
        if self._capture.closed:
            return None
        if time.monotonic() - begin > COMPLETE * self._timeout:
            raise SourceError(f"{self._name} has sent no picture for {self._timeout:g} s")
        raise SourceError(f"{self._name} has stopped sending pictures")

    def close(self) -> None:
        self._capture.close()


class _Recording:
    """A video with a beginning and an end. Its loops are opened anew, for not every container can be rewound."""

    live = False

    def __init__(self, capture: _Capture, reopen: Callable[[], _Capture], name: str, settings: CameraSettings) -> None:
        self._capture = capture
        self._reopen = reopen
        self._closed = False
        self._name = name
        self._loop = settings.loop
        count, fps = self._capture.get(cv2.CAP_PROP_FRAME_COUNT), self._capture.get(cv2.CAP_PROP_FPS)
        self._announced = int(count) if 0 < count < 2**31 else 0
        self._period = 1000 / fps if 0 < fps <= 1000 else 40.0
        self._stamps = _Stamps(self._period, settings.rate)
        self._read = 0
        self._position = 0.0
        self.frames = None if self._loop else self._announced or None

    def read(self) -> Picture | None:
        got = self._capture.read()
        if got is None and self._loop and self._read and not self._closed:
            self._rewind()
            got = self._capture.read()
        if got is None:
            if not self._closed:
                self._check_end()
            return None
        image, self._position = got
        self._read += 1
        return Picture(image, self._stamps.next(self._position))

    def close(self) -> None:
        self._closed = True
        self._capture.close()

    def _rewind(self) -> None:
        self._capture.close()
        self._capture = self._reopen()
        if self._closed:  # meanwhile, by another thread
            self._capture.close()
        self._stamps.rewind()
        self._read = 0

    def _check_end(self) -> None:
        if not self._read:
            raise SourceError(f"no picture can be read from {self._name}; it is truncated or damaged")
        # Both, because a file of a varying rate rightly has fewer frames than its length times its rate.
        enough = COMPLETE * self._announced
        if self._read < enough and self._position / self._period + 1 < enough:
            raise SourceError(
                f"{self._name} is truncated: frame {self._read} of {self._announced} is the last that can be read"
            )


class _Stamps:
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
        stamp = round(position * 1e6) if math.isfinite(position) else 0
        if self._shift is None:
            self._shift = self._last + self._period - stamp
        # Some containers stamp their last picture 0, some repeat stamps, some have none.
        self._last = stamp + self._shift if stamp + self._shift > self._last else self._last + self._period
        return self._last

    def rewind(self) -> None:
        """The recording begins again: its first picture follows one period after its last."""
        self._shift = None


def _to_bgr(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``image`` (grey, BGR or BGRA, 8 or 16 bits) as uint8 ``[H, W, 3]``, C-contiguous."""
    if image.dtype != "uint8":
        image = cv2.convertScaleAbs(image, alpha=1 / 256)
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels == 3:
        return image
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR)


def _open_webcam(index: int) -> _Capture:
    capture = _Capture(cv2.VideoCapture(index))
    if capture.opened:
        return capture
    device = Path(f"/dev/video{index}")
    if device.exists():
        raise SourceError(f"webcam {index} cannot be opened; another program uses it, or you may not read {device}")
    there = ", ".join(sorted(p.name.removeprefix("video") for p in device.parent.glob("video*"))) or "none"
    raise SourceError(f"there is no webcam {index}; this machine has: {there}")


def _open_url(address: str, settings: CameraSettings) -> Source:
    name = redact(address)

    def connect() -> _Capture:
        begin = time.monotonic()
        limits = {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: int(settings.open_timeout * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: int(settings.read_timeout * 1000),
            cv2.CAP_PROP_N_THREADS: 1,  # FFmpeg holds back a picture for each further one
        }
        parameters = [number for pair in limits.items() for number in pair]
        capture = _Capture(cv2.VideoCapture(address, cv2.CAP_FFMPEG, parameters))
        if not capture.opened:
            if time.monotonic() - begin > COMPLETE * settings.open_timeout:
                raise SourceError(f"{name} cannot be opened: no answer within {settings.open_timeout:g} s")
            raise SourceError(f"{name} cannot be opened: {_reason(address, settings.open_timeout)}")
        return capture

    capture = connect()
    if address.startswith("http") and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        return _Recording(capture, connect, name, settings)
    return _Live(capture, name, settings)


def _reason(address: str, timeout: float) -> str:
    """Say why FFmpeg, which does not tell, could not open ``address``."""
    try:
        url = urlsplit(address)
        host, port = url.hostname, url.port or PORTS.get(url.scheme)
        if host and port:
            socket.create_connection((host, port), timeout).close()
    except OSError as error:
        return f"{(error.strerror or 'no answer').lower()}; check the address, and that the camera is on"
    except ValueError:
        return "it is not a valid address"
    return "it gives no video that can be read; check the path, the user name and the password"


def _check_video(path: Path) -> None:
    """Refuse what cannot be a video; FFmpeg would show a text file as a film of a terminal.

    Raises:
        SourceError: not a regular file, an empty one, or text.
        OSError: it is missing or may not be read.
    """
    if path.exists() and not path.is_file():
        raise SourceError(f"{str(path)!r} is neither a file nor a folder")
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise SourceError(f"{str(path)!r} is empty")
    # A video has zeros, or bytes that are not UTF-8; the last character may be cut in two.
    try:
        text = head[:-3].decode()
    except UnicodeDecodeError:
        return
    if "\0" not in text:
        raise SourceError(f"{str(path)!r} is a text file, not a video")
