r"""The Protocols that plug-ins implement, and the loader that finds plug-ins.

A plug-in is a factory registered in an entry-point group ``fer_stream.<kind>``. The built-in plug-ins are registered
the same way in our ``pyproject.toml``::

    [project.entry-points."fer_stream.sources"]
    media = "fer_stream.sources.media:open_source"

| group         | the entry point is a callable                                    | returns        |
|---------------|------------------------------------------------------------------|----------------|
| sources       | ``(address: str, settings: CameraSettings)``                     | `Source`       |
| detectors     | ``(settings: DetectorSettings)``                                 | `Detector`     |
| classifiers   | ``(settings: ClassifierSettings)``                               | `Classifier`   |
| transports    | ``(key: Path \| None = None, keys: Path \| None = None)``          | `Transport`    |
| batch_sinks   | ``(argument: str, settings: DeliverSettings)``                   | `BatchSink`    |
| sinks         | ``(argument: str)``                                              | `Sink`         |
| journals      | ``(settings: JournalSettings)``; see `journal`                    | `Journal`      |
"""

from __future__ import annotations

from fer_stream.plugins.journals import (
    BATCH,
    Journal,
    JournalReader,
    JournalWriter,
)
from fer_stream.plugins.loader import (
    CODE,
    KINDS,
    SERVERS,
    available,
    code,
    journal,
    load,
    transport,
)
from fer_stream.plugins.recognition import (
    AllocatingSource,
    Classifier,
    DamageCountingSource,
    Detector,
    FollowingDetector,
    MeasuringClassifier,
    Source,
)
from fer_stream.plugins.sinks import (
    BatchSink,
    CheckableSink,
    Delivery,
    FollowingSink,
    Sink,
)
from fer_stream.plugins.transports import (
    BROADCASTS,
    LINKS,
    Allowed,
    ConnectionState,
    Hub,
    Peer,
    Transport,
)

__all__ = [
    "BATCH",
    "BROADCASTS",
    "CODE",
    "KINDS",
    "LINKS",
    "SERVERS",
    "AllocatingSource",
    "Allowed",
    "BatchSink",
    "CheckableSink",
    "Classifier",
    "ConnectionState",
    "DamageCountingSource",
    "Delivery",
    "Detector",
    "FollowingDetector",
    "FollowingSink",
    "Hub",
    "Journal",
    "JournalReader",
    "JournalWriter",
    "MeasuringClassifier",
    "Peer",
    "Sink",
    "Source",
    "Transport",
    "available",
    "code",
    "journal",
    "load",
    "transport",
]
