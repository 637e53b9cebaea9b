"""Opens what an address names: webcams, streams, video files and images.

| address                                        | what it is                                      | live |
|------------------------------------------------|-------------------------------------------------|------|
| ``0``, ``/dev/video0``                         | a webcam                                        | yes  |
| ``rtsp://``, ``rtsps://``, other FFmpeg URLs   | a stream                                        | yes  |
| ``http://``, ``https://``                      | a stream, a recording, or a single picture that |      |
|                                                | is requested again and again                    |      |
| a video file, a GIF                            | a recording with its own time stamps            | no   |
| an image, a folder of images                   | a recording (see `fer_stream.sources.images`)   | no   |

``file://PATH`` is the same as ``PATH``; nothing in it is percent-decoded. The JPEGs of a stream, a file or a folder are
passed on undecoded (`fer_stream.Jpeg`); pictures of a webcam are decoded.
"""

from __future__ import annotations

import codecs
import re
import time
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import av.error

from fer_stream.errors import SourceError, WireError
from fer_stream.settings.redaction import redact
from fer_stream.sources.container import Container
from fer_stream.sources.diagnosis import why_late, why_refused
from fer_stream.sources.image_kinds import is_film, is_image
from fer_stream.sources.images import Images, check_name
from fer_stream.sources.joined import addresses, lacks_index
from fer_stream.sources.opening import JPEGS, MULTIPART, Opening
from fer_stream.sources.truncation import loss_in_words, missing
from fer_stream.sources.video import Live, Recording, timed_out
from fer_stream.sources.web import Snapshots, ask, is_single
from fer_stream.sources.webcam import Webcam
from fer_stream.system import folders, machine

if TYPE_CHECKING:
    from fer_stream.plugins import Source
    from fer_stream.settings.tree import CameraSettings

JPEG_TYPES = ("multipart/", "image/jp", "video/x-motion-jpeg")
"""Prefixes of the content types of JPEG streams over HTTP."""

HTTP_OPTIONS = (("formatprobesize", "65536"),)
"""FFmpeg's option to detect the format from 64 KiB. A slow camera needs many seconds to send the default 1 MiB."""

JPEGS_OPTIONS = (("probesize", "4096"),)
"""FFmpeg's option to open JPEGS after 4 KiB. A slow camera needs minutes to send the default 5 MB."""

MAX_ASKING = 2.0
"""Maximum seconds to ask a server again what it sends."""

PLAYLIST = "a list of other files"

RAW = (b"FUJIFILMCCD-RAW", b"FOVb", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0\0\0\x18ftypcrx ")
"""First bytes of the raw pictures of cameras, besides those that are TIFFs."""

DOCUMENTS = (
    (b"%PDF", "a PDF document"),
    (b"PK\3\4", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\xd0\xcf\x11\xe0", "an office document or a collection of thumbnails"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (bytes(128) + b"DICM", "a DICOM image"),
    *((magic, "the raw picture of a camera") for magic in RAW),
    (b"#EXTM3U", PLAYLIST),
    (b"ffconcat version", PLAYLIST),
)
"""First bytes of files that are no videos. FFmpeg would open the images embedded in them."""

MAX_DECODERS = 16
"""Maximum number of threads that decode a file by default. Each holds pictures, and more are hardly faster."""


def open_source(address: str, settings: CameraSettings) -> Source:
    """Open what ``address`` names (see the table of this module).

    Raises:
        SourceError: it does not exist or gives no pictures. The message holds no password. The error is
            ``transient`` for webcams and URLs, which may answer later, and not for files.
    """
    address = address.removeprefix("file://")
    if number := webcam_number(address):
        return Webcam(int(number), settings)
    if settings.format or settings.size:
        raise SourceError(f"format and size are settings of webcams, and {redact(address)} is not one: remove them")
    if "://" in address:
        return _open_url(address, settings)
    return _open_path(folders.expand(Path(address)), settings)


def is_video(path: Path) -> bool:
    """Return whether a file can be opened as a video."""
    try:
        _check_video(path)
        container = Container(f"file:{path}", str(path), Opening())
    except (SourceError, OSError, av.error.FFmpegError):
        return False
    container.close()
    return not container.single  # FFmpeg takes any file with the suffix of an image for one


def webcam_number(address: str) -> str:
    """Return the number in a webcam's address, or an empty text for other addresses."""
    found = re.fullmatch(r"(?:/dev/video)?(\d{1,3})", address)
    return found[1] if found else ""


def _open_path(path: Path, settings: CameraSettings) -> Source:
    """Open a file or a folder."""
    try:
        film = is_film(path)
        if path.is_dir() or (is_image(path) and not film):
            return Images(path, settings)
        _check_video(path)
        lost = missing(path)  # before FFmpeg, which does not say why it fails
        joined = addresses(path)
    except FileNotFoundError as error:
        raise SourceError(f"there is no file or folder {str(path)!r}; check the path") from error
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {(error.strerror or 'error').lower()}") from error
    check_name(path)
    name, opening = repr(str(path)), _opening(settings, min(machine.threads(), MAX_DECODERS))
    if film:
        opening = replace(opening, format=JPEGS)

    def open_one(address: str) -> Container:
        try:
            container = Container(address, name, opening)
            if container.format == MULTIPART:  # FFmpeg takes the end of such a file for an error
                container.close()
                container = Container(address, name, replace(opening, format=JPEGS))
            return container
        except av.error.FFmpegError as error:
            fault = _fault(error, lost, path)
            raise SourceError(f"{name} cannot be read as a video: {fault}") from error
        except SourceError as error:
            if not lost:
                raise
            raise SourceError(f"{error}; it is truncated: {loss_in_words(lost)}") from error

    first, *others = [partial(open_one, address) for address in joined]
    return Recording(first(), first, name, settings, partial(missing, path), others)


def _opening(settings: CameraSettings, threads: int) -> Opening:
    """Return how to open a container; ``threads`` applies if the settings give no number of decoder threads."""
    return Opening(
        stream=settings.stream,
        threads=settings.decoder_threads or threads,
        hardware=settings.hardware_decoding,
    )


def _fault(error: av.error.FFmpegError, lost: float, path: Path) -> str:
    """Return why a file cannot be opened; ``lost`` is the fraction that is missing at its end."""
    if lost:
        return f"it is truncated, and {loss_in_words(lost)}"
    if isinstance(error, av.error.DecoderNotFoundError):
        return "this FFmpeg has no decoder for it"
    if lacks_index(path):
        return "its index (moov) is missing, as if the recorder was stopped, or it is a part of a stream"
    return "it is truncated, damaged, or of an unknown format"


def _open_url(address: str, settings: CameraSettings) -> Source:
    """Open a URL. What the container says decides whether it is a stream, a recording, or a single picture."""
    name = redact(address)
    opening = replace(
        _opening(settings, 1),
        timeouts=(settings.open_timeout, settings.read_timeout),
        options=_options(address, settings),
    )
    container = _connect(address, name, settings, opening)
    if not address.startswith("http"):
        return Live(container, name, settings)
    if container.single or (container.image and is_single(address, min(MAX_ASKING, settings.open_timeout))):
        container.close()
        return Snapshots(address, name, settings)
    if container.length is not None or container.finite:
        return Recording(container, lambda: _connect(address, name, settings, opening), name, settings)
    return Live(container, name, settings, lambda: _connect(address, name, settings, _jpegs(opening)))


def _jpegs(opening: Opening) -> Opening:
    """Return how to read the JPEGs of a stream whose boundaries FFmpeg cannot read."""
    return replace(opening, format=JPEGS, options=JPEGS_OPTIONS)


def _connect(address: str, name: str, settings: CameraSettings, opening: Opening) -> Container:
    """Open a URL. If FFmpeg cannot read it, and the server says that it sends JPEGs, open it again as JPEGs.

    Raises:
        SourceError: it cannot be opened; it is ``transient``.
    """
    begin = time.monotonic()
    try:
        container = Container(address, name, opening)
        if container.format in (MULTIPART, JPEGS):
            container.probe()  # FFmpeg also opens streams of which it then cannot read a single picture
        return container
    except (SourceError, WireError) as error:
        raise SourceError(str(error), transient=True) from error
    except (av.error.FFmpegError, ValueError) as error:
        late = timed_out(begin, settings.open_timeout)
        answer = None
        if address.startswith("http") and not opening.format:
            answer = ask(address, min(MAX_ASKING, settings.open_timeout))
        if answer and answer.status == HTTPStatus.OK and (answer.jpeg or answer.kind.startswith(JPEG_TYPES)):
            return _connect(address, name, settings, _jpegs(opening))  # boundaries may be missing or misplaced
        if late:
            reason = why_late(address, settings, answered=bool(opening.format or answer))
        elif opening.format:
            reason = "the server sends no picture"
        else:
            reason = why_refused(address, settings, error, answer)
        raise SourceError(f"{name} cannot be opened: {reason}", transient=True) from error


def _options(address: str, settings: CameraSettings) -> tuple[tuple[str, str], ...]:
    """Return FFmpeg's options for an address."""
    if address.startswith("http"):
        return HTTP_OPTIONS
    if not address.startswith("rtsp"):
        return ()
    if settings.rtsp_transport == "auto":  # TCP, or UDP from a camera that refuses TCP
        return (("rtsp_flags", "prefer_tcp"),)
    return (("rtsp_transport", settings.rtsp_transport),)


def _check_video(path: Path) -> None:
    """Refuse a file that cannot be a video. FFmpeg would render a text file as a video of a terminal.

    Raises:
        SourceError: this is not a regular file, or it is empty or text.
        OSError: the file is missing or may not be read.
    """
    if path.exists() and not path.is_file():
        raise SourceError(f"{str(path)!r} is neither a file nor a folder")
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise SourceError(f"{str(path)!r} is empty")
    for begin, what in DOCUMENTS:
        if head.startswith(begin):
            raise SourceError(f"{str(path)!r} is {what}, not a video")
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return
    if "\0" not in text:
        raise SourceError(f"{str(path)!r} is a text file, not a video")
