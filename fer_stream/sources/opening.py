"""Opens a container with FFmpeg through PyAV, chooses its video stream, and prepares the stream's decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import av
import av.error
import av.stream

from fer_stream.errors import SourceError, WireError
from fer_stream.imaging.limits import check_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

JPEGS = "mjpeg"
"""Format of JPEGs one after the other. Bytes between them are skipped, such as the boundaries of an HTTP stream."""

MULTIPART = "mpjpeg"
"""Format of JPEGs between the boundaries of an HTTP stream."""

TEXT = frozenset({"tty", "ansi"})
"""Formats in which FFmpeg renders text files as videos of a terminal."""


class NoVideoError(SourceError):
    """A container has no video stream."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How to open a container."""

    stream: int | None = None
    """Number of the video stream, from 0; ``None``: the default one."""
    threads: int = 1
    """Threads that decode."""
    hardware: bool = False
    """Whether a GPU may decode. If so, JPEG packets are decoded, too, instead of passed on."""
    timeouts: tuple[float, float] | None = None
    """Seconds to open, and to read."""
    options: tuple[tuple[str, str], ...] = ()
    """FFmpeg's options for the demuxer and the protocol."""
    format: str | None = None
    """FFmpeg's name of the format; ``None``: FFmpeg detects it."""


def open_container(address: str, opening: Opening) -> InputContainer:
    """Open a container, with a hardware decoder if ``opening`` allows it and the machine has one.

    Raises:
        av.error.FFmpegError: it cannot be opened.
    """
    how: dict[str, Any] = {"options": dict(opening.options), "timeout": opening.timeouts, "format": opening.format}
    how["metadata_errors"] = "replace"
    container: InputContainer
    if opening.hardware:
        from av.codec.hwaccel import HWAccel, hwdevices_available  # noqa: PLC0415  (rarely needed)

        for device in hwdevices_available():
            try:
                container = av.open(address, hwaccel=HWAccel(device_type=device, allow_software_fallback=True), **how)
                return container
            except av.error.PermissionError:  # FFmpeg knows this kind of hardware, but there is none here
                continue
    container = av.open(address, **how)
    return container


def videos_of(container: InputContainer) -> list[VideoStream]:
    """Return the video streams, without the cover pictures of music."""
    covers = av.stream.Disposition.attached_pic
    return [one for one in container.streams.video if not one.disposition & covers]


def choose_stream(container: InputContainer, number: int | None, name: str) -> VideoStream:
    """Return the video stream with this number, or the default one.

    Raises:
        NoVideoError: there is no video stream.
        SourceError: there is no stream with this number, or the file is a text. The message begins with ``name``.
    """
    videos = videos_of(container)
    if container.format.name in TEXT:
        raise SourceError(f"{name} is a text file, not a video")
    if not videos:
        sound = any(one.type == "audio" for one in container.streams)
        cover = " and a cover picture" if container.streams.video else ""
        raise NoVideoError(f"{name} has sound{cover}, but no video" if sound else f"{name} has no video")
    if number is not None:
        if number >= len(videos):
            known = "; ".join(description(at, one) for at, one in enumerate(videos))
            raise SourceError(f"{name} has no video stream {number}; it has {known}")
        return videos[number]
    default = [one for one in videos if one.disposition & av.stream.Disposition.default]
    if container.format.name == "ico":  # the same picture in several sizes
        return max(videos, key=lambda one: one.codec_context.width)
    # Beside an animation, an AVIF has its first picture as a stream.
    return max(default or videos, key=lambda one: one.frames > 1)


def prepare(container: InputContainer, stream: VideoStream, opening: Opening, name: str) -> bool:
    """Discard all other streams, and prepare the decoder; return whether the packets are JPEGs that may be passed on.

    Raises:
        SourceError: the stream cannot be decoded, or is too large. The message begins with ``name``.
    """
    for one in container.streams:
        if one.index != stream.index:
            one.discard = av.stream.Discard.all  # the demuxer skips its packets
    context = stream.codec_context
    if context is None or context.codec is None:
        raise SourceError(f"{name} has a video codec that this FFmpeg cannot decode")
    if context.width and context.height:
        try:
            check_size(context.width, context.height)
        except WireError as error:
            raise SourceError(f"{name} cannot be shown: {error}") from error
    jpegs = context.name == "mjpeg" and not opening.hardware
    # With one thread, the decoder returns a packet's picture at once. A container decodes its first JPEG to look at it.
    context.thread_count = 1 if jpegs else opening.threads
    context.thread_type = "AUTO"
    return jpegs


def description(number: int, stream: VideoStream) -> str:
    """Return a stream's number, size and codec for a message."""
    context = stream.codec_context
    return f"stream {number} ({context.width}x{context.height}, {context.name})"
