"""The recording once more, with what was seen in it drawn over; faces cannot be recognised unless asked for."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_stream.cv import cv2
from fer_stream.extras import require
from fer_stream.palette import colour
from fer_stream.privacy import hide_faces

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from fer_stream.analysis.observe import Observation
    from fer_stream.types import Box

TICKS = 90_000
"""Units of a second in which pictures are timed: MPEG's own."""

AROUND = 400_000_000
"""Nanoseconds before and after a face is found for which its place is hidden, too: it may have been there unseen."""

QUALITY = "23"
"""x264's constant rate factor, its own default."""


class Video:
    """Writes H.264 into an MP4 file. The sound of ``source``, where it has any, is copied into it by `close`."""

    def __init__(self, path: Path, source: Path, *, show_faces: bool) -> None:
        self._av = require("av", "analyze")
        self._path, self._source, self._show = path, source, show_faces
        self._out: Any = self._av.open(str(path), "w", format="mp4")
        self._stream: Any = None
        self._sound, self._sound_out = self._open_sound()
        self._start = 0
        self._last = -1
        self._waiting: deque[Observation] = deque()
        self._past: deque[tuple[int, tuple[Box, ...]]] = deque()

    def _open_sound(self) -> tuple[Any, Any]:
        try:
            sound = self._av.open(str(self._source))
        except (self._av.FFmpegError, OSError, ValueError):  # a folder of images, or what only OpenCV reads
            return None, None
        if not sound.streams.audio:
            sound.close()
            return None, None
        try:
            return sound, self._out.add_stream_from_template(sound.streams.audio[0])
        except (self._av.FFmpegError, ValueError):  # a codec that MP4 cannot hold
            sound.close()
            return None, None

    def write(self, observation: Observation) -> None:
        """Add a frame. It is written once what is seen soon after it is known, too."""
        if observation.frame is None:
            return
        self._waiting.append(observation)
        while (first := self._waiting[0].frame) and observation.frame.time - first.time > AROUND:
            self._write_first()

    def _write_first(self) -> None:
        observation = self._waiting.popleft()
        frame = observation.frame
        if frame is None:
            return
        while self._past and frame.time - self._past[0][0] > AROUND:
            self._past.popleft()
        self._past.append((frame.time, observation.faces))
        hidden = [box for _, boxes in self._past for box in boxes] + [
            box for other in self._waiting for box in other.faces
        ]
        height, width = (side - side % 2 for side in frame.image.shape[:2])  # H.264 has no odd sizes
        if self._stream is None:
            self._stream = self._out.add_stream(
                "libx264", rate=Fraction(30), options={"crf": QUALITY, "preset": "fast"}
            )
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, TICKS)
            self._start = frame.time
        image = annotated(observation, None if self._show else hidden)
        if image.shape[:2] != (self._stream.height, self._stream.width):  # also where the film changes its size
            size = (self._stream.width, self._stream.height)
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        picture = self._av.VideoFrame.from_ndarray(image, format="bgr24")
        picture.time_base = Fraction(1, TICKS)
        picture.pts = self._last = max((frame.time - self._start) * TICKS // 10**9, self._last + 1)
        self._out.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Finish the file; a second call does nothing."""
        if self._out is None:
            return
        while self._waiting:
            self._write_first()
        if self._stream is not None:
            self._out.mux(self._stream.encode(None))
            if self._sound is not None:
                for packet in self._sound.demux(audio=0):
                    if packet.dts is not None:
                        packet.stream = self._sound_out
                        self._out.mux(packet)
        if self._sound is not None:
            self._sound.close()
        self._out.close()
        self._out = None


def annotated(observation: Observation, hidden: Iterable[Box] | None) -> NDArray[np.uint8]:
    """Return a frame's picture (a copy) with boxes, tracks, labels and probabilities; nobody in ``hidden`` is known."""
    frame = observation.frame
    if frame is None:
        raise ValueError("there is no picture after the last frame")
    tracks = observation.tracks
    image = frame.image.copy() if hidden is None else hide_faces(frame.image, hidden)
    size = max(image.shape[0] / 1080, 0.45)
    thick = max(round(2 * size), 1)
    for track in tracks:
        estimate = observation.estimates.get(track.id)
        label = estimate.label if estimate else None
        text = f"{track.id} {label or 'uncertain'}"
        if estimate and label:
            text += f" {estimate.scores.as_dict()[label]:.0%}"
        red, green, blue = bytes.fromhex(colour(label)[1:])
        x1, y1, x2, y2 = (round(side) for side in track.face.box)
        cv2.rectangle(image, (x1, y1), (x2, y2), (blue, green, red), thick, cv2.LINE_AA)
        (across, up), down = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * size, thick)
        top = max(y1 - up - 2 * down, 0)
        cv2.rectangle(image, (x1, top), (x1 + across + down, top + up + 2 * down), (blue, green, red), cv2.FILLED)
        bright = 0.114 * blue + 0.587 * green + 0.299 * red > 128
        ink = (0, 0, 0) if bright else (255, 255, 255)
        place = (x1 + down // 2, top + up + down // 2)
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * size, ink, thick, cv2.LINE_AA)
    return image
