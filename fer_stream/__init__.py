"""Any camera in, trustworthy apparent-emotion events out.

Data passes through the subpackages in this order::

    sources -> capture -> aggregator -> inference (worker: detectors, classifiers)
                              |    ^                    |
                              |    '--- faces ----------'
                              v
                           events -> journal -> client, sinks, live
                           (track, smooth, intervals)

`service` starts the processes, `analysis` runs inference and events on a recording, and `cli` has the commands.
All of them use `settings`, `protocol`, `transports`, `operations`, `imaging` and `system`.

As a library: `subscribe` delivers a running service's events (sync or async), `read_journal` reads them from its
journal, `recognize` finds faces in a picture and classifies them, `analyze` processes a recording.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fer_stream.errors import (
    AnalysisWarning,
    AnnotationError,
    ConfigError,
    FerStreamError,
    JournalError,
    ModelError,
    PluginError,
    SourceError,
    TransportError,
    WireError,
)
from fer_stream.system.version import __version__ as __version__
from fer_stream.types import (
    Box,
    Estimate,
    Event,
    EventType,
    Face,
    Frame,
    Measure,
    Measures,
    Picture,
    Probabilities,
    Track,
)

if TYPE_CHECKING:
    from fer_stream.analysis import Tables, analyze
    from fer_stream.client import Subscription, read_journal, status, subscribe
    from fer_stream.imaging.jpeg import Jpeg
    from fer_stream.imaging.yuv import Yuv
    from fer_stream.inference.recognizer import Recognizer, recognize
    from fer_stream.settings.tree import Settings

_LATER = {
    "Jpeg": "fer_stream.imaging.jpeg",
    "Recognizer": "fer_stream.inference.recognizer",
    "Settings": "fer_stream.settings.tree",
    "Subscription": "fer_stream.client",
    "Tables": "fer_stream.analysis",
    "Yuv": "fer_stream.imaging.yuv",
    "analyze": "fer_stream.analysis",
    "read_journal": "fer_stream.client",
    "recognize": "fer_stream.inference.recognizer",
    "status": "fer_stream.client",
    "subscribe": "fer_stream.client",
}
"""Names that are imported on first use, so that `import fer_stream` stays quick, with their modules."""

__all__ = [
    "AnalysisWarning",
    "AnnotationError",
    "Box",
    "ConfigError",
    "Estimate",
    "Event",
    "EventType",
    "Face",
    "FerStreamError",
    "Frame",
    "JournalError",
    "Jpeg",
    "Measure",
    "Measures",
    "ModelError",
    "Picture",
    "PluginError",
    "Probabilities",
    "Recognizer",
    "Settings",
    "SourceError",
    "Subscription",
    "Tables",
    "Track",
    "TransportError",
    "WireError",
    "Yuv",
    "analyze",
    "read_journal",
    "recognize",
    "status",
    "subscribe",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_LATER[name]), name)
