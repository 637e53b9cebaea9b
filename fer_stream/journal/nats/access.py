"""The reader and the writer of the plug-in: a thread talks to the servers, and the aggregator never waits."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fer_stream.errors import JournalError
from fer_stream.journal.nats import counters, events, notes, streams
from fer_stream.journal.nats.connection import OPENING, Connection, RefusedError, UnclearError
from fer_stream.journal.nats.streams import MISSING, Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from concurrent.futures import Future

    from fer_stream.errors import RivalError
    from fer_stream.journal.nats.writer import Writer
    from fer_stream.plugins.journals import Stored
    from fer_stream.settings.tree import JournalSettings
    from fer_stream.types import Annotation, AnnotationPage, AnnotationQuery, Event

Result = TypeVar("Result")

ALONE = Partition()
"""The partition of an aggregator that is not part of a fleet."""

_OWNERS = "KV_parts"
"""The stream behind the bucket of a cell's owners; its description names the cell."""

_RETRY = 0.2


class NATSReader:
    """See `fer_stream.plugins.JournalReader`. It repeats a request while a cluster elects its leader."""

    def __init__(self, settings: JournalSettings, parts: Sequence[Partition] = (ALONE,)) -> None:
        """Connect, and check that the journal has these partitions: all those of a cell, or `ALONE`.

        Raises:
            JournalError: it has others, there is no journal, or the servers cannot be used.
            ConfigError, PluginError: as `Connection.start`.
        """
        self.partitions = len(parts)
        self._parts = parts
        self.connection = Connection(settings)
        self.connection.start()
        try:
            self.wait(lambda: check_cell(self.connection, parts))
        except BaseException:
            self.close()
            raise

    def wait(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Run a coroutine, and return its result; repeat it for a while if there is no answer.

        Raises:
            JournalError: there is none, or the servers refuse.
        """
        deadline = time.monotonic() + OPENING
        while True:
            try:
                return self.connection.submit(work()).result()
            except RefusedError as error:
                raise JournalError(self.connection.trouble(error)) from error
            except UnclearError as error:
                if time.monotonic() > deadline:
                    raise JournalError(self.connection.trouble(error)) from error
                time.sleep(_RETRY)

    def cursor(self, partition: int = 0) -> int:
        """See `fer_stream.plugins.JournalReader.cursor`."""
        return self.wait(lambda: last(self.connection, self._parts[partition]))

    def read(
        self,
        after: int,
        limit: int = 1000,
        camera: str | None = None,
        size: int | None = None,
        partition: int = 0,
    ) -> tuple[list[str], int]:
        """See `fer_stream.plugins.JournalReader.read`."""
        return self.wait(lambda: events.read(self.connection, self._parts[partition], after, limit, camera, size))

    def annotations(self, wanted: AnnotationQuery) -> AnnotationPage:
        """See `fer_stream.plugins.JournalReader.annotations`."""
        return self.wait(lambda: notes.read(self.connection, self._parts[0].annotations, wanted))

    def purge(self, older_than: float) -> int:
        """See `fer_stream.plugins.Journal.purge`."""
        held = [part for part in self._parts if self.wait(partial(last, self.connection, part))]
        count = sum(self.wait(partial(purge, self.connection, part, older_than)) for part in held)
        self.wait(lambda: notes.forget(self.connection, self._parts[0], older_than))
        return count

    def close(self) -> None:
        """See `fer_stream.plugins.JournalReader.close`."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NATSWriter:
    """See `fer_stream.plugins.JournalWriter`."""

    def __init__(self, connection: Connection, partition: Partition, writer: Writer, close: Callable[[], None]) -> None:
        """Use a writer that has taken over; ``close`` is called at the end."""
        self._connection, self._partition, self._writer = connection, partition, writer
        self._close = close
        self.cursor = writer.cursor

    @property
    def trouble(self) -> str:
        """See `fer_stream.plugins.JournalWriter.trouble`."""
        return self._writer.trouble

    def append(self, events: Sequence[Event], lost: int = 0) -> Future[list[Stored]]:
        """See `fer_stream.plugins.JournalWriter.append`."""

        async def work() -> list[Stored]:
            return [(event, text) for event, text, _ in await self._writer.append(events, lost)]

        return self._connection.submit(work())

    def epoch(self, camera: str) -> Future[int]:
        """See `fer_stream.plugins.JournalWriter.epoch`."""
        return self._connection.submit(self._writer.epoch(camera))

    def read(
        self, after: int, limit: int = 1000, camera: str | None = None, size: int | None = None
    ) -> Future[tuple[list[str], int]]:
        """See `fer_stream.plugins.JournalWriter.read`."""
        return self._connection.submit(
            self._or_error(events.read(self._connection, self._partition, after, limit, camera, size))
        )

    def purge(self, older_than: float) -> Future[int]:
        """See `fer_stream.plugins.JournalWriter.purge`. The servers delete by themselves what is too old."""

        async def work() -> int:
            await self._writer.tend()
            count = await self._or_error(purge(self._connection, self._partition, older_than))
            if self._partition.number == 0:  # all annotations are in one stream
                await self._or_error(notes.forget(self._connection, self._partition, older_than))
            return count

        return self._connection.submit(work())

    def annotate(self, annotation: Annotation) -> Future[Annotation]:
        """See `fer_stream.plugins.JournalWriter.annotate`."""
        return self._connection.submit(self._or_error(notes.add(self._connection, self._partition, annotation)))

    def annotations(self, wanted: AnnotationQuery) -> Future[AnnotationPage]:
        """See `fer_stream.plugins.JournalWriter.annotations`."""
        found = notes.read(self._connection, self._partition.annotations, wanted)
        return self._connection.submit(self._or_error(found))

    async def _or_error(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await work
        except (UnclearError, RefusedError) as error:
            raise JournalError(self._connection.trouble(error)) from error

    def unclosed(self) -> list[Event]:
        """See `fer_stream.plugins.JournalWriter.unclosed`."""
        return self._connection.submit(self._or_error(self._writer.unclosed())).result()

    def check(self) -> None:
        """See `fer_stream.plugins.JournalWriter.check`."""
        rival: RivalError | None = self._writer.rival
        if rival is not None:
            raise rival

    def close(self) -> None:
        """See `fer_stream.plugins.JournalWriter.close`."""
        self._close()


async def check_cell(connection: Connection, parts: Sequence[Partition]) -> None:
    """Check that a journal is there, and is that of one aggregator alone, or of a cell with these partitions.

    Raises:
        JournalError: it has other partitions.
        RefusedError: there is no journal.
        UnclearError: there is no answer.
    """
    wanted = "" if parts == (ALONE,) else streams.describe(parts[0].cell, len(parts))
    try:
        found = (await connection.api(f"STREAM.INFO.{_OWNERS}"))["config"].get("description", "")
    except RefusedError as error:
        if error.code != MISSING or wanted:
            raise
        found = ""  # no cell
    if found and not wanted:
        raise JournalError(
            f"the events at {connection.name} are those of a cell ({found}): set fleet.cell and fleet.partitions"
        )
    if found != wanted:
        raise JournalError(
            f"the events at {connection.name} are those of another cell ({found}) than the settings say ({wanted}): "
            "correct fleet.cell and fleet.partitions"
        )
    if not wanted:
        await streams.state(connection, ALONE.stream)


async def last(connection: Connection, partition: Partition) -> int:
    """Return the last sequence in a partition's stream, 0 if a cell's partition has none yet; as `streams.state`."""
    try:
        return (await streams.state(connection, partition.stream)).last
    except RefusedError as error:
        if error.code != MISSING or partition == ALONE:
            raise
        return 0


async def purge(connection: Connection, partition: Partition, older_than: float) -> int:
    """Delete events stored before a time; first write the counters of cameras whose latest event is deleted."""
    begin = datetime.fromtimestamp(max(0.0, older_than), UTC).isoformat().replace("+00:00", "Z")
    fresh, _ = await connection.fetch(
        partition.stream, {"start_time": begin, "batch": 1, "next_by_subj": partition.all}
    )
    first, last = await streams.state(connection, partition.stream)
    upto = fresh[0].sequence if fresh else last + 1
    if upto <= first:
        return 0
    found = await connection.api(f"STREAM.INFO.{partition.stream}", {"subjects_filter": partition.cameras})
    for subject in found["state"].get("subjects") or {}:
        latest = await connection.last(partition.stream, subject)
        if latest is not None and latest.sequence < upto:
            camera = streams.unescape(subject.rpartition(".")[2])
            await counters.save(connection, partition, camera, await counters.load(connection, partition, camera))
    found_fences = (await events.fetch(connection, partition, partition.fence, 0, 1000)).messages
    fences = [message for message in found_fences if first <= message.sequence < upto]
    purged = await connection.api(f"STREAM.PURGE.{partition.stream}", {"seq": upto})
    return int(purged["purged"]) - len(fences)
