r"""The Protocols that plug-ins implement, and the loader that finds it.

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

import hashlib
import importlib.util
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from fer_stream.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.settings.tree import FleetSettings, JournalSettings, Settings
    from fer_stream.types import (
        Annotation,
        AnnotationPage,
        AnnotationQuery,
        Event,
        Expected,
        Face,
        Measure,
        Picture,
        Region,
    )

    Allocate = Callable[[tuple[int, ...]], NDArray[np.uint8] | None]
    Stored = tuple[Event, str]
    """An event with its numbers, and its text as stored."""


class Source(Protocol):
    """Delivers pictures. Used by one thread, except that another thread may call `close`.

    A factory that cannot open its source raises `SourceError`. With ``transient=True`` a later attempt may succeed, and
    the capture retries, unless ``retry = false``.
    """

    live: bool
    """Whether pictures arrive in real time and cannot be read again (a camera); ``False``: recorded (a file)."""
    frames: int | None
    """Number of pictures of a recorded source; ``None`` if unknown."""

    def read(self) -> Picture | None:
        """Return the next picture, blocking until it arrives; ``None`` at the end.

        It holds pixels, planar or BGR, or the camera's own JPEG as `fer_stream.Jpeg`, which the capture validates.

        Raises:
            SourceError: the source failed.
        """
        ...

    def close(self) -> None:
        """Release the device or file; a second call does nothing."""
        ...


@runtime_checkable
class AllocatingSource(Source, Protocol):
    """A source that can write a picture into memory that the capture provides, which saves a copy."""

    allocate: Allocate | None
    """Called with a shape, ``(H, W, 3)`` or for planar pixels ``(H * 3 / 2, W)``; returns memory for a picture (uint8,
    C-contiguous), or ``None`` if none is free."""


@runtime_checkable
class DamageCountingSource(Source, Protocol):
    """A source that leaves out damaged pictures, and counts them."""

    damaged: int
    """Number of pictures left out so far. The capture counts them as captured and rejected."""


class Detector(Protocol):
    """Finds faces. It keeps no state between frames: the result depends only on the image.

    A detector or classifier with an attribute ``planar = True`` also gets pictures as `fer_stream.Yuv`, as video
    decoders give them. For others these are converted to BGR. A worker calls them for several frames at once (the
    setting ``batch``), each in a thread of its own, only if both have ``concurrent = True``.
    """

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces in ``image`` (uint8 ``[H, W, 3]``, BGR), without expression scores."""
        ...


@runtime_checkable
class FollowingDetector(Detector, Protocol):
    """A detector that can also verify expected faces and search parts of an image, which saves most of its work."""

    def look(
        self, image: NDArray[np.uint8], expected: Sequence[Expected], regions: Sequence[Region]
    ) -> tuple[list[Face | None], list[Face]]:
        """Return each expected face at its new position, or ``None`` if it is gone; and the new faces in ``regions``.

        An expected face that is ``due`` is returned with landmarks, if the detector has any.
        """
        ...


class Classifier(Protocol):
    """Scores apparent expressions. It crops the faces itself: the crop's margins around a box depend on its model.

    An attribute ``smoother``, a mapping of names to numbers such as ``{"tau": 0.4}``, replaces default values of the
    settings in the section ``smoother``. What the user sets takes precedence.
    """

    labels: tuple[str, ...]
    version: str
    """The model's name and version, for display."""

    def classify(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> NDArray[np.float32]:
        """Return probabilities, float32 ``[len(faces), len(labels)]``, each row summing to 1."""
        ...


@runtime_checkable
class MeasuringClassifier(Classifier, Protocol):
    """A classifier that also gives measures: numbers on scales, such as valence and arousal."""

    measures: tuple[Measure, ...]
    """Their names and scales; may be empty."""

    def assess(
        self, image: NDArray[np.uint8], faces: Sequence[Face]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the probabilities as `classify`, and measures, float32 ``[len(faces), len(measures)]``."""
        ...


class Delivery(NamedTuple):
    """An event for a sink."""

    id: str
    """The event's id. An event that is delivered again has the same id."""
    event: Event
    text: str
    """The event's JSON as it was journaled, without a line end."""


class BatchSink(Protocol):
    """Passes events on to a receiver, for ``fer-stream deliver``. One thread uses it.

    Its factory checks the argument and the options, and does not connect. It raises `ConfigError` if they are invalid,
    `PluginError` if a package is missing, and another `FerStreamError` if the sink cannot work.
    """

    most: int
    """Most events in one `write`."""

    def write(self, batch: Sequence[Delivery]) -> None:
        """Hand events over, in order; return when the receiver has taken all of them, and would keep them in a crash.

        Put a limit on every wait. A batch may come again, after an error, and after a restart.

        Raises:
            RetryError: the receiver cannot take them now. The same batch comes again, after a pause that grows with
                each attempt. Any other exception that is not listed here is treated in the same way.
            RejectedError: the receiver refuses some of them for good. The others come again at once.
            FatalError: the operator has to change something first.
        """
        ...

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        ...


@runtime_checkable
class CheckableSink(BatchSink, Protocol):
    """A sink that can be checked before there are events, which ``fer-stream doctor`` does."""

    def check(self) -> None:
        """Find out whether `write` would work now. Send no event, and change nothing at the receiver.

        Put a limit on every wait; 15 s in all is enough for the receiver.

        Raises:
            RetryError: as of `write`; doctor warns.
            FatalError: as of `write`; doctor reports a failure.
        """
        ...


@runtime_checkable
class FollowingSink(BatchSink, Protocol):
    """A sink that is also told how current its events are, because it shows the present state."""

    def follow(self, lag: float | None, *, continued: bool) -> None:
        """Do what is due. Called before the first `write`, and then about every second between the batches.

        Args:
            lag: seconds for which the oldest event has waited that this sink has not got; 0.0 if it has got all there
                are; infinity while events are left from before this process began; ``None`` if the service does not
                answer.
            continued: whether the events follow those that a sink with this name has got before. Otherwise the sink is
                new, and what its receiver may have of earlier times is not to be relied on.

        Raises:
            RetryError: as `write`.
            FatalError: as `write`.
        """
        ...


class Sink(Protocol):
    """Receives single events. `BatchSink` is better, because it can say what went wrong.

    A sink whose reader is gone may set an attribute ``closed`` to true.
    """

    def write(self, event: Event, text: str) -> None:
        """Write one event; ``text`` is its JSON as journaled, without a line end."""
        ...

    def close(self) -> None:
        """Flush and release; a second call does nothing."""
        ...


BATCH = 999
"""Most events in one `JournalWriter.append`."""


class Journal(Protocol):
    """Where events are stored: a file or a server. The setting ``journal.path`` names it; its scheme names the plug-in.

    The factory opens nothing and raises `ConfigError` if the settings are invalid.
    """

    name: str
    """Where it is, for display, without passwords."""

    def writer(self) -> JournalWriter:
        """Open the journal for writing; create it if there is none.

        Raises:
            JournalError: it cannot be created or written, or another process writes it.
        """
        ...

    def reader(self) -> JournalReader:
        """Open the journal for reading, also while another process writes it.

        Raises:
            JournalError: there is no journal, or it cannot be read.
        """
        ...

    def purge(self, older_than: float) -> int:
        """Delete the events stored before a time (Unix seconds), also while another process writes the journal.

        It also deletes annotations made before that time, and those that end before their camera's oldest event left.

        Returns:
            The number of deleted events. Subscribers that request them get a ``stream.gap``.

        Raises:
            JournalError: there is no journal, or it cannot be written.
        """
        ...

    def examine(self) -> tuple[str, str]:
        """Check, without a change, that the journal can be written. Return its state, and a warning or an empty text.

        Raises:
            JournalError: it cannot be written.
        """
        ...


class JournalReader(Protocol):
    """Reads a journal. A method may wait for it, and raises `JournalError` if it cannot be read."""

    partitions: int
    """In how many partitions the events are, each of which has cursors of its own: 1, unless it is a cell's journal."""

    def cursor(self, partition: int = 0) -> int:
        """Return the number of the latest cursor, 0 if there is none yet."""
        ...

    def read(
        self,
        after: int,
        limit: int = 1000,
        camera: str | None = None,
        size: int | None = None,
        partition: int = 0,
    ) -> tuple[list[str], int]:
        """Return the texts of the events after a cursor, in order, and the number of the cursor to continue after.

        If events after the cursor were deleted, the first text is a ``stream.gap``.

        Args:
            after: the cursor's number.
            limit: most events to return.
            camera: only this camera's events, and gaps.
            size: most bytes of text to return, but at least one event.
            partition: of which partition.
        """
        ...

    def annotations(self, wanted: AnnotationQuery) -> AnnotationPage:
        """Return annotations, in the order of their numbers; of all partitions."""
        ...

    def close(self) -> None:
        """Close it; a second call does nothing."""
        ...

    def __enter__(self) -> JournalReader: ...

    def __exit__(self, *_: object) -> None: ...


class JournalWriter(Protocol):
    """The only writer of a journal. One thread uses it, and no method but `unclosed` and `close` may wait.

    A method that reads or writes returns a ``Future``, which may be done already. Other threads complete it.
    """

    cursor: int
    """The number of the latest cursor when the journal was opened."""

    @property
    def trouble(self) -> str:
        """Why events cannot be written at present, as a sentence; empty if they can."""
        ...

    def append(self, events: Sequence[Event], lost: int = 0) -> Future[list[Stored]]:
        """Begin to store a batch of events: all of them or none. It is done when they are on disk.

        The next batch may be handed over when this one is done. The events get their numbers. An event that is stored
        already is left out. While the journal cannot be written, the batch waits, and ``trouble`` says why; the only
        error is a `RivalError`.

        Args:
            events: at most `BATCH` events.
            lost: number of further events that had to be dropped; a ``stream.gap`` follows the events.
        """
        ...

    def epoch(self, camera: str) -> Future[int]:
        """Begin a new epoch of a camera: a number above all earlier ones, from 1.

        It fails with a `JournalError` if it cannot be stored now.
        """
        ...

    def read(
        self, after: int, limit: int = 1000, camera: str | None = None, size: int | None = None
    ) -> Future[tuple[list[str], int]]:
        """As `JournalReader.read`; it fails with a `JournalError` if the journal cannot be read now."""
        ...

    def purge(self, older_than: float) -> Future[int]:
        """As `Journal.purge`; it fails with a `JournalError` if that is not possible now."""
        ...

    def annotate(self, annotation: Annotation) -> Future[Annotation]:
        """Begin to store an annotation; it is done, and has its number, when it is on disk.

        If its id is stored already, nothing is stored, and the result is the stored annotation. It fails with an
        `AnnotationRefusedError` if the camera is unknown, and with a `JournalError` if it cannot be stored now.
        """
        ...

    def annotations(self, wanted: AnnotationQuery) -> Future[AnnotationPage]:
        """As `JournalReader.annotations`; it fails with a `JournalError` if the journal cannot be read now."""
        ...

    def unclosed(self) -> list[Event]:
        """Return what a killed aggregator left open: the latest event of every face and interval without an end."""
        ...

    def check(self) -> None:
        """Do what is due between the writes. Called in every turn of the aggregator's loop.

        Raises:
            RivalError: another process writes the journal.
        """
        ...

    def close(self) -> None:
        """Close it, and let other processes write; a second call does nothing. A batch that waits is given up."""
        ...


LINKS = ("control", "frames", "work")
"""Links with answers from the aggregator: control for clients, frames for captures, work for workers."""

BROADCASTS = ("events", "observations", "preview")
"""Links on which the aggregator publishes to all subscribers."""


class Hub(Protocol):
    """The aggregator's end of a transport: many peers, each with an opaque id."""

    key: str
    """The public half of this aggregator's key, which peers need to connect; empty if they need none."""

    def receive(self, timeout: float) -> list[tuple[str, bytes, list[Any]]]:
        """Wait up to ``timeout`` seconds, then return all received messages as ``(link, peer, parts)``.

        A part is a bytes-like object. A message of a broadcast link has one part, a byte followed by a topic: 1 for
        each new subscription to it, 0 when the last one ends.
        """
        ...

    def send(self, link: str, peer: bytes, parts: Sequence[Any]) -> bool:
        """Send to one peer without waiting; ``False`` if the peer is gone or its queue is full."""
        ...

    def objection(self, peer: bytes, camera: str) -> str:
        """Return why a peer may not send frames for a camera, or an empty text.

        The latest `receive` must have returned a message from this peer on the link ``frames``.
        """
        ...

    def may_read(self, peer: bytes) -> bool:
        """Return whether a peer may read the status and stored events.

        The latest `receive` must have returned a message from this peer on the link ``control``.
        """
        ...

    def annotator(self, peer: bytes) -> str | None:
        """Return the only name under which a peer may annotate; empty: under any; ``None``: it may not.

        The latest `receive` must have returned a message from this peer on the link ``control``.
        """
        ...

    def publish(self, link: str, topic: str, parts: Sequence[Any]) -> None:
        """Send to all subscribers of a prefix of ``topic`` without waiting. A full queue drops the message."""
        ...

    def wake(self) -> None:
        """Make the waiting `receive`, or the next one, return at once. The only method that other threads may call."""
        ...

    def close(self) -> None:
        """Close all links; queued messages have up to a second to be sent."""
        ...


class ConnectionState(NamedTuple):
    """The state of a link's connection, as far as its transport knows it."""

    up: bool
    """Whether there is a connection. Until there is one, messages that are sent wait in a queue."""
    number: int
    """A number that changes when the connection breaks: messages sent before may be lost."""
    received: int
    """Bytes received on this connection, including an incomplete message; 0 if unknown."""


class Peer(Protocol):
    """The other end of one link: a capture, a worker, a client. It reconnects by itself, without limit."""

    def send(self, parts: Sequence[Any]) -> bool:
        """Send without waiting; ``False`` if the queue is full."""
        ...

    def receive(self, timeout: float) -> list[Any] | None:
        """Return the next message's parts, or ``None`` after ``timeout`` seconds or a `wake`.

        Raises:
            TransportError: the aggregator refuses this peer. A missing aggregator is no error: the peer waits for it.
        """
        ...

    def wake(self) -> None:
        """Make the waiting `receive`, or the next one, return at once. The only method that other threads may call."""
        ...

    def descriptors(self) -> tuple[int, ...]:
        """Return file descriptors to wait on in an event loop.

        One of them becomes readable when `receive` has a message. Call ``receive(0)`` until it returns ``None`` before
        waiting: descriptors do not signal earlier messages again.
        """
        ...

    def connection_state(self) -> ConnectionState:
        """Return the state of this link at the latest `receive`."""
        ...

    def diagnose(self) -> str:
        """Return why no answer comes, as words that follow the address: "nothing listens there". May take a second."""
        ...

    def close(self) -> None:
        """Close; queued messages have up to a second to be sent."""
        ...


class Allowed(Protocol):
    """The keys that a transport lets in. Asked for each new connection, and for each camera."""

    def may(self, public: str, link: str) -> bool:
        """Return whether the key with this public half opens a link."""
        ...

    def objection(self, public: str, camera: str) -> str:
        """Return why a key may not send frames for a camera, or an empty text."""
        ...

    def may_read(self, public: str) -> bool:
        """Return whether a key may read the status and stored events on the link ``control``."""
        ...

    def annotator(self, public: str) -> str | None:
        """Return the only name under which a key may annotate; empty: under any; ``None``: it may not."""
        ...


class Transport(Protocol):
    """Connects the roles. One address names an aggregator with all its links (`LINKS`, `BROADCASTS`).

    Its factory gets the process's key file, and the aggregator's folder of keys (`fer_stream.transports.keys`); each is
    ``None`` if the settings name none.
    """

    def bind(self, address: str, allowed: Allowed | None = None) -> Hub:
        """Open every link of an aggregator.

        Args:
            address: where it listens.
            allowed: the keys that are allowed, in a cell; by default those in the folder of keys.

        Raises:
            TransportError: the address is in use, or cannot be bound.
            ConfigError: this is not an address.
        """
        ...

    def connect(self, address: str, link: str) -> Peer:
        """Open one link to the aggregator at ``address``, which may start later.

        The public half of that aggregator's key may follow the address, after ``#``.
        """
        ...

    def subscribe(self, address: str, link: str, topics: Sequence[str]) -> Peer:
        """Subscribe to a broadcast link: messages arrive as ``[topic, *parts]``. An empty topic stands for all."""
        ...


def transport(settings: Settings) -> Transport:
    """Return the transport that the settings name, with the keys that they name.

    Raises:
        PluginError: the transport is not installed.
    """
    made: Transport = load("transports", settings.transport)(settings.key, settings.keys)
    return made


SERVERS = {"nats": "nats", "tls": "nats"}
"""The journal plug-in for each scheme of ``journal.path``. Without a scheme it is a file's path: ``sqlite``."""


def journal(settings: JournalSettings, fleet: FleetSettings | None = None) -> Journal:
    """Return the journal that the settings name.

    Args:
        settings: where it is.
        fleet: if it names a cell, and the journal is on servers, it is the cell's journal: its plug-in is called with
            these settings, too. Then it can be read, examined and purged; aggregators write it in another way.

    Raises:
        PluginError: the plug-in, or what it needs, is not installed.
        ConfigError: the settings are invalid.
    """
    scheme = settings.path.partition("://")[0] if isinstance(settings.path, str) else ""
    factory = load("journals", SERVERS.get(scheme, "sqlite"))
    made: Journal = factory(settings, fleet) if scheme in SERVERS and fleet and fleet.cell else factory(settings)
    return made


CODE = frozenset({".py", ".so", ".pyd"})
"""Suffixes of the files that Python executes."""

KINDS = ("sources", "detectors", "classifiers", "transports", "batch_sinks", "sinks", "journals")


def available(kind: str) -> list[str]:
    """Return the names registered under a kind, sorted."""
    return sorted(entry.name for entry in entry_points(group=f"fer_stream.{kind}"))


def code(kind: str, name: str) -> str:
    """Return the SHA-256 of a plug-in's code: of all files of its package with a suffix in `CODE`.

    The text is empty if there is no such plug-in, or it has no file.
    """
    digest = hashlib.sha256()
    for entry in entry_points(group=f"fer_stream.{kind}", name=name):
        spec = importlib.util.find_spec(entry.module.partition(".")[0])
        folders = (spec.submodule_search_locations if spec else None) or ()
        files = [file for folder in folders for file in Path(folder).rglob("*") if file.suffix in CODE]
        for file in sorted(files) or ([Path(spec.origin)] if spec and spec.origin else []):
            digest.update(file.read_bytes())
        return digest.hexdigest()
    return ""


def load(kind: str, name: str) -> Any:
    """Return the factory registered as ``name`` under ``kind`` (one of `KINDS`).

    Raises:
        PluginError: nothing is registered under that name, or importing it fails.
    """
    for entry in entry_points(group=f"fer_stream.{kind}", name=name):
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            raise PluginError(
                f"the {kind[:-1].replace('_', ' ')} plug-in {name!r} cannot be imported: {error}; install what it needs"
            ) from error
    names = available(kind)
    raise PluginError(
        f"there is no {kind[:-1].replace('_', ' ')} {name!r}; installed are: {', '.join(names) or 'none'}"
    )
