"""Sources of pictures: cameras, streams and files (`fer_stream.plugins.Source`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from fer_stream import plugins
from fer_stream.errors import PluginError
from fer_stream.settings import references

if TYPE_CHECKING:
    from fer_stream.plugins import Source
    from fer_stream.settings.tree import CameraSettings

DEFAULT = "media"


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
