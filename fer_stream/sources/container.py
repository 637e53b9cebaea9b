"""A file or stream that FFmpeg opens (PyAV): its video stream, and each picture with its time stamp.

Nothing that the container says is believed unchecked. A packet that does not decode costs the pictures in it, not
those after it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import av
import av.error

from fer_stream.errors import SourceError, WireError
from fer_stream.imaging.jpeg import Jpeg
from fer_stream.imaging.limits import check_size
from fer_stream.sources.presentation import UPRIGHT, Deinterlacer, shown, turn_of
from fer_stream.sources.stamps import SECOND

if TYPE_CHECKING:
    from collections.abc import Generator
    from fractions import Fraction

    import numpy as np
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    Content = NDArray[np.uint8] | Jpeg

NO_STAMPS = 0x0080
"""FFmpeg's ``AVFMT_NOTIMESTAMPS``: the format has no time stamps, as raw H.264 has none."""

PERIOD = SECOND // 25
"""Nanoseconds between two pictures where nothing says it (FFmpeg's own assumption)."""

TEXT = frozenset({"tty", "ansi"})
"""FFmpeg shows text files as films of a terminal."""

IMAGES = frozenset({"image2", "jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe", "gif_pipe"})
"""Formats of a single image."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How to open a container."""

    stream: int | None = None
    """Which of its video streams, from 0; ``None``: the default one."""
    threads: int = 1
    decode: bool = False
    """Whether JPEG packets are decoded, too."""
    hardware: bool = False
    timeouts: tuple[float, float] | None = None
    """Seconds to open, and to read."""
    options: tuple[tuple[str, str], ...] = ()
    """FFmpeg's options for the demuxer and the protocol."""


class Container:
    """See the module's text. One thread reads; another one may close it.

    Raises:
        av.error.FFmpegError: it cannot be opened.
        SourceError: it has no video stream that can be shown; the message begins with ``name``.
    """

    def __init__(self, address: str, name: str, opening: Opening) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._how = opening
        self.closed = False
        self.packets = 0
        """Video packets read."""
        self.damaged = 0
        """Packets or pictures of them that do not decode."""
        how: dict[str, Any] = {"options": dict(opening.options), "timeout": opening.timeouts}
        self._container: InputContainer = av.open(address, metadata_errors="replace", **how, **_hardware(opening))
        try:
            self.stream = self._choose()
            self._prepare()
        except BaseException:
            self._container.close()
            raise
        self._pictures = self._read()

    # What it says about itself

    @property
    def format(self) -> str:
        """FFmpeg's names of the format, separated by commas."""
        return self._container.format.name

    @property
    def stamped(self) -> bool:
        """Whether the format has time stamps."""
        return not self._container.format.flags & NO_STAMPS

    @property
    def length(self) -> int | None:
        """Nanoseconds from start to end as the container says, if it does."""
        duration = self._container.duration
        return None if duration is None or duration <= 0 else 1000 * duration

    @property
    def announced(self) -> int:
        """How many pictures its header names; 0: none."""
        return max(0, self.stream.frames)

    @property
    def period(self) -> int:
        """Nanoseconds between two pictures as it says."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return round(SECOND / rate) if rate and rate <= 1000 else PERIOD

    @property
    def rate_known(self) -> bool:
        """Whether it names a rate."""
        return bool(self.stream.average_rate)

    @property
    def others(self) -> list[str]:
        """The video streams that were not chosen, in words."""
        return [_words(number, one) for number, one in enumerate(self._films()) if one.index != self.stream.index]

    @property
    def missing_entries(self) -> tuple[int, int]:
        """How many pictures in the file's index lie beyond its end, and how many there are in all."""
        size, entries = self._container.size, self.stream.index_entries
        if size <= 0 or not len(entries):
            return 0, 0
        return sum(entry.pos + entry.size > size for entry in entries), len(entries)

    # Pictures

    def read(self) -> tuple[Content, int | None] | None:
        """Return the next picture, and its stamp in nanoseconds since the container's start; ``None`` at the end.

        Raises:
            av.error.FFmpegError: it cannot be read on.
            WireError: the picture is larger than allowed.
        """
        try:
            with self._lock:
                return None if self.closed else next(self._pictures, None)
        finally:
            if self.closed:  # by another thread, while this one held the lock
                self.close()

    def close(self) -> None:
        """Close it, at the latest when the read that is under way returns."""
        self.closed = True
        if self._lock.acquire(blocking=False):  # else the reader closes it
            self._pictures.close()
            self._container.close()
            self._lock.release()

    def _read(self) -> Generator[tuple[Content, int | None], None, None]:
        deinterlacer = Deinterlacer()
        for packet in self._container.demux(self.stream):
            if packet.size:  # the last packet is empty: it makes the decoder return what it holds back
                self.packets += 1
                if (jpeg := self._jpeg(packet)) is not None:
                    yield jpeg, self._stamp(packet)
                    continue
            for frame in self._decoded(packet):
                for whole in deinterlacer.push(frame):
                    yield self._shown(whole), self._stamp(whole)
        for whole in deinterlacer.flush():
            yield self._shown(whole), self._stamp(whole)

    def _decoded(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        try:
            frames = self.stream.decode(packet)
        except av.error.InvalidDataError:
            self.damaged += 1
            return []
        kept = [frame for frame in frames if not frame.is_corrupt]
        self.damaged += len(frames) - len(kept)
        return kept

    def _shown(self, frame: VideoFrame) -> NDArray[np.uint8]:
        check_size(frame.width, frame.height)
        return shown(frame, self._aspect(), turn_of(frame))

    def _aspect(self) -> Fraction | None:
        return self.stream.sample_aspect_ratio or self.stream.codec_context.sample_aspect_ratio

    def _jpeg(self, packet: Packet[VideoStream]) -> Jpeg | None:
        """Return a packet as it came, if it is a JPEG that is shown as it is stored."""
        if not self._passes:
            return None
        jpeg = Jpeg(bytes(packet))
        try:
            height, width, _ = jpeg.shape
            check_size(width, height)
            context = self.stream.codec_context
            whole = not context.height or height >= context.height  # a field of an interlaced film has half of it
            return jpeg if jpeg.plain and whole else None
        except WireError:
            return None

    def _stamp(self, of: Packet[VideoStream] | VideoFrame) -> int | None:
        if of.pts is None or of.time_base is None or not self.stamped:
            return None
        start = self._container.start_time
        begin = 0 if start is None else 1000 * start
        return round(of.pts * of.time_base * SECOND) - begin

    # Opening

    def _films(self) -> list[VideoStream]:
        return [one for one in self._container.streams.video if not _is_cover(one)]

    def _choose(self) -> VideoStream:
        films, number = self._films(), self._how.stream
        if self.format in TEXT:
            raise SourceError(f"{self._name} is a text file, not a video")
        if not films:
            sound = any(one.type == "audio" for one in self._container.streams)
            cover = " with a cover picture" if self._container.streams.video else ""
            raise SourceError(f"{self._name} has sound{cover} and no video" if sound else f"{self._name} has no video")
        if number is not None:
            if number >= len(films):
                there = "; ".join(_words(place, one) for place, one in enumerate(films))
                raise SourceError(f"{self._name} has no video stream {number}; it has {there}")
            return films[number]
        return next((one for one in films if one.disposition & av.stream.Disposition.default), films[0])

    def _prepare(self) -> None:
        for one in self._container.streams:
            if one.index != self.stream.index:
                one.discard = av.stream.Discard.all  # the demuxer need not read it
        context = self.stream.codec_context
        if context is None or context.codec is None:
            raise SourceError(f"{self._name} is encoded in a way that this FFmpeg cannot decode")
        if context.width and context.height:
            try:
                check_size(context.width, context.height)
            except WireError as error:
                raise SourceError(f"{self._name} cannot be shown: {error}") from error
        context.thread_count = self._how.threads
        context.thread_type = "AUTO"
        sar = self._aspect()
        self._passes = (
            context.name == "mjpeg"
            and not self._how.decode
            and not self._how.hardware
            and sar in (None, 0, 1)
            and self._turn() == UPRIGHT
        )

    def _turn(self) -> tuple[int, int, int, int]:
        return UPRIGHT


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _words(number: int, stream: VideoStream) -> str:
    context = stream.codec_context
    return f"stream {number} ({context.width}x{context.height}, {context.name})"


def _hardware(opening: Opening) -> dict[str, Any]:
    """Return the argument that lets a GPU decode, where this FFmpeg knows one."""
    from av.codec.hwaccel import HWAccel, hwdevices_available  # noqa: PLC0415  (rarely needed)

    devices = hwdevices_available() if opening.hardware else []
    return {"hwaccel": HWAccel(device_type=devices[0], allow_software_fallback=True)} if devices else {}
