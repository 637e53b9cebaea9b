"""The interfaces of journals, which store events and annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from fer_stream.types import Annotation, AnnotationPage, AnnotationQuery, Event

    Stored = tuple[Event, str]
    """An event with its numbers, and its text as stored."""


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

        It also deletes annotations made before that time, and those that end before the oldest remaining event of their
        camera.

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
