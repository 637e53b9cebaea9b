"""HTTP addresses: what a server answers, and cameras that give a single picture for each request."""

from __future__ import annotations

import logging
import ssl
import threading
import time
import urllib.error
import urllib.request
import zlib
from http.client import HTTPException
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from fer_stream.errors import SourceError, WireError
from fer_stream.imaging.jpeg import END, MAX_BYTES, START, Jpeg, decode
from fer_stream.types import Picture

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from fer_stream.settings.tree import CameraSettings

RATE = 1.0
"""Requests/s if the settings give no rate."""

JPEG = START + b"\xff"
"""The first bytes of a JPEG: a marker follows the first one."""

_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """A server's answer to a request."""

    status: int
    """The HTTP status code."""
    kind: str
    """The content type without parameters, in lower case."""
    reason: str
    """The status in words."""
    jpeg: bool = False
    """Whether its content begins with a JPEG."""


def ask(address: str, timeout: float) -> Answer | None:
    """Return what a server answers to a GET request, without the content; ``None`` if it does not answer in time."""
    try:
        with _request(address, timeout) as response:
            try:
                jpeg = response.read1(len(JPEG)) == JPEG
            except (OSError, HTTPException):
                jpeg = False
            return Answer(response.status, response.headers.get_content_type(), response.reason, jpeg)
    except urllib.error.HTTPError as error:
        error.close()
        return Answer(error.code, error.headers.get_content_type(), error.reason)
    except (OSError, HTTPException, ValueError):
        return None


def is_single(address: str, timeout: float) -> bool:
    """Return whether a server ends its answer after one picture, which a stream of pictures does not do.

    It is only needed if the answer has no length. A server that cannot be asked is taken to send a stream.
    """
    data, end = bytearray(), time.monotonic() + timeout
    try:
        with _request(address, timeout) as response:
            while part := response.read1():
                data += part
                if len(data) > MAX_BYTES or time.monotonic() > end or END + JPEG in data:
                    return False
    except (OSError, HTTPException, ValueError):
        return False
    return bool(data)


class Snapshots:
    """A camera that gives a single picture for each request. Requests are sent at its ``rate``, by default 1/s."""

    live = True
    frames: int | None = None

    def __init__(self, address: str, name: str, settings: CameraSettings) -> None:
        self._address = address
        self._name = name
        self._timeout = settings.read_timeout
        self._interval = 1 / (settings.rate or RATE)
        self._due = time.monotonic()
        self._closed = threading.Event()
        _log.warning(
            "%s gives a single picture; it is requested %g times a second (setting rate)", name, 1 / self._interval
        )

    def read(self) -> Picture | None:
        """Wait until the next request is due, and return its picture; ``None`` after `close`.

        Raises:
            SourceError: the server gives no picture.
        """
        if self._closed.wait(max(0.0, self._due - time.monotonic())):
            return None
        self._due = max(self._due + self._interval, time.monotonic())
        try:
            with _request(self._address, self._timeout) as response:
                data, kind = self._content(response), response.headers.get_content_type()
            if not data.startswith(START) and data:
                return Picture(decode(data))
        except (OSError, HTTPException, zlib.error, WireError) as error:
            if self._closed.is_set():
                return None
            if isinstance(error, WireError):
                reason = str(error) if kind.startswith("image/") else f"the server sends {kind}"
            else:
                reason = f"no answer within {self._timeout:g} s" if _is_timeout(error) else str(error)
            raise SourceError(f"{self._name} has stopped sending pictures: {reason}") from error
        if self._closed.is_set():
            return None
        return Picture(Jpeg(data))  # the capture rejects damaged JPEGs, and counts them

    def _content(self, response: HTTPResponse) -> bytes:
        """Read an answer's content until its end, the timeout, or `close`."""
        data, end = bytearray(), time.monotonic() + self._timeout
        while len(data) <= MAX_BYTES and (part := response.read1()):
            data += part
            if time.monotonic() > end:
                raise TimeoutError
            if self._closed.is_set():
                break
        if response.headers["Content-Encoding"] == "gzip":  # some cameras compress without being asked to
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, MAX_BYTES)
        return bytes(data)

    def close(self) -> None:
        """Request no more pictures."""
        self._closed.set()


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)


def _request(address: str, timeout: float) -> HTTPResponse:
    """Send a GET request, with the user name and password in the address if the server asks for them."""
    url = urlsplit(address)
    host = url.netloc.rpartition("@")[2]
    plain = urlunsplit(url._replace(netloc=host))
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if url.username is not None:
        root = f"{url.scheme}://{host}/"  # not only this path: the camera may redirect to another one
        passwords.add_password(None, root, unquote(url.username), unquote(url.password or ""))
    # Certificates are not verified, as FFmpeg does not verify them either: most cameras sign their own.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # An opener of our own: the program's global one stays as it is.
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
    )
    response: HTTPResponse = opener.open(plain, timeout=timeout)
    return response
