"""Encodes frames as the camera's own JPEG, a new JPEG, or raw pixels, and scales them down if needed."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from fer_stream.imaging.jpeg import Jpeg
from fer_stream.imaging.yuv import Colour, Yuv, planar_or_bgr
from fer_stream.operations import metrics
from fer_stream.protocol import messages, shared
from fer_stream.protocol.messages import Encoding
from fer_stream.protocol.pace import FrameSizeControl, SlowLinkWarning
from fer_stream.settings.deployment import beyond

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fer_stream.settings.tree import CameraSettings
    from fer_stream.types import Frame

_log = logging.getLogger(__name__)


class Encoded(NamedTuple):
    """A frame's payload."""

    payload: messages.Buffer
    encoding: Encoding
    size: tuple[int, int]
    """Width and height in pixels."""
    colour: Colour = Colour.LIMITED_BT601


class Encoder:
    """Encodes one camera's frames. ``shares`` is whether the aggregator can open this process's shared memory."""

    def __init__(self, name: str, camera: CameraSettings, address: str, slots: int) -> None:
        """Set up one camera.

        Args:
            name: the camera's name.
            camera: the camera's settings.
            address: the aggregator's address, which decides the encoding for ``encoding = "auto"``.
            slots: most frames in shared memory at once.
        """
        self.shares = False
        self.encoding = _encoding(camera, address)
        self._name, self._camera = name, camera
        self._memory = shared.Writer(slots)
        self._warning, self._size_control = SlowLinkWarning(), FrameSizeControl(camera.transfer_time)

    def aim(self, address: str) -> None:
        """Encode for an aggregator at another address."""
        self.encoding = _encoding(self._camera, address)

    def room(self, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """Return shared memory for a picture of this shape, to be sent without a copy; ``None`` if there is none."""
        return self._memory.lend(shape) if self.shares and shape[1] <= self._widest(shape[1]) else None

    def encode(self, frame: Frame, number: int, resolved: int) -> Encoded:
        """Return the payload of the ``number``-th frame sent; the first ``resolved`` frames are resolved."""
        before = time.perf_counter()
        encoded = self._jpeg(frame)
        if encoded is not None:
            metrics.stage.labels("encode").observe(time.perf_counter() - before)
        else:
            encoded = self._pixels(frame, number, resolved)
        self._warning.size = memoryview(encoded.payload).nbytes
        return encoded

    def record_transfer(self, seconds: float) -> None:
        """Record the seconds that the last frame took to arrive; if they are many, make frames smaller and log it."""
        if self._size_control.took(seconds):
            scale = self._size_control.scale
            how = f"JPEG quality {self._quality}" if scale == 1 else f"{scale:g} of their size"
            _log.info("frames of camera %s are now sent at %s: the last one took %.1f s", self._name, how, seconds)
        if self._size_control.ends and (slow := self._warning.slow(seconds, time.monotonic())):
            key = f"cameras.{self._name}"
            advice = f"set a lower {key}.jpeg_quality or a {key}.max_width"
            if self.encoding is Encoding.RAW:
                advice = f'set {key}.encoding = "jpeg" (now raw pixels)'
            elif self._camera.transfer_time is None:
                advice += f", or adapt both to the link with {key}.transfer_time"
            _log.warning(
                "the link to the aggregator is slow: %s, so no more than %.2g frames/s of camera %s arrive; %s",
                *(slow, 1 / seconds, self._name, advice),
            )

    def close(self) -> None:
        """Release the shared memory of the frames that were sent."""
        self._memory.close()

    @property
    def _quality(self) -> int:
        return min(self._size_control.quality, self._camera.jpeg_quality)

    def _widest(self, width: int) -> int:
        scaled = max(1, round(width * self._size_control.scale))
        return scaled if self._camera.max_width is None else min(scaled, self._camera.max_width)

    def _jpeg(self, frame: Frame) -> Encoded | None:
        """Return a frame as JPEG, the camera's own if it need not be made smaller; ``None`` if it is sent as pixels."""
        width = frame.size[0]
        own = isinstance(frame.content, Jpeg)
        if not own and self.encoding is not Encoding.JPEG:
            return None
        if isinstance(frame.content, Jpeg) and self._size_control.full and self._widest(width) == width:
            return Encoded(frame.content.data, Encoding.JPEG, frame.size)
        image = self._scaled(frame)
        image = image.decode() if isinstance(image, Yuv) else image
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self._quality])[1].reshape(-1).data
        return Encoded(data, Encoding.JPEG, (image.shape[1], image.shape[0]))

    def _pixels(self, frame: Frame, number: int, resolved: int) -> Encoded:
        image = self._scaled(frame)
        size, planar = (image.shape[1], image.shape[0]), isinstance(image, Yuv)
        colour = image.colour if isinstance(image, Yuv) else Colour.LIMITED_BT601
        pixels = image.i420() if isinstance(image, Yuv) else image
        descriptor = self._memory.put(pixels, number, resolved) if self.shares else None
        if descriptor is not None:
            return Encoded(descriptor, Encoding.SHARED_YUV if planar else Encoding.SHARED, size, colour)
        payload = np.ascontiguousarray(pixels).reshape(-1).data
        return Encoded(payload, Encoding.YUV if planar else Encoding.RAW, size, colour)

    def _scaled(self, frame: Frame) -> NDArray[np.uint8] | Yuv:
        (width, height), image = frame.size, planar_or_bgr(frame.content)
        if (new := self._widest(width)) >= width:
            return image
        size = new, max(1, round(height * new / width))
        if isinstance(image, Yuv):
            return image.resized(*(side + side % 2 for side in size))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _encoding(camera: CameraSettings, address: str) -> Encoding:
    if camera.encoding != "auto":
        return Encoding[camera.encoding.upper()]
    if address.startswith("ipc://"):
        return Encoding.SHARED
    # A plug-in's transport may reach other machines: frames on it are compressed.
    known = address.startswith(("tcp://", "memory://"))
    return Encoding.RAW if known and not beyond(address) else Encoding.JPEG
