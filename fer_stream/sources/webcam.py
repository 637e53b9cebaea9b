"""Webcams, which OpenCV opens. They were not tested with real devices."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2

from fer_stream.errors import SourceError
from fer_stream.types import Picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Webcam:
    """A webcam by its number. It has no regular end, so an end is an error.

    Raises:
        SourceError: it does not exist or cannot be opened; it is ``transient``.
    """

    live = True
    frames: int | None = None

    def __init__(self, number: int) -> None:
        self._name = f"webcam {number}"
        self._lock = threading.Lock()
        self._closed = False
        self._capture = cv2.VideoCapture(number)
        if self._capture.isOpened():
            return
        device = Path(f"/dev/video{number}")
        if device.exists():
            raise SourceError(
                f"{self._name} cannot be opened; another program uses it, or you may not read {device}", transient=True
            )
        webcams = ", ".join(sorted(p.name.removeprefix("video") for p in device.parent.glob("video*"))) or "none"
        raise SourceError(f"there is no {self._name}; this machine has: {webcams}", transient=True)

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
