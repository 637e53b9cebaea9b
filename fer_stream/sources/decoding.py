"""Decodes the packets of a video stream, so that damage in one packet costs only the packet's own pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av.error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av import Packet, VideoFrame
    from av.video.stream import VideoStream

ASSEMBLED = frozenset({"mpegts", "hls", "rtsp", "sdp"})
"""Formats that mark a packet as corrupt also if a part was lost within it. All others do so if the file ends in it."""

_SEQUENCE, _EXTENSION = b"\0\0\1\xb3", b"\0\0\1\xb5"
"""Start codes of MPEG-1's and MPEG-2's sequence header and its extension."""


class Decoder:
    """Decodes a stream's packets in their order. For each one, call `accept`, and then `decode` if it returned true.

    Args:
        stream: the prepared stream.
        form: FFmpeg's name of the container's format.
    """

    def __init__(self, stream: VideoStream, form: str) -> None:
        self.damaged = 0
        """Number of pictures that did not decode, after the first key frame."""
        self.cut = False
        """Whether the last packet is incomplete."""
        self._stream = stream
        self._form = form
        self._lost = 0
        """Pictures lost with an incomplete packet. They count only if another packet follows: otherwise the file is
        truncated, which is reported as such."""
        self._begun = False
        """Whether there was a key frame. Nothing before it can be decoded, which is no damage."""
        self._sequence = b""
        """The parts of the last sequence header of MPEG-1 or MPEG-2 that matter here."""

    def accept(self, packet: Packet[VideoStream]) -> bool:
        """Return whether a packet may be decoded. Of an incomplete one, a decoder would make up the missing part."""
        self.damaged, self._lost = self.damaged + self._lost, 0
        self.cut = packet.is_corrupt
        if self.cut and self._form not in ASSEMBLED:
            self._lost = int(self._begun)
            return False
        return True

    def decode(self, packet: Packet[VideoStream]) -> Iterator[VideoFrame]:
        """Yield the frames that the decoder gives without damage. An empty packet yields those that it holds back."""
        self._begun |= packet.is_keyframe
        if self._changes_sequence(packet):  # the decoder would drop the picture that it holds back
            yield from self._undamaged(None)
            self._stream.codec_context.flush_buffers()
        yield from self._undamaged(packet)

    def _undamaged(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        try:
            frames = self._stream.decode(packet)
            undamaged = [frame for frame in frames if not frame.is_corrupt]
            lost = len(frames) - len(undamaged)
        except av.error.FFmpegError:
            undamaged, lost = [], int(self._begun)
        if self.cut:
            self._lost += lost
        else:
            self.damaged += lost
        return undamaged

    def _changes_sequence(self, packet: Packet[VideoStream]) -> bool:
        """Return whether an MPEG-1 or MPEG-2 packet begins with another sequence header than the one before."""
        if self._stream.codec_context.name not in ("mpeg1video", "mpeg2video") or not packet.is_keyframe:
            return False
        _, header, rest = bytes(packet).partition(_SEQUENCE)
        if not header:
            return False
        extension = rest.partition(_EXTENSION)[2]
        # Size, aspect and rate; profile, scan and chroma format. The bit rate does not matter.
        before, self._sequence = self._sequence, rest[:4] + extension[:2]
        return before not in (b"", self._sequence)
