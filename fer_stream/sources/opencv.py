"""Cameras, streams, video files and images, read with OpenCV.

| address                                        | source                                          | live |
|------------------------------------------------|-------------------------------------------------|------|
| ``0``, ``/dev/video0``                         | a webcam                                        | yes  |
| ``rtsp://``, ``rtsps://``, other FFmpeg URLs   | a stream                                        | yes  |
| ``http://``, ``https://``                      | a stream, or a recording if it has a length     |      |
| a video file, a GIF                            | a recording with its own time stamps            | no   |
| an image, a folder of images                   | a recording (see `fer_stream.sources.images`)   | no   |

``file://PATH`` is the same as ``PATH``; nothing in it is percent-decoded. The JPEGs of a stream, a file or a folder are
passed on undecoded (`fer_stream.Jpeg`); a webcam's pictures are decoded.
"""

from __future__ import annotations

import codecs
import os
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import cv2

from fer_stream.errors import SourceError
from fer_stream.settings.redaction import redact
from fer_stream.sources.images import Images, check_name, is_image
from fer_stream.sources.video import COMPLETE, Capture, Live, Recording, open_video
from fer_stream.system import folders, machine

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from fer_stream.plugins import Source
    from fer_stream.settings.tree import CameraSettings

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935}

MOST_DECODERS = 16
"""Most threads that decode a file by default. Each holds pictures in memory, and more threads are hardly faster."""


def open_source(address: str, settings: CameraSettings) -> Source:
    """Open the source that ``address`` names (see the table above).

    Raises:
        SourceError: the source does not exist or delivers no pictures. The message contains no password. The error is
            ``transient`` for webcams and URLs, which may answer later, but not for files.
    """
    address = address.removeprefix("file://")
    if webcam := re.fullmatch(r"(?:/dev/video)?(\d{1,3})", address):
        return Live(_open_webcam(int(webcam[1])), f"webcam {int(webcam[1])}", settings)
    if "://" in address:
        return _open_url(address, settings)
    path = folders.expand(Path(address))
    try:
        if path.is_dir() or is_image(path):
            return Images(path, settings)
        _check_video(path)
    except FileNotFoundError as error:
        raise SourceError(f"there is no file or folder {str(path)!r}; check the path") from error
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {(error.strerror or 'error').lower()}") from error

    check_name(path)
    decoding = _decoding(settings, min(machine.threads(), MOST_DECODERS))

    def open_file() -> Capture:
        # Without "file:", FFmpeg takes "12:30.mp4" for a protocol and "%03d.mp4" for a pattern.
        capture = Capture(cv2.VideoCapture(f"file:{path}", cv2.CAP_FFMPEG, decoding))
        if not capture.opened:
            raise SourceError(
                f"{str(path)!r} cannot be read as a video; it is truncated, damaged, or of an unknown format"
            )
        return capture

    def reopen() -> Capture:
        return open_video(open_file, settings.hardware_decoding)

    return Recording(reopen(), reopen, repr(str(path)), settings)


def _open_webcam(index: int) -> Capture:
    capture = Capture(cv2.VideoCapture(index))
    if capture.opened:
        return capture
    device = Path(f"/dev/video{index}")
    if device.exists():
        raise SourceError(
            f"webcam {index} cannot be opened; another program uses it, or you may not read {device}", transient=True
        )
    webcams = ", ".join(sorted(p.name.removeprefix("video") for p in device.parent.glob("video*"))) or "none"
    raise SourceError(f"there is no webcam {index}; this machine has: {webcams}", transient=True)


def _open_url(address: str, settings: CameraSettings) -> Source:
    name = redact(address)

    def connect() -> Capture:
        begin = time.monotonic()
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(settings.open_timeout * 1000)]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(settings.read_timeout * 1000)]
        capture = Capture(cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits + _decoding(settings, 1)))
        if not capture.opened:
            if time.monotonic() - begin > COMPLETE * settings.open_timeout:
                reason = f"no answer within {settings.open_timeout:g} s"
            else:
                reason = _reason(address, settings.open_timeout)
            raise SourceError(f"{name} cannot be opened: {reason}", transient=True)
        return capture

    def reopen() -> Capture:
        return open_video(connect, settings.hardware_decoding)

    capture = reopen()
    if address.startswith("http") and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        return Recording(capture, reopen, name, settings)
    return Live(capture, name, settings)


def _decoding(settings: CameraSettings, threads: int) -> list[int]:
    """Return OpenCV's decoding parameters; ``threads`` is the default number of threads."""
    parameters = [cv2.CAP_PROP_N_THREADS, settings.decoder_threads or threads]
    if settings.hardware_decoding:  # without a decoder in hardware, OpenCV decodes in software
        parameters += [cv2.CAP_PROP_HW_ACCELERATION, cv2.VIDEO_ACCELERATION_ANY]
    return parameters


def _reason(address: str, timeout: float) -> str:
    """Return why FFmpeg, which reports no reason, could not open ``address``."""
    try:
        url = urlsplit(address)
        proxy = _proxy(url)
        host, port = proxy or (url.hostname, url.port or PORTS.get(url.scheme))
    except ValueError:
        return "it is not a valid address"
    try:
        if host and port:
            socket.create_connection((host, port), timeout).close()
    except OSError as error:
        reason = (error.strerror or "no answer").lower()
        if proxy:
            return f"the proxy {host}:{port} that http_proxy names: {reason}; {_DIRECTLY}"
        return f"{reason}; check the address, and that the camera is on"
    if proxy:
        return f"the proxy {host}:{port} that http_proxy names returns no readable video for it; {_DIRECTLY}"
    return "it delivers no readable video; check the path, the user name and the password"


_DIRECTLY = "set no_proxy to the camera's host to connect without the proxy"


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
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return
    if "\0" not in text:
        raise SourceError(f"{str(path)!r} is a text file, not a video")
