"""A video file or stream, opened with FFmpeg through PyAV: its video stream, and its pictures with their time stamps.

Header fields are checked against the packets. If a packet does not decode, only its own pictures are lost.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import av.error

from fer_stream.errors import SourceError, WireError
from fer_stream.imaging.jpeg import Jpeg
from fer_stream.imaging.limits import check_size
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
    from fer_stream.plugins import Allocate
    from fer_stream.sources.opening import Opening

    Content = NDArray[np.uint8] | Jpeg | Yuv

NO_STAMPS = 0x0080
"""FFmpeg's ``AVFMT_NOTIMESTAMPS``: the format has no time stamps, such as raw H.264."""

PERIOD = SECOND // 25
"""Nanoseconds between two pictures if the container gives no rate (FFmpeg's default)."""

MAX_RATE = 1000
"""Rates above this, in pictures/s, are errors in a container."""

ASSEMBLED = frozenset({"mpegts", "hls", "rtsp", "sdp"})
"""Formats that mark a packet as corrupt if a part of it was lost. The others do so if the file ends within it."""

_BEGIN, _END = b"\xff\xd8", b"\xff\xd9"
"""A JPEG's first and last markers."""


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
        self.damaged = 0
        """Number of pictures that did not decode, after the first key frame."""
        self._name = name
        self._lock = threading.Lock()
        self._opening = opening
        self._container = open_container(address, opening)
        try:
            self.stream = choose_stream(self._container, opening.stream, name)
            self._passes: bool | None = None if prepare(self._container, self.stream, opening, name) else False
            """Whether JPEG packets are returned undecoded; ``None``: not known before the first packet."""
        except BaseException:
            self._container.close()
            raise
        self.image = self.format == "image2" or self.format.endswith("_pipe")
        """Whether its format is that of a picture, or of several ones without anything between them."""
        self.single = self.image and self._container.size > 0
        """Whether it contains a single picture, with a known size in bytes."""
        self._kind: tuple[int, ...] = ()
        """Width, height and rotation of the last frame. While they stay the same, so does the display matrix."""
        self._turn = UPRIGHT
        self.cut = False
        """Whether the last packet is incomplete."""
        self.late = False
        """Whether a stream begins after the start. Such a stream cannot be read."""
        self._lost = 0
        """Pictures lost with an incomplete packet. They count only if it is not the last one of a truncated file."""
        self._begin: int | None = None
        self._ratio: Fraction | None = None
        self._first_ratio: Fraction | None = None
        self._sequence = b""
        """The last sequence header of MPEG-1 or MPEG-2."""
        self._reached = 0
        """Where the last packet ends, in bytes."""
        self._begun = False
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
        """Whether the format's time stamps begin again at 0 after 26.5 hours."""
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
        """Number of pictures, for display: as the header gives it, or else estimated from the duration."""
        if self.stream.frames > 0:
            return self.stream.frames
        return None if self.length is None or not self.stamped else max(1, round(self.length / self.period))

    @property
    def others(self) -> list[str]:
        """Descriptions of the video streams that were not chosen."""
        videos = enumerate(videos_of(self._container))
        return [description(number, one) for number, one in videos if one.index != self.stream.index]

    @property
    def finite(self) -> bool:
        """Whether it is a file with a known size and no duration, such as an AVIF."""
        return self._container.size > 0 and self.format.startswith(("apng", "mov"))

    @property
    def sized(self) -> bool:
        """Whether the size in bytes is known."""
        return self._container.size > 0

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
        """How many pictures of the index are beyond the end of the file, and how many the index has."""
        size, entries = self._container.size, self.stream.index_entries
        if size <= 0:  # a transfer of unknown length: it ends after the last packet
            size = self._reached
        if not size or not len(entries):
            return 0, 0
        return sum(entry.pos + entry.size > size for entry in entries), len(entries)

    # Pictures

    def probe(self) -> None:
        """Read the first picture, which the next call of `read` returns. After an error, the container is closed.

        Raises:
            SourceError: it ends before the first picture.
            av.error.FFmpegError, WireError: see `read`.
        """
        try:
            self._first = self.read()
            if self._first is None:
                raise SourceError(f"{self._name} has sent no picture before it closed the connection")
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
                self.damaged, self._lost = self.damaged + self._lost, 0
                self.cut = packet.is_corrupt
                if self.cut and self.format not in ASSEMBLED:  # decoders would make up the missing part of the picture
                    self._lost = int(self._begun)
                    continue
                if (jpeg := self._jpeg(packet)) is not None:
                    yield jpeg, self._stamp(packet)
                    continue
            for frame in self._decoded(packet):
                if (ratio := self._aspect()) != self._ratio:
                    for whole in deinterlacer.flush():
                        yield self._shown(whole), self._stamp(whole)
                    self._ratio = ratio
                for whole in deinterlacer.push(frame):
                    yield self._shown(whole), self._stamp(whole)
        for whole in deinterlacer.flush():
            yield self._shown(whole), self._stamp(whole)

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        while True:
            try:
                yield from self._container.demux(self.stream)
            except av.error.BlockingIOError:
                # MPEG-TS: no packet begins in the last 64 KiB. The next call continues after them.
                if self._container.size <= 0:
                    raise
            except IndexError:
                # A stream that begins later, which PyAV does not know: it raises this for each of its packets.
                self.late = True
            else:
                return

    def _decoded(self, packet: Packet[VideoStream]) -> Iterator[VideoFrame]:
        self._begun |= packet.is_keyframe
        if self._changed(packet):  # the decoder would drop the picture that it holds back
            yield from self._whole(None)
            self.stream.codec_context.flush_buffers()
        yield from self._whole(packet)

    def _whole(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Return the frames that the decoder gives without damage."""
        try:
            frames = self.stream.decode(packet)
            whole = [frame for frame in frames if not frame.is_corrupt]
            lost = len(frames) - len(whole)
        except av.error.FFmpegError:
            whole, lost = [], int(self._begun)  # before the first key frame, nothing can be decoded
        if self.cut:
            self._lost += lost
        else:
            self.damaged += lost
        return whole

    def _changed(self, packet: Packet[VideoStream]) -> bool:
        """Return whether an MPEG-1 or MPEG-2 packet begins with another sequence header than the one before."""
        if self.stream.codec_context.name not in ("mpeg1video", "mpeg2video") or not packet.is_keyframe:
            return False
        data = bytes(packet)
        _, header, rest = data.partition(b"\0\0\1\xb3")
        if not header:
            return False
        extension = rest.partition(b"\0\0\1\xb5")[2]
        # Size, aspect and rate; profile, scan and chroma format. The bit rate does not matter.
        before, self._sequence = self._sequence, rest[:4] + extension[:2]
        return before not in (b"", self._sequence)

    def _shown(self, frame: VideoFrame) -> NDArray[np.uint8] | Yuv:
        check_size(frame.width, frame.height)
        kind = frame.width, frame.height, frame.rotation
        if kind != self._kind:
            self._kind, self._turn = kind, turn_of(frame)
        return shown(frame, self._ratio, self._turn, self.allocate)

    def _aspect(self) -> Fraction | None:
        """Return the last frame's sample aspect ratio: the container's, until it changes inside the video."""
        now = self.stream.codec_context.sample_aspect_ratio
        self._first_ratio = self._first_ratio or now
        if now and now != self._first_ratio:
            return now
        return self.stream.sample_aspect_ratio or now

    def _jpeg(self, packet: Packet[VideoStream]) -> Jpeg | None:
        """Return a packet as it came, or ``None`` if FFmpeg has to decode it."""
        if self._passes is None:
            self._passes = self._shown_as_stored(packet)
        if not self._passes:
            return None
        data = bytes(packet)
        if self._opening.format == JPEGS:  # remove the bytes between two JPEGs
            data = data[max(0, data.find(_BEGIN)) : data.rfind(_END) + len(_END)]
        jpeg = Jpeg(data)
        try:
            height = jpeg.shape[0]
        except WireError:
            return jpeg  # the reader rejects and counts it
        # A packet of an interlaced video has two JPEGs, each with half of the lines. FFmpeg joins them.
        return None if height <= (self.stream.codec_context.height + 1) // 2 <= height + 1 else jpeg

    def _shown_as_stored(self, packet: Packet[VideoStream]) -> bool:
        """Return whether pictures are neither turned nor scaled, by decoding one."""
        try:
            frames = self.stream.decode(packet)
        except av.error.FFmpegError:
            return True
        return self._aspect() in (None, 0, 1) and all(turn_of(frame) == UPRIGHT for frame in frames)

    def _stamp(self, of: Packet[VideoStream] | VideoFrame) -> int | None:
        if of.pts is None or of.time_base is None or not self.stamped:
            return None
        stamp = round(of.pts * of.time_base * SECOND)
        if self._begin is None:  # FFmpeg does not know the start of a very short video
            start = self._container.start_time
            self._begin = stamp if start is None else 1000 * start
        return stamp - self._begin
