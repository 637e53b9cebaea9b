"""Webcams, opened with OpenCV. This was not tested with a real device."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2

from fer_stream.errors import SourceError
from fer_stream.types import Picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.settings.tree import CameraSettings

_log = logging.getLogger(__name__)


class Webcam:
    """A webcam. It has no regular end, so an end is an error.

    Args:
        number: its number, from 0.
        settings: the camera's settings; `format`, `size` and `rate` choose its mode.

    Raises:
        SourceError: it does not exist or cannot be opened; it is ``transient``.
    """

    live = True
    frames: int | None = None

    def __init__(self, number: int, settings: CameraSettings) -> None:
        self._name = f"webcam {number}"
        self._lock = threading.Lock()
        self._closed = False
        self._capture = cv2.VideoCapture(number)
        if self._capture.isOpened():
            self._choose(settings)
            return
        if sys.platform != "linux":  # webcams have no files
            raise SourceError(
                f"{self._name} cannot be opened: it does not exist, another program uses it, or this one needs the "
                "permission to use the camera",
                transient=True,
            )
        device = Path(f"/dev/video{number}")
        if device.exists():
            raise SourceError(
                f"{self._name} cannot be opened; another program uses it, or you may not read {device}", transient=True
            )
        webcams = ", ".join(sorted(p.name.removeprefix("video") for p in device.parent.glob("video*"))) or "none"
        raise SourceError(f"there is no {self._name}; this machine has: {webcams}", transient=True)

    def _choose(self, settings: CameraSettings) -> None:
        wanted: dict[int, float] = {}
        if settings.format:  # before the size: each format has its own sizes
            wanted[cv2.CAP_PROP_FOURCC] = cv2.VideoWriter.fourcc(*settings.format)
        if settings.size:
            width, height = map(int, settings.size.split("x"))
            wanted |= {cv2.CAP_PROP_FRAME_WIDTH: width, cv2.CAP_PROP_FRAME_HEIGHT: height}
        if settings.rate:
            wanted[cv2.CAP_PROP_FPS] = settings.rate
        for number, value in wanted.items():
            self._capture.set(number, value)
        wanted.pop(cv2.CAP_PROP_FPS, None)  # if the rate is higher, the capture process drops frames
        if any(self._capture.get(number) != value for number, value in wanted.items()):
            code = int(self._capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
            _log.warning(
                "%s does not offer %s; it gives %s %dx%d. fer-stream doctor lists its modes",
                self._name,
                " ".join(filter(None, (settings.format, settings.size))),
                code.to_bytes(4, "little").decode("ascii", "replace"),
                self._capture.get(cv2.CAP_PROP_FRAME_WIDTH),
                self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT),
            )

    def read(self) -> Picture | None:
        """Return the next picture; ``None`` after `close`.

        Raises:
            SourceError: the device is gone.
        """
        try:
            with self._lock:
                if self._closed:
                    return None
                good, image = self._capture.read()
        finally:
            if self._closed:  # by another thread, while this one held the lock
                self.close()
        if good:
            return Picture(cast("NDArray[np.uint8]", image))
        if self._closed:
            return None
        raise SourceError(f"{self._name} has stopped sending pictures")

    def close(self) -> None:
        """Release the device, at the latest when the current read returns."""
        self._closed = True
        if self._lock.acquire(blocking=False):  # otherwise the reader releases: doing so during a read crashes
            self._capture.release()
            self._lock.release()
