"""Pictures for browsers: pairs frames with their observations, blurs faces, and encodes the result as JPEG."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fer_stream.errors import WireError
from fer_stream.imaging.privacy import hide_faces
from fer_stream.imaging.yuv import Yuv
from fer_stream.types import Box

if TYPE_CHECKING:
    from asyncio import Future

    from fer_stream.protocol.messages import Message
    from fer_stream.protocol.shared import MappedFrames

WIDTHS = (320, 480, 640, 960, 1280, 1920)
"""Widths of the rendered pictures in pixels: a few sizes, so that several browsers can share one JPEG."""

QUALITY = 80
"""JPEG quality."""

WAITING = 64
"""Most frames of a camera that wait for their observations: as many as may be in flight."""


HELD = 64_000_000
"""Most bytes of waiting frames of a camera, where messages contain the pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A frame with its observation (`fer_stream.aggregator.publisher.Publisher.observe`)."""

    message: Message
    seen: dict[str, Any]
    made: dict[int, Future[bytes | None]] = field(default_factory=dict)
    """Its JPEGs by width, finished or being rendered."""


class Pairing:
    """Pairs one camera's frames with their observations, which come later over another link, to `Shown`.

    If faces are blurred, it returns only frames that were searched for new faces. In the frames between, a face that
    has just come into view is not known yet and would be shown unblurred.
    """

    def __init__(self, show_faces: bool) -> None:
        self._show_faces = show_faces
        self._frames: OrderedDict[tuple[int, int], Message] = OrderedDict()
        self._seen: dict[str, Any] | None = None

    def frame(self, message: Message) -> Shown | None:
        """Add a frame; return the pair if the newest observation is of this frame."""
        self._frames[message.epoch, message.seq] = message
        while len(self._frames) > WAITING or sum(len(held.payload) for held in self._frames.values()) > HELD:
            self._frames.popitem(last=False)
        return self._pair()

    def observe(self, seen: dict[str, Any]) -> Shown | None:
        """Add an observation; return the pair if its frame is here."""
        self._seen = seen
        return self._pair()

    def _pair(self) -> Shown | None:
        if self._seen is None:
            return None
        key = (self._seen["epoch"], self._seen["frame"])
        if key not in self._frames:
            return None
        seen, self._seen = self._seen, None
        while True:  # drop older frames: only the newest pair is shown
            found, message = self._frames.popitem(last=False)
            if found == key:
                return Shown(message, seen) if seen["searched"] or self._show_faces else None


def render(shown: Shown, width: int, reader: MappedFrames, show_faces: bool) -> bytes | None:
    """Return the picture as a JPEG, at most ``width`` pixels wide; ``None`` if it is overwritten or cannot be read."""
    message = shown.message
    try:
        image = reader.picture(message)
        scale = min(1.0, width / message.width)
        size = max(1, round(message.width * scale)), max(1, round(message.height * scale))
        # Always a copy: the capture may overwrite shared pixels, and this process must not write to them.
        if isinstance(image, Yuv):
            even = [side + side % 2 for side in size]
            small = image.resized(*even).decode()[: size[1], : size[0]]
        else:
            resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image.copy()
            small = resized.astype(np.uint8, copy=False)
        if not reader.intact(message):
            return None
    except WireError:
        return None
    if not show_faces:
        small = hide_faces(small, (Box(*(side * scale for side in box)) for box in shown.seen["face_regions"]))
    made, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return jpeg.tobytes() if made else None
