"""Writes the annotated video: the recording with boxes and labels drawn over it, and faces hidden by default."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fer_stream.errors import WireError
from fer_stream.imaging.palette import colour, ink_on
from fer_stream.imaging.privacy import hide_faces
from fer_stream.system.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from fer_stream.analysis.observe import Observation
    from fer_stream.types import Box

TICKS = 60_000
"""Timestamp units per second. Common frame rates need a whole number of units, and MPEG-4 allows no finer unit."""

AROUND = 400_000_000
"""Nanoseconds before and after a face is found in which its box is hidden, too: the detector may have missed it."""

ENCODERS = {
    "libx264": {"crf": "23", "preset": "veryfast"},
    "libopenh264": {"b": "6000000"},
    "mpeg4": {"b": "6000000"},
}
"""Encoders in order of preference, with their options. PyAV's FFmpeg has the first; other builds may lack it. The last
one is not H.264, but every FFmpeg has it."""


class Video:
    """Writes an MP4 file, in H.264 if FFmpeg has an encoder for it, with the sound of ``source`` if there is any.

    Unless ``show_faces``, faces are made unrecognisable, from `AROUND` before they are found to `AROUND` after.
    """

    def __init__(self, path: Path, source: Path, *, show_faces: bool) -> None:
        self._av = require("av", "analyze")
        self._show = show_faces
        self._out: Any = self._av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: Any = None
        self._source = source
        self._sound: _Sound | None = None
        self._start = 0
        self._last = -1
        self._waiting: deque[Observation] = deque()
        self._past: deque[tuple[int, tuple[Box, ...]]] = deque()

    def write(self, observation: Observation) -> None:
        """Add a frame. It is written after a delay of `AROUND`, because faces found later are also hidden in it."""
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
        hidden = [box for _, boxes in self._past for box in boxes]
        hidden += [box for other in self._waiting for box in other.faces]
        if not (observation.processed or self._show):  # faces may be anywhere: skip it, the previous picture stays
            return
        try:
            image = annotated(observation, None if self._show else hidden)
        except WireError:  # a JPEG that does not decode: skip it, too
            return
        if self._stream is None:
            self._start = frame.time
            self._stream = self._open(image.shape[0], image.shape[1])
            self._sound = _Sound(self._av, self._source, self._out)
        image = fitted(image, self._stream.width, self._stream.height)  # its size is odd, or has changed
        picture = self._av.VideoFrame.from_ndarray(image, format="bgr24")
        picture.time_base = Fraction(1, TICKS)
        picture.pts = self._last = max((frame.time - self._start) * TICKS // 10**9, self._last + 1)
        self._out.mux(self._stream.encode(picture))
        self._add_sound((frame.time - self._start) / 1e9)

    def _add_sound(self, until: float) -> None:
        for packet in self._sound.until(until) if self._sound else ():
            self._out.mux(packet)

    def _open(self, height: int, width: int) -> Any:
        name = next(name for name in ENCODERS if name in self._av.codecs_available)
        stream = self._out.add_stream(name, rate=Fraction(30), options=ENCODERS[name])
        # yuv420p needs an even width and height.
        stream.width, stream.height, stream.pix_fmt = width - width % 2, height - height % 2, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        return stream

    def close(self) -> None:
        """Finish the file; a second call does nothing."""
        if self._out is None:
            return
        while self._waiting:
            self._write_first()
        if self._stream is not None:
            self._out.mux(self._stream.encode(None))
            self._add_sound(self._last / TICKS + 1)
        if self._sound:
            self._sound.close()
        self._out.close()
        self._out = None


class _Sound:
    """Copies the first sound track of a recording without encoding it again, from the first picture on."""

    def __init__(self, av: Any, source: Path, out: Any) -> None:
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        self._file: Any = None
        try:
            self._file = av.open(str(source))
            sound = self._file.streams.audio[0]
            self._stream = out.add_stream_from_template(sound)
            pictures = self._file.streams.video[0]
        except (av.FFmpegError, OSError, ValueError, IndexError):
            return  # a folder of images, a recording without sound, or a codec that MP4 cannot hold
        self._base = float(sound.time_base)
        self._shift = round((pictures.start_time or 0) * pictures.time_base / sound.time_base)
        self._packets = self._file.demux(sound)

    def until(self, seconds: float) -> Iterator[Any]:
        """Yield the packets up to a time in seconds, so that picture and sound are interleaved in the file."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
            packet = self._next
            if packet is None:
                return
            if packet.dts is not None and packet.pts is not None:
                if (packet.dts - self._shift) * self._base > seconds:
                    return
                if packet.dts >= self._shift:
                    packet.pts, packet.dts, packet.stream = (
                        packet.pts - self._shift,
                        packet.dts - self._shift,
                        self._stream,
                    )
                    yield packet
            self._next = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def fitted(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Return an image, uint8 ``[H, W, 3]``, in another size and in its own shape, with black beside or above it."""
    if image.shape[:2] == (height, width):
        return image
    scale = min(width / image.shape[1], height / image.shape[0])
    across, down = (max(1, round(scale * side)) for side in image.shape[1::-1])
    canvas = np.zeros((height, width, 3), np.uint8)
    left, top = (width - across) // 2, (height - down) // 2
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[top : top + down, left : left + across] = cv2.resize(image, (across, down), interpolation=how)
    return canvas


def annotated(observation: Observation, hidden: Iterable[Box] | None) -> NDArray[np.uint8]:
    """Return a copy of a frame's picture (uint8 ``[H, W, 3]``, BGR) with boxes, tracks, labels and probabilities.

    The boxes in ``hidden`` are made unrecognisable.

    Raises:
        ValueError: the observation has no frame.
        WireError: the picture does not decode.
    """
    frame = observation.frame
    if frame is None:
        raise ValueError("the observation after the last frame has no picture")
    image = frame.image.copy() if hidden is None else hide_faces(frame.image, hidden)
    size = max(image.shape[0] / 1080, 0.45)
    thick = max(round(2 * size), 1)
    for track in observation.tracks:
        estimate = observation.estimates.get(track.id)
        label = estimate.label if estimate else None
        uncertain = "uncertain" if estimate is None or estimate.probabilities.labels else ""
        text = f"{track.id} {label or uncertain}".rstrip()
        if estimate and label:
            text += f" {estimate.probabilities.as_dict()[label]:.0%}"
        paper, ink = colour(label), ink_on(colour(label))
        _draw_box(image, track.face.box, text, _bgr(paper), _bgr(ink), size, thick)
    return image


def _draw_box(image: NDArray[np.uint8], box: Box, text: str, paper: Any, ink: Any, size: float, thick: int) -> None:
    """Draw a box with a line of text above it, or inside it if there is no room above."""
    x1, y1, x2, y2 = (round(side) for side in box)
    for paint, width in ((ink, thick + 2), (paper, thick)):  # an outline, visible on any background
        cv2.rectangle(image, (x1, y1), (x2, y2), paint, width, cv2.LINE_AA)
    (across, up), down = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * size, thick)
    left = max(min(x1, image.shape[1] - across - down), 0)
    top = max(y1 - up - 2 * down, 0)
    cv2.rectangle(image, (left, top), (left + across + down, top + up + 2 * down), paper, cv2.FILLED)
    origin = (left + down // 2, top + up + down // 2)
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * size, ink, thick, cv2.LINE_AA)


def _bgr(paint: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(paint[1:])
    return blue, green, red
