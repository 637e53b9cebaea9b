"""Pictures for browsers: each frame finds its own observation, faces are blurred, what is left becomes a JPEG."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fer_stream.errors import WireError
from fer_stream.imaging.privacy import hide_faces
from fer_stream.protocol.messages import Encoding
from fer_stream.types import Box

if TYPE_CHECKING:
    from asyncio import Future

    from fer_stream.protocol.messages import Message
    from fer_stream.protocol.shared import MappedFrames

WIDTHS = (320, 480, 640, 960, 1280, 1920)
"""Pixels across of the pictures that are made: a few sizes, so that browsers share them."""

QUALITY = 80
"""Of the JPEGs."""

WAITING = 64
"""Frames of a camera that may wait for their observations: as many as may be in flight."""


HELD = 64_000_000
"""Bytes of these, where they come with their pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A frame with what was seen in it (`fer_stream.aggregator.publisher.Publisher.observe`)."""

    message: Message
    seen: dict[str, Any]
    made: dict[int, Future[bytes | None]] = field(default_factory=dict)
    """Its JPEGs by their width, made or in the making."""


class Pairing:
    """One camera's frames, and what was seen in them, which comes later and another way: `Shown` is both of one frame.

    Where faces are blurred, only frames count in which new ones were looked for: in between, one that has just come
    into view is not known yet, and would be shown.
    """

    def __init__(self, show_faces: bool) -> None:
        self._show_faces = show_faces
        self._frames: OrderedDict[tuple[int, int], Message] = OrderedDict()
        self._seen: dict[str, Any] | None = None

    def frame(self, message: Message) -> Shown | None:
        """Take a frame; return it if its observation is here and the newest."""
        self._frames[message.epoch, message.seq] = message
        while len(self._frames) > WAITING or sum(len(it.payload) for it in self._frames.values()) > HELD:
            self._frames.popitem(last=False)
        return self._pair()

    def observe(self, seen: dict[str, Any]) -> Shown | None:
        """Take what was seen in a frame; return it if that is here."""
        self._seen = seen
        return self._pair()

    def _pair(self) -> Shown | None:
        if self._seen is None:
            return None
        key = (self._seen["epoch"], self._seen["frame"])
        if key not in self._frames:
            return None
        seen, self._seen = self._seen, None
        while True:  # older ones are not to come any more
            found, message = self._frames.popitem(last=False)
            if found == key:
                return Shown(message, seen) if seen["searched"] or self._show_faces else None


def render(shown: Shown, width: int, reader: MappedFrames, show_faces: bool) -> bytes | None:
    """Return the picture as a JPEG of up to ``width`` pixels across, or ``None`` where it is gone or cannot be read."""
    message = shown.message
    try:
        image = reader.picture(message)
        scale = min(1.0, width / message.width)
        size = max(1, round(message.width * scale)), max(1, round(message.height * scale))
        # A copy in any case: what is shared may be written over, and is not ours to write on.
        resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image.copy()
        small = resized.astype(np.uint8, copy=False)
        if message.encoding is Encoding.SHARED and not reader.intact(bytes(message.payload)):
            return None
    except WireError:
        return None
    if not show_faces:
        small = hide_faces(small, (Box(*(side * scale for side in box)) for box in shown.seen["places"]))
    made, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return jpeg.tobytes() if made else None
