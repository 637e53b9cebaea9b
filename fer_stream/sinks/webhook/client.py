"""A connection to a receiver over HTTP, on which every wait has a limit.

urllib3 does the work. It knows no limit for a whole answer, only one for each read, so a receiver that sends a byte now
and then would hold it for hours. `_Answer` therefore lets all reads of an answer share one limit.
"""

from __future__ import annotations

import http.client
import io
import json
import ssl
import time
from base64 import b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from fer_stream.errors import FatalError, RetryError

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from urllib3.response import BaseHTTPResponse

CONNECT = 5.0
"""Seconds for a connection to each of the receiver's addresses, and for TLS."""

SEND = 20.0
"""Seconds for the body of a request."""

READ = 16_384
"""Most bytes of an answer's body that are read."""

_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"}
"""OpenSSL's reasons if what comes is not TLS at all."""


class Address(NamedTuple):
    """The parts of an address; ``target`` is path and query, and ``user`` may have a password behind a colon."""

    scheme: str
    host: str
    port: int
    target: str
    user: str

    @property
    def authorization(self) -> str:
        """The header's value for user and password; empty without them."""
        both = self.user if ":" in self.user else f"{self.user}:"
        return f"Basic {b64encode(both.encode()).decode()}" if self.user else ""

    def __str__(self) -> str:
        """Return scheme, host and port. The path may be a secret, as the addresses of many services show."""
        return f"{self.scheme}://{self.host}:{self.port}"


def parse(address: str) -> Address:
    """Return the parts of an ``http://`` or ``https://`` address.

    Raises:
        ValueError: it is no such address.
    """
    try:
        url = urllib3.util.parse_url(address)
    except LocationParseError as error:
        raise ValueError("it cannot be read") from error
    if url.scheme not in ("http", "https") or not url.host or url.port == 0 or url.fragment is not None:
        raise ValueError("it is not http:// or https:// with a host")
    port = url.port or (443 if url.scheme == "https" else 80)
    return Address(url.scheme, url.host, port, url.request_uri, unquote(url.auth or ""))


class Answer(NamedTuple):
    """What a receiver answers."""

    status: int
    location: str
    """Where a redirect leads to."""
    again: float | None
    """Seconds after which it wants the request again, if it says so."""
    said: str
    """Its explanation, as far as it was read; empty if there is none in plain text or JSON."""


class _Reader(io.RawIOBase):
    """The bytes of an answer, all of which have to come within the time limit of the socket."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw, self._socket = raw, sock
        self._deadline = time.monotonic() + (sock.gettimeout() or CONNECT)
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        count = self._raw.readinto(buffer)
        self.ended = not count
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **further: Any) -> None:
        super().__init__(sock, *arguments, **further)
        self._reader = _Reader(self.fp.detach(), sock)
        self.fp: Any = io.BufferedReader(self._reader)

    def begin(self) -> None:
        super().begin()
        if self._reader.ended:  # for http.client the end of the connection is one of the headers, too
            raise http.client.IncompleteRead(b"")


class _Limited(http.client.HTTPConnection):
    response_class = _Answer

    def connect(self) -> None:
        try:
            super().connect()
        except TimeoutError as error:  # of the TLS handshake
            raise ConnectTimeoutError(str(error)) from error

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(SEND)  # the latest answer has left what remained of its own limit
        try:
            super().send(data)
        except ssl.SSLEOFError as error:  # it may have answered before it closed: urllib3 looks, as after a broken pipe
            raise BrokenPipeError from error


class _Plain(_Limited, HTTPConnection):
    pass


class _Encrypted(_Limited, HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _EncryptedPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Encrypted


class Client:
    """One connection, which is opened with the first request and kept. Proxies in the environment are not used."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, timeout: float) -> None:
        """Prepare it.

        Args:
            address: the receiver.
            tls: for an ``https://`` address.
            timeout: seconds for a whole answer.
        """
        self._name, self._limit = f"the receiver {address}", timeout
        limits: dict[str, Any] = {"timeout": urllib3.Timeout(connect=CONNECT, read=timeout), "maxsize": 1}
        if address.scheme == "https":
            self._pool: urllib3.HTTPConnectionPool = _EncryptedPool(
                address.host, address.port, ssl_context=tls, **limits
            )
        else:
            self._pool = _PlainPool(address.host, address.port, **limits)
        self._used = False

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """Send a request, and return its answer whatever it says. A redirect is not followed.

        Raises:
            RetryError: none comes, or the connection cannot be made.
            FatalError: the receiver refuses the certificate of this process.
        """
        try:
            try:
                answer = self._exchange(method, target, headers, body)
            except ProtocolError:
                if not self._used:
                    raise
                # The receiver may have closed an idle connection in the moment in which it was used again.
                answer = self._exchange(method, target, headers, body)
        except HTTPError as error:
            raise self._failure(error) from error
        self._used = True
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()

    def _exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        response = self._pool.urlopen(
            method, target, body, headers, retries=False, redirect=False, preload_content=False
        )
        data = b""
        with suppress(HTTPError):  # the status counts, even if its explanation does not arrive
            data = response.read(READ, decode_content=False)
        if response.connection is not None:  # there is more
            response.close()
        found = response.headers
        return Answer(response.status, _line(found.get("Location", "")), _again(found), _said(response, data))

    def _failure(self, error: HTTPError) -> RetryError | FatalError:
        name = self._name
        reason = error.args[-1] if error.args else error  # what lies below, of a ProtocolError or SSLError
        if isinstance(error, NameResolutionError):
            return RetryError(f"the host of {name} has no address: check the name, and the name server")
        if isinstance(error, NewConnectionError):
            return RetryError(f"{name} cannot be reached: {_os_reason(error.__cause__ or error)}")
        if isinstance(error, ConnectTimeoutError):
            return RetryError(f"{name} takes no connection within {CONNECT:g} s")
        if isinstance(error, ReadTimeoutError):
            return RetryError(f"{name} does not answer within {self._limit:g} s")
        if isinstance(error, SSLError):
            return self._tls_failure(reason)
        if isinstance(reason, TimeoutError):
            return RetryError(f"{name} does not take the request within {SEND:g} s")
        if isinstance(reason, http.client.RemoteDisconnected | ConnectionError):
            return RetryError(f"{name} closes the connection without an answer")
        if isinstance(reason, http.client.IncompleteRead):
            return RetryError(f"{name} breaks off its answer")
        if isinstance(reason, http.client.HTTPException):
            return RetryError(f"{name} does not answer in HTTP: check the address")
        return RetryError(f"the connection to {name} broke: {_os_reason(reason)}")

    def _tls_failure(self, error: object) -> RetryError | FatalError:
        name = self._name
        if isinstance(error, ssl.SSLCertVerificationError):
            return RetryError(
                f"the certificate of {name} is not valid: {error.verify_message}; it has to be renewed, or the "
                "option ca has to name its certificate authority"
            )
        reason = getattr(error, "reason", None) or ""
        if reason in _NO_TLS:
            return RetryError(f"{name} does not speak TLS: check the port, or give http://")
        if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
            return FatalError(
                f"{name} refuses the certificate of this process ({reason}): check the options certificate and key"
            )
        return RetryError(f"no encrypted connection to {name} can be made: {reason or error}")


def _os_reason(error: object) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _again(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in ``Retry-After``, which is a number of them or a date."""
    if value := headers.get("Retry-After"):
        with suppress(InvalidHeader, OverflowError, ValueError):
            return urllib3.Retry().parse_retry_after(value)
    return None


def _said(response: BaseHTTPResponse, data: bytes) -> str:
    """Return an explanation as one line. That of a proxy, in HTML, is for people and left out."""
    if response.headers.get("Content-Encoding"):
        return ""
    kind, text = response.headers.get("Content-Type", "").partition(";")[0].lower(), data.decode(errors="replace")
    if kind.endswith(("/json", "+json")):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return ""
        names = ("detail", "title", "message", "error", "reason")
        parts = [found[name] for name in names if found.get(name)] if isinstance(found, dict) else []
        text = parts[0] if parts and isinstance(parts[0], str) else json.dumps(found, ensure_ascii=False)
    elif kind != "text/plain":
        return ""
    return _line(text)


def _line(text: str) -> str:
    """Return a text from outside, fit for a message."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
