r"""The five Protocols a plug-in implements, and the loader that finds it.

A plug-in is a factory registered under an entry-point group ``fer_stream.<kind>``; the built-ins register the same
way in our own ``pyproject.toml``::

    [project.entry-points."fer_stream.sources"]
    opencv = "fer_stream.sources.opencv:open_source"

| group         | the entry point is a callable                                    | returns        |
|---------------|------------------------------------------------------------------|----------------|
| sources       | ``(address: str, settings: CameraSettings)``                     | `Source`       |
| detectors     | ``(settings: DetectorSettings)``                                 | `Detector`     |
| classifiers   | ``(settings: ClassifierSettings)``                               | `Classifier`   |
| transports    | ``(key: Path \| None = None, keys: Path \| None = None)``          | `Transport`    |
| sinks         | ``(argument: str)``                                              | `Sink`         |
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

    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.settings.tree import Settings
    from fer_stream.types import Event, Expected, Face, Picture, Region

    Allocate = Callable[[tuple[int, ...]], NDArray[np.uint8] | None]


class Source(Protocol):
    """Where pictures come from. Used by one thread, except that `close` may come from another one.

    A factory that cannot open its source raises `SourceError`, with ``transient=True`` if a later try may succeed: then
    the capture tries again, unless ``retry = false``.
    """

    live: bool
    """Pictures arrive in real time and cannot be asked for again (a camera), or are recorded (a file)."""
    frames: int | None
    """How many pictures a recorded source has, where it knows."""

    def read(self) -> Picture | None:
        """Return the next picture, blocking until it is there; ``None`` at the end.

        It holds pixels, or a `fer_stream.Jpeg` of what a camera sent, which the capture looks at.

        Raises:
            SourceError: the source broke.
        """
        ...

    def close(self) -> None:
        """Release the device or file; a second call does nothing."""
        ...


@runtime_checkable
class AllocatingSource(Source, Protocol):
    """A source that can write a picture where the capture wants it, which saves a copy of it."""

    allocate: Allocate | None
    """Called with a shape, gives memory for a picture, uint8 and C-contiguous, or ``None`` where there is none now."""


class Detector(Protocol):
    """Finds faces. Holds no state between frames: its answer is a function of the image alone."""

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces in ``image`` (uint8 ``[H, W, 3]``, BGR), without expression scores."""
        ...


@runtime_checkable
class FollowingDetector(Detector, Protocol):
    """A detector that can also check known faces and search parts of an image, which saves most of its work."""

    def look(
        self, image: NDArray[np.uint8], expected: Sequence[Expected], regions: Sequence[Region]
    ) -> tuple[list[Face | None], list[Face]]:
        """Return each expected face as it is now, or ``None`` where it is not there; and those new in ``regions``.

        An expected face that is ``due`` comes with landmarks where the detector has any.
        """
        ...


class Classifier(Protocol):
    """Scores apparent expressions. Crops by itself: how a crop lies relative to a box is a matter of its model."""

    labels: tuple[str, ...]
    version: str
    """Which model this is, for people: its name and version."""

    def classify(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> NDArray[np.float32]:
        """Return probabilities, float32 ``[len(faces), len(labels)]``, each row summing to 1."""
        ...


class Sink(Protocol):
    """Where events go. One that has nobody left to write to may say so by an attribute ``closed`` that is true."""

    def write(self, event: Event, text: str) -> None:
        """Take one event; ``text`` is its JSON as journaled, without a line end."""
        ...

    def close(self) -> None:
        """Flush and release; a second call does nothing."""
        ...


LINKS = ("control", "frames", "work")
"""Links with an aggregator's answer: clients ask on control, captures send frames, workers take work."""

BROADCASTS = ("events", "observations", "preview")
"""Links on which the aggregator speaks to all who listen."""


class Hub(Protocol):
    """The aggregator's end of a transport: many peers, told apart by an opaque id."""

    def receive(self, timeout: float) -> list[tuple[str, bytes, list[Any]]]:
        """Wait up to ``timeout`` seconds, then return all that is there as ``(link, peer, parts)``.

        A part is a bytes-like object. On a broadcast link one part comes in, a byte before a topic: 1 when somebody
        begins to listen to it, 0 when the last one stopped.
        """
        ...

    def send(self, link: str, peer: bytes, parts: Sequence[Any]) -> bool:
        """Send to one peer without waiting; ``False`` where that peer is gone or not taking anything."""
        ...

    def objection(self, peer: bytes, camera: str) -> str:
        """Return why a peer of the link frames, just received from, may not speak for a camera, or an empty text."""
        ...

    def publish(self, link: str, topic: str, parts: Sequence[Any]) -> None:
        """Send to everybody who listens to a prefix of ``topic``; who is too slow loses it, nobody waits."""
        ...

    def close(self) -> None:
        """Close all links; what was sent has up to a second to leave."""
        ...


class Standing(NamedTuple):
    """How a link stands, as far as its transport can tell."""

    up: bool
    """There is a connection; what is sent without one waits for it."""
    life: int
    """Changes where what was sent before may be lost: its connection broke."""
    received: int
    """Bytes that arrived on this connection, also of a message that is not whole yet; 0 where nobody knows."""


class Peer(Protocol):
    """The other end of one link: a capture, a worker, a client. It reconnects by itself and for ever."""

    def send(self, parts: Sequence[Any]) -> bool:
        """Send without waiting; ``False`` where nothing can be taken now."""
        ...

    def receive(self, timeout: float) -> list[Any] | None:
        """Return the next message's parts, or ``None`` after ``timeout`` seconds or a `wake`.

        Raises:
            TransportError: the aggregator refuses this peer; one that is not there is waited for.
        """
        ...

    def wake(self) -> None:
        """Make a `receive` that waits, or the next one, return at once. The one method for other threads."""
        ...

    def descriptors(self) -> tuple[int, ...]:
        """Return file descriptors to wait on in an event loop.

        One of them becomes readable when `receive` has something. Call ``receive(0)`` until it returns ``None`` before
        waiting, or what came earlier may never be told.
        """
        ...

    def standing(self) -> Standing:
        """Return how this link stood at the latest `receive`."""
        ...

    def trouble(self) -> str:
        """Return why no answer comes, in words that follow the address: "nothing listens there". May take a second."""
        ...

    def close(self) -> None:
        """Close; what was sent has up to a second to leave."""
        ...


class Transport(Protocol):
    """How the roles reach each other: one address names an aggregator and all its links (`LINKS`, `BROADCASTS`).

    Its factory gets the process's own key file, and the aggregator's folder of keys (`fer_stream.transports.keys`),
    where named.
    """

    def bind(self, address: str) -> Hub:
        """Open every link of an aggregator.

        Raises:
            TransportError: the address is in use, or cannot be bound.
            ConfigError: it is not an address.
        """
        ...

    def connect(self, address: str, link: str) -> Peer:
        """Open one link to the aggregator at ``address``, whether it is there already or not."""
        ...

    def subscribe(self, address: str, link: str, topics: Sequence[str]) -> Peer:
        """Listen to a broadcast link: messages arrive as ``[topic, *parts]``. An empty topic is all."""
        ...


def transport(settings: Settings) -> Transport:
    """Return the transport that the settings name, with the keys that they name.

    Raises:
        PluginError: it is not installed.
    """
    made: Transport = load("transports", settings.transport)(settings.key, settings.keys)
    return made


CODE = frozenset({".py", ".so", ".pyd"})
"""Suffixes of what Python runs."""

KINDS = ("sources", "detectors", "classifiers", "transports", "sinks")


def available(kind: str) -> list[str]:
    """Return the names registered under a kind, sorted."""
    return sorted(entry.name for entry in entry_points(group=f"fer_stream.{kind}"))


def code(kind: str, name: str) -> str:
    """Return the SHA-256 of the code in which a plug-in lies: of all files of its package that Python runs.

    It is empty where there is no such plug-in, or no file of it.
    """
    found = hashlib.sha256()
    for entry in entry_points(group=f"fer_stream.{kind}", name=name):
        spec = importlib.util.find_spec(entry.module.partition(".")[0])
        folders = (spec.submodule_search_locations if spec else None) or ()
        files = [file for folder in folders for file in Path(folder).rglob("*") if file.suffix in CODE]
        for file in sorted(files) or ([Path(spec.origin)] if spec and spec.origin else []):
            found.update(file.read_bytes())
        return found.hexdigest()
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
                f"the {kind[:-1]} plug-in {name!r} cannot be imported: {error}; install what it needs"
            ) from error
    raise PluginError(f"there is no {kind[:-1]} {name!r}; installed are: {', '.join(available(kind)) or 'none'}")
