"""Sources of pictures: cameras, streams and files (`fer_stream.plugins.Source`)."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, cast

from fer_stream import plugins
from fer_stream.errors import PluginError
from fer_stream.settings import references
from fer_stream.settings.deployment import loopback

if TYPE_CHECKING:
    from fer_stream.plugins import Source
    from fer_stream.settings.tree import CameraSettings

DEFAULT = "media"

NETWORK = re.compile(r"s?ftps?|https?|mms[htu]?|rist|rtmpt?[es]?|s?rtps?|rtsps?|srt|tcp|tls|udp(lite)?", re.IGNORECASE)
"""Schemes of the addresses of sources that other machines can open, too."""

_HOST = re.compile(r"(?:[^:/?#\s]*:\S*@|[^/?#\s]*@)?(?P<host>\[[^\]]*\]|[^/:?#]*)")
"""The host, after a user and a password, which may contain any character."""


def local(settings: CameraSettings) -> bool:
    """Return whether a camera's source belongs to one machine: a webcam, a file, the demo, or a port where it listens.

    Addresses with a scheme of `NETWORK` and another host belong to none. What a plug-in's own scheme stands for is not
    known, so that is taken to belong to the machine.
    """
    scheme, separator, rest = choose(settings)[1].partition("://")
    if not separator or not NETWORK.fullmatch(scheme):
        return True
    found = _HOST.match(rest)
    host = found["host"].strip("[]") if found else ""
    try:
        return loopback(host) or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def choose(settings: CameraSettings) -> tuple[str, str]:
    """Return the plug-in that opens a camera's source (see `open_source`), and the address to pass to it."""
    if settings.plugin is not None:
        return settings.plugin, settings.source
    scheme, colon, rest = settings.source.partition(":")
    if scheme not in plugins.available("sources"):
        return DEFAULT, settings.source
    short = colon and not rest.startswith("//")
    return scheme, rest if short else settings.source


def open_source(settings: CameraSettings) -> Source:
    """Open a camera's source with the plug-in that ``settings.plugin`` names, or else the one its address names.

    ``NAME``, ``NAME:REST`` and ``NAME://REST`` choose the plug-in ``NAME`` if it exists. It gets the whole address, or
    with ``NAME:REST`` only ``REST``. All other addresses are opened by ``media``. References to passwords are resolved
    before (`fer_stream.settings.references`).

    Raises:
        PluginError: there is no such plug-in, or its object is not a source.
        SourceError: the source cannot be opened.
    """
    settings = settings.model_copy(update={"source": references.resolve(settings.source)})
    name, address = choose(settings)
    source = plugins.load("sources", name)(address, settings)
    missing = [member for member in ("live", "frames", "read", "close") if not hasattr(source, member)]
    if missing:
        raise PluginError(f"the source plug-in {name!r} returns an object without {', '.join(missing)}")
    return cast("Source", source)
