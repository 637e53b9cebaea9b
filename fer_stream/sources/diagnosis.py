"""Explains in one sentence why a URL cannot be opened."""

from __future__ import annotations

import errno
import os
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import av.error

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from fer_stream.settings.tree import CameraSettings
    from fer_stream.sources.web import Answer

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935}
"""Ports of addresses that give none."""


def why_late(address: str, settings: CameraSettings, *, answered: bool) -> str:
    """Return what did not come before the timeout. ``answered``: whether the server is known to answer."""
    silent = "the server answers, but sends no picture" if answered else "no answer"
    reason = f"{silent} within {settings.open_timeout:g} s"
    return f"{reason}, or no picture" if address.startswith("rtsp") else reason


def why_refused(address: str, settings: CameraSettings, failure: Exception, answer: Answer | None) -> str:
    """Return why ``address`` cannot be opened: from the error or the server's answer, or else by connecting to it."""
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
