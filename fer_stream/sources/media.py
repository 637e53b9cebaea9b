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
import errno
import os
import re
import socket
import time
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import av.error

from fer_stream.errors import SourceError, WireError
from fer_stream.settings.redaction import redact
from fer_stream.sources.container import Container
from fer_stream.sources.image_kinds import is_film, is_image
from fer_stream.sources.images import Images, check_name
from fer_stream.sources.opening import JPEGS, MULTIPART, Opening
from fer_stream.sources.truncation import missing
from fer_stream.sources.video import PART, Live, Recording, lacking
from fer_stream.sources.web import Answer, Snapshots, ask, is_single
from fer_stream.sources.webcam import Webcam
from fer_stream.system import folders, machine

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from fer_stream.plugins import Source
    from fer_stream.settings.tree import CameraSettings

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935}

PICTURES = ("multipart/", "image/jp", "video/x-motion-jpeg")
"""Content types of JPEG streams over HTTP."""

PROBING = (("formatprobesize", "65536"),)
"""FFmpeg's option to detect the format with a part of the default 1 MiB, which a camera sends in many seconds."""

BRIEFLY = (("probesize", "4096"),)
"""FFmpeg's options to open JPEGS without reading megabytes first, which takes a slow camera minutes."""

ASKING = 2.0
"""Maximum seconds to ask a server again what it sends."""

NO_VIDEOS = (
    (b"%PDF", "a PDF document"),
    (b"PK\3\4", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\xd0\xcf\x11\xe0", "an office document or a collection of thumbnails"),
    (b"SQLite format 3", "an SQLite database"),
)
"""Beginnings of files in which FFmpeg would find images that they embed."""

MOST_DECODERS = 16
"""Threads that decode a file by default. Each holds pictures, and more are hardly faster."""


def open_source(address: str, settings: CameraSettings) -> Source:
    """Open whatever ``address`` names (see the table above).

    Raises:
        SourceError: it does not exist or gives no pictures. The message holds no password. The error is
            ``transient`` for webcams and URLs, which may answer later, and not for files.
    """
    address = address.removeprefix("file://")
    if number := webcam_number(address):
        return Webcam(int(number), settings)
    if settings.format or settings.size:
        raise SourceError(f"format and size are settings of webcams, and {redact(address)} is none: remove them")
    if "://" in address:
        return _open_url(address, settings)
    path = folders.expand(Path(address))
    try:
        film = is_film(path)
        if path.is_dir() or (is_image(path) and not film):
            return Images(path, settings)
        _check_video(path)
        part = missing(path)  # before FFmpeg, which does not say why it fails
    except FileNotFoundError as error:
        raise SourceError(f"there is no file or folder {str(path)!r}; check the path") from error
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {(error.strerror or 'error').lower()}") from error
    check_name(path)
    name, opening = repr(str(path)), _opening(settings, min(machine.threads(), MOST_DECODERS))
    if film:
        opening = replace(opening, format=JPEGS)

    def reopen() -> Container:
        try:
            # Without "file:", FFmpeg takes "12:30.mp4" for a protocol.
            return Container(f"file:{path}", name, opening)
        except av.error.FFmpegError as error:
            raise SourceError(f"{name} cannot be read as a video: {_fault(error, part)}") from error
        except SourceError as error:
            if not part:
                raise
            raise SourceError(f"{error}; it is truncated: {lacking(part)}") from error

    return Recording(reopen(), reopen, name, settings, partial(missing, path))


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


def _opening(settings: CameraSettings, threads: int) -> Opening:
    return Opening(
        stream=settings.stream,
        threads=settings.decoder_threads or threads,
        hardware=settings.hardware_decoding,
    )


def _fault(error: av.error.FFmpegError, part: float) -> str:
    """Return why a file cannot be opened, ``part`` of which is missing."""
    if part:
        return f"it is truncated, and {lacking(part)}"
    if isinstance(error, av.error.DecoderNotFoundError):
        return "this FFmpeg has no decoder for it"
    return "it is truncated, damaged, or of an unknown format"


def _open_url(address: str, settings: CameraSettings) -> Source:
    name = redact(address)
    opening = replace(
        _opening(settings, 1),
        timeouts=(settings.open_timeout, settings.read_timeout),
        options=_options(address, settings),
    )
    container = _connect(address, name, settings, opening)
    if not address.startswith("http"):
        return Live(container, name, settings)
    if container.single or (container.image and is_single(address, min(ASKING, settings.open_timeout))):
        container.close()
        return Snapshots(address, name, settings)
    if container.length is not None or container.finite:
        return Recording(container, lambda: _connect(address, name, settings, opening), name, settings)
    return Live(container, name, settings, lambda: _connect(address, name, settings, _jpegs(opening)))


def _jpegs(opening: Opening) -> Opening:
    """Return how to open a stream whose boundaries FFmpeg cannot read. The JPEGs between them can be read."""
    return replace(opening, format=JPEGS, options=BRIEFLY)


def _connect(address: str, name: str, settings: CameraSettings, opening: Opening) -> Container:
    begin = time.monotonic()
    try:
        container = Container(address, name, opening)
        if container.format in (MULTIPART, JPEGS):
            container.probe()  # FFmpeg opens streams whose parts it cannot read
        return container
    except (SourceError, WireError) as error:
        raise SourceError(str(error), transient=True) from error
    except (av.error.FFmpegError, ValueError) as error:
        late = time.monotonic() - begin > PART * settings.open_timeout
        answer = None
        if address.startswith("http") and not opening.format:
            answer = ask(address, min(ASKING, settings.open_timeout))
        if answer and answer.status == HTTPStatus.OK and (answer.jpeg or answer.kind.startswith(PICTURES)):
            return _connect(address, name, settings, _jpegs(opening))  # boundaries may be missing or misplaced
        if late:
            silent = "the server answers, but sends no picture" if opening.format or answer else "no answer"
            reason = f"{silent} within {settings.open_timeout:g} s"
            reason += ", or no picture" if address.startswith("rtsp") else ""
        elif opening.format:
            reason = "the server sends no picture"
        else:
            reason = _reason(address, settings, error, answer)
        raise SourceError(f"{name} cannot be opened: {reason}", transient=True) from error


def _options(address: str, settings: CameraSettings) -> tuple[tuple[str, str], ...]:
    """Return FFmpeg's options for an address."""
    if address.startswith("http"):
        return PROBING
    if not address.startswith("rtsp"):
        return ()
    if settings.rtsp_transport == "auto":  # TCP, or UDP from a camera that refuses TCP
        return (("rtsp_flags", "prefer_tcp"),)
    return (("rtsp_transport", settings.rtsp_transport),)


def _reason(address: str, settings: CameraSettings, failure: Exception, answer: Answer | None) -> str:
    """Return why ``address`` cannot be opened: from the server's answer, or else from a connection to it."""
    try:
        url = urlsplit(address)
        proxy = _proxy(url)
        host, port = proxy or (url.hostname, url.port or PORTS.get(url.scheme))
    except ValueError:
        return "it is not a valid address"
    reason = _refusal(failure, url.scheme, settings) or _connection(host, port, settings.open_timeout)
    if not reason and answer and answer.status != HTTPStatus.OK:
        circle = HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST
        reason = "the server redirects in a circle" if circle else f"the server answers {answer.status} {answer.reason}"
    if proxy:
        reason = f"the proxy {host}:{port} that http_proxy names: {reason or 'it returns no readable video'}"
        return f"{reason}; set no_proxy to the camera's host to connect without the proxy"
    if reason:
        return reason
    kind = f"the server sends {answer.kind}" if answer else getattr(failure, "strerror", str(failure))
    return f"it delivers no readable video ({kind}); check the path"


def _refusal(failure: Exception, scheme: str, settings: CameraSettings) -> str:
    """Return what a server's error means, or an empty text for other errors."""
    if getattr(failure, "errno", 0) == errno.EPROTONOSUPPORT and scheme.startswith("rtsp"):
        if settings.rtsp_transport == "auto":
            return "the camera sends its stream neither by TCP nor by UDP (461)"
        return f"the camera refuses rtsp_transport = {settings.rtsp_transport!r} (461); set another one, or 'auto'"
    match failure:
        case av.error.HTTPUnauthorizedError():
            return (
                "wrong or missing user name or password (401); check those in the address, and that the camera accepts"
                " basic or digest (MD5) authentication"
            )
        case av.error.HTTPForbiddenError():
            return "access is forbidden to this user (403)"
        case av.error.HTTPNotFoundError():
            return "there is nothing at this path (404); check the path"
        case av.error.ProtocolNotFoundError():
            return f"this FFmpeg knows no protocol {scheme}://"
        case av.error.HTTPOtherClientError() if scheme.startswith("rtsp"):
            return "the camera refuses the request (status 4xx); check the path, and whether others use the camera"
        case av.error.HTTPServerError() if scheme.startswith("rtsp"):
            return "the camera has failed or is busy (status 5xx)"
        case av.error.InvalidDataError() | av.error.PermissionError() | av.error.EOFError() if scheme == "rtsp":
            return "the camera closed the connection, or its answer is not RTSP; check the port and the path"
    return ""


def _connection(host: str | None, port: int | None, timeout: float) -> str:
    """Return why no connection to a host is possible, or an empty text if one is."""
    try:
        if host and port:
            socket.create_connection((host, port), timeout).close()
    except socket.gaierror as error:
        return f"the host name {host} cannot be resolved: {(error.strerror or 'error').lower()}"
    except OSError as error:
        return f"{(error.strerror or 'no answer').lower()}; check the address, and that the camera is on"
    return ""


def _proxy(url: SplitResult) -> tuple[str, int] | None:
    """Return host and port of the proxy that FFmpeg uses for ``url``, or ``None``.

    FFmpeg takes the proxy from ``http_proxy``, also for ``https``, and uses none for hosts in ``no_proxy``.

    Raises:
        ValueError: the proxy's address is invalid.
    """
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # noqa: PLC0415  (rarely needed)

    named = os.environ.get("http_proxy", "")
    if url.scheme not in ("http", "https") or not url.hostname or not named.startswith("http://"):
        return None
    if proxy_bypass_environment(url.hostname, {"no": os.environ.get("no_proxy", "")}):
        return None
    proxy = urlsplit(named)
    return (proxy.hostname, proxy.port or PORTS["http"]) if proxy.hostname else None


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
    for begin, what in NO_VIDEOS:
        if head.startswith(begin):
            raise SourceError(f"{str(path)!r} is {what}, not a video")
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return
    if "\0" not in text:
        raise SourceError(f"{str(path)!r} is a text file, not a video")
