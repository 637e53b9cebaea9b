"""A video file or stream, opened with FFmpeg through PyAV: what its header says, and its pictures with time stamps."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import av.error

from fer_stream.errors import SourceError, WireError
from fer_stream.imaging.jpeg import END, START, Jpeg
from fer_stream.imaging.limits import check_size
from fer_stream.sources.decoding import ASSEMBLED, Decoder
from fer_stream.sources.opening import JPEGS, choose_stream, description, open_container, prepare, videos_of
from fer_stream.sources.presentation import UPRIGHT, Deinterlacer, shown, turn_of
from fer_stream.sources.stamps import SECOND

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from fractions import Fraction

    import numpy as np
    from av import Packet, VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from fer_stream.imaging.yuv import Yuv
    from fer_stream.plugins.recognition import Allocate
    from fer_stream.sources.opening import Opening

    Content = NDArray[np.uint8] | Jpeg | Yuv

NO_STAMPS = 0x0080
"""FFmpeg's ``AVFMT_NOTIMESTAMPS``: the format has no time stamps, such as raw H.264."""

PERIOD = SECOND // 25
"""Nanoseconds between two pictures if the container gives no rate (FFmpeg's default)."""

MAX_RATE = 1000
"""Rates above this, in pictures/s, are errors in a container."""


class Container:
    """An open container. One thread reads; another one may close it.

    Args:
        address: a URL, or ``file:PATH``.
        name: the container's name in messages, without passwords.
        opening: how to open it.

    Raises:
        av.error.FFmpegError: it cannot be opened.
        SourceError: it has no video stream that can be decoded and shown.
    """

    def __init__(self, address: str, name: str, opening: Opening) -> None:
        self.allocate: Allocate | None = None
        """Provides the memory of decoded pictures; see `fer_stream.plugins.AllocatingSource`."""
        self.closed = False
        self._name = name
        self._lock = threading.Lock()
        self._opening = opening
        self._remote = address.startswith("http")
        self._container = open_container(address, opening)
        try:
            self.stream = choose_stream(self._container, opening.stream, name)
            jpegs = prepare(self._container, self.stream, opening, name)
        except BaseException:
            self._container.close()
            raise
        self.image = self.format == "image2" or self.format.endswith("_pipe")
        """Whether FFmpeg takes it for an image, or for images one directly after the other."""
        self.single = self.image and self.sized
        """Whether it contains a single image, with a known size in bytes."""
        self.late = False
        """Whether another stream begins later than the rest. PyAV cannot read such a stream."""
        self._packed = self.format == "avi" and self.stream.codec_context.name == "mpeg4"
        """Whether a packet may have two pictures, as in DivX. FFmpeg then guesses wrong times; use those of packets."""
        self._decoder = Decoder(self.stream, self.format)
        # FFmpeg takes any file with a JPEG's suffix for a single JPEG. Only its decoder can tell whether it is one.
        self._passes_jpegs: bool | None = None if jpegs and not self.single else False
        """Whether JPEG packets are returned undecoded; ``None``: not known before the first packet."""
        self._kind: tuple[int, ...] = ()
        """Width, height and rotation of the last frame. While they stay the same, so does the display matrix."""
        self._turn = UPRIGHT
        self._begin: int | None = None
        """The container's start in nanoseconds."""
        self._ratio: Fraction | None = None
        """The sample aspect ratio of the frames that the deinterlacer holds."""
        self._first_ratio: Fraction | None = None
        self._reached = 0
        """Where the last packet ends, in bytes."""
        self._first: tuple[Content, int | None] | None = None
        self._pictures = self._read()

    # What the header says

    @property
    def format(self) -> str:
        """FFmpeg's names of the format, separated by commas."""
        return self._container.format.name

    @property
    def stamped(self) -> bool:
        """Whether the format has time stamps."""
        return not self._container.format.flags & NO_STAMPS

    @property
    def wraps(self) -> bool:
        """Whether the format's time stamps begin again at 0 after 26.5 hours (`fer_stream.sources.stamps.WRAP`)."""
        return self.format in ("mpegts", "mpeg")

    @property
    def length(self) -> int | None:
        """The duration in nanoseconds, if the header gives one."""
        duration = self._container.duration
        return None if duration is None or duration <= 0 else 1000 * duration

    @property
    def period(self) -> int:
        """Nanoseconds between two pictures."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return round(SECOND / rate) if rate and rate <= MAX_RATE else PERIOD

    @property
    def frames(self) -> int | None:
        """Number of pictures, for display only: as the header gives it, or else estimated from the duration."""
        if self.stream.frames > 0:
            return self.stream.frames
        return None if self.length is None or not self.stamped else max(1, round(self.length / self.period))

    @property
    def others(self) -> list[str]:
        """Descriptions of the video streams that were not chosen."""
        videos = enumerate(videos_of(self._container))
        return [description(number, one) for number, one in videos if one.index != self.stream.index]

    @property
    def sized(self) -> bool:
        """Whether the size in bytes is known."""
        return self._container.size > 0

    @property
    def ranges(self) -> bool:
        """Whether reading it from a server needs requests of parts: an MP4."""
        return self.format.startswith("mov") and len(self.stream.index_entries) > 0 and self._remote

    @property
    def finite(self) -> bool:
        """Whether it has an end although its header may give no duration: an AVIF or an animated PNG."""
        return self.sized and self.format.startswith(("apng", "mov"))

    @property
    def opacity(self) -> int | None:
        """The number of the stream with an AVIF's opacity: a grey stream directly after the one with the colours."""
        for number, one in enumerate(videos_of(self._container)):
            if one.index != self.stream.index + 1:
                continue
            context, colours = one.codec_context, self.stream.codec_context
            same = (context.width, context.height) == (colours.width, colours.height)
            if same and one.frames == self.stream.frames and (context.pix_fmt or "").startswith("gray"):
                return number
        return None

    @property
    def missing_entries(self) -> tuple[int, int]:
        """How many of the pictures in the index end beyond the end of the file, and how many the index has."""
        size, entries = self._container.size, self.stream.index_entries
        if size <= 0:  # a transfer of unknown length: it ends after the last packet
            size = self._reached
        if not size or not len(entries):
            return 0, 0
        return sum(entry.pos + entry.size > size for entry in entries), len(entries)

    # Pictures

    @property
    def damaged(self) -> int:
        """Number of pictures that did not decode, after the first key frame."""
        return self._decoder.damaged

    @property
    def cut(self) -> bool:
        """Whether it ended within a picture. Some formats are not able to say so."""
        return self._decoder.cut and self.format not in ASSEMBLED

    def probe(self) -> None:
        """Read the first picture, which the next call of `read` returns. After an error, the container is closed.

        Raises:
            SourceError: it ends before the first picture.
            av.error.FFmpegError, WireError: see `read`.
        """
        try:
            self._first = self.read()
            if self._first is None:
                raise SourceError(f"{self._name} sent no picture before it closed the connection")
        except BaseException:
            self.close()
            raise

    def read(self) -> tuple[Content, int | None] | None:
        """Return the next picture, and its time stamp in nanoseconds since the container's start; ``None`` at the end.

        Raises:
            av.error.FFmpegError: reading failed.
            WireError: the picture is larger than allowed.
        """
        try:
            with self._lock:
                if self._first is not None:
                    first, self._first = self._first, None
                    return first
                return None if self.closed else next(self._pictures, None)
        finally:
            if self.closed:  # by another thread, while this one held the lock
                self.close()

    def close(self) -> None:
        """Close it, at the latest when the current read returns."""
        self.closed = True
        if self._lock.acquire(blocking=False):  # otherwise the reader closes it
            self._pictures.close()
            self._container.close()
            self._lock.release()

    def _read(self) -> Generator[tuple[Content, int | None], None, None]:
        deinterlacer = Deinterlacer()
        for packet in self._packets():
            # The last packet is empty. It makes the decoder return the pictures that it holds back.
            if packet.size:
                self._reached = max(self._reached, (packet.pos or 0) + packet.size)
                if not self._decoder.accept(packet):
                    continue
                if (jpeg := self._jpeg(packet)) is not None:
                    yield jpeg, self._stamp(packet)
                    continue
            for frame in self._decoder.decode(packet):
                if (ratio := self._aspect()) != self._ratio:
                    yield from self._finished(deinterlacer.flush())
                    self._ratio = ratio
                yield from self._finished(deinterlacer.push(frame))
        yield from self._finished(deinterlacer.flush())

    def _finished(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[Content, int | None]]:
        for frame in frames:
            yield self._shown(frame), self._stamp(frame)

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        while True:
            try:
                yield from self._container.demux(self.stream)
            except av.error.BlockingIOError:
                # MPEG-TS: FFmpeg found no packet in 64 KiB. The next call continues after them.
                if not self.sized:
                    raise
            except IndexError:
                # PyAV does not know a stream that begins later, and raises this error for each of its packets.
                self.late = True
            else:
                return

    def _shown(self, frame: VideoFrame) -> NDArray[np.uint8] | Yuv:
        check_size(frame.width, frame.height)
        kind = frame.width, frame.height, frame.rotation
        if kind != self._kind:
            self._kind, self._turn = kind, turn_of(frame)
        return shown(frame, self._ratio, self._turn, self.allocate)

    def _aspect(self) -> Fraction | None:
        """Return the last frame's sample aspect ratio: the container's, until the decoder's changes."""
        now = self.stream.codec_context.sample_aspect_ratio
        self._first_ratio = self._first_ratio or now
        if now and now != self._first_ratio:
            return now
        return self.stream.sample_aspect_ratio or now

    def _jpeg(self, packet: Packet[VideoStream]) -> Jpeg | None:
        """Return a packet as an undecoded JPEG, or ``None`` if FFmpeg has to decode it."""
        if self._passes_jpegs is None:
            self._passes_jpegs = self._shown_as_stored(packet)
        if not self._passes_jpegs:
            return None
        jpeg = self._undecoded(packet)
        try:
            height = jpeg.shape[0]
        except WireError:
            return jpeg  # the capture rejects and counts it
        # A packet of an interlaced video has two JPEGs, each with half of the lines. FFmpeg joins them.
        return None if height <= (self.stream.codec_context.height + 1) // 2 <= height + 1 else jpeg

    def _undecoded(self, packet: Packet[VideoStream]) -> Jpeg:
        data = bytes(packet)
        if self._opening.format == JPEGS:  # remove the bytes between two JPEGs
            data = data[max(0, data.find(START)) : data.rfind(END) + len(END)]
        return Jpeg(data)

    def _shown_as_stored(self, packet: Packet[VideoStream]) -> bool:
        """Return whether JPEGs may be passed on: pictures are neither turned nor scaled, and OpenCV can decode them.

        One is decoded to find out, as packets do not say it. OpenCV cannot decode lossless JPEGs, which FFmpeg can.
        """
        try:
            frames = self.stream.decode(packet)
        except av.error.FFmpegError:  # the capture rejects damaged JPEGs, and counts them
            return True
        if self._aspect() not in (None, 0, 1) or any(turn_of(frame) != UPRIGHT for frame in frames):
            return False
        try:
            self._undecoded(packet).decode()
        except WireError:
            return False
        return True

    def _stamp(self, item: Packet[VideoStream] | VideoFrame) -> int | None:
        units = item.pts
        if self._packed and item.dts is not None:
            units = item.dts
        if units is None or item.time_base is None or not self.stamped:
            return None
        stamp = round(units * item.time_base * SECOND)
        if self._begin is None:  # FFmpeg does not know the start of a very short video
            start = self._container.start_time
            self._begin = stamp if start is None else 1000 * start
        return stamp - self._begin
