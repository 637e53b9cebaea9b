"""Moves an SQLite journal to NATS: the new streams go on with the old numbers, and the events stay in the old file.

Every stream of the cell begins after the old cursor. So an old cursor stands for its number in each partition, and a
reader that has one gets a ``stream.gap``, unless it reads the old file first. Each camera's epoch and sequence is
carried over, so no id is used twice, and sequences go on. Annotations stay in the old file, with their events.

Every step can be repeated. The streams come last: if a migration was interrupted, nothing has to be undone.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.errors import ConfigError, JournalError
from fer_stream.events.timeline import closing
from fer_stream.fleet.partitions import partition
from fer_stream.journal.nats import counters, streams
from fer_stream.journal.nats.connection import OPENING, Connection, RefusedError, UnclearError
from fer_stream.journal.nats.counters import Counters
from fer_stream.journal.nats.streams import MISSING, Partition
from fer_stream.journal.sqlite import Writer
from fer_stream.plugins import BATCH

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.settings.sections import FleetSettings, JournalSettings

RETRY = 0.25
"""Seconds until a step without an answer is repeated."""


class Migrated(NamedTuple):
    """What was carried over."""

    cursor: int
    """The number of the old journal's latest cursor. Each stream goes on with the next one."""
    cameras: int
    where: str
    """The servers, for display."""


def migrate(old: Path, settings: JournalSettings, fleet: FleetSettings) -> Migrated:
    """Make the streams of a cell, or of an aggregator alone, that go on with an SQLite journal's numbers.

    What a killed aggregator left open is closed in the old file first.

    Args:
        old: the SQLite file, which is locked meanwhile.
        settings: where the servers are.
        fleet: the cell; without a name it is an aggregator alone.

    Raises:
        JournalError: there is no old journal, it is in use, the servers cannot be used, or they hold other events.
        ConfigError: the new journal is not in NATS.
    """
    if "://" not in str(settings.path):
        raise ConfigError("where to? give the servers of the new journal with --journal nats://HOST:PORT or tls://")
    if not old.is_file():
        raise JournalError(f"there is no journal at {old}: give the path that the aggregator was given")
    count = fleet.partitions if fleet.cell else 1
    partitions = [Partition(fleet.cell or Partition().cell, number, count) for number in range(count)]
    with Writer(old) as writer:
        left = [closing(event) for event in writer.unclosed()]
        for begin in range(0, len(left), BATCH):
            writer.append(left[begin : begin + BATCH])
        connection = Connection(settings)
        connection.start()
        try:
            move = _Move(connection, partitions, writer.cursor(), writer.cameras())
            connection.submit(move.carry_out()).result()
        finally:
            connection.close()
        return Migrated(writer.cursor(), len(writer.cameras()), connection.name)


class _Move:
    """Writes numbers into the streams of a cell."""

    def __init__(
        self, connection: Connection, partitions: list[Partition], cursor: int, cameras: dict[str, tuple[int, int]]
    ) -> None:
        self._connection, self._partitions = connection, partitions
        self._cursor, self._cameras = cursor, cameras

    async def carry_out(self) -> None:
        """Write everything; repeat it for a while if there is no answer.

        Raises:
            JournalError: that is not possible.
        """
        deadline = time.monotonic() + OPENING
        while True:
            try:
                await self._once()
                return
            except (UnclearError, RefusedError) as error:
                temporary = (
                    isinstance(error, UnclearError) or error.code == MISSING
                )  # not all servers know a new stream
                if not temporary or time.monotonic() > deadline:
                    raise JournalError(self._connection.trouble(error)) from error
                await asyncio.sleep(RETRY)

    async def _once(self) -> None:
        for each in self._partitions:
            await self._check(each)
        await streams.ensure(self._connection, streams.bucket(streams.COUNTERS))
        known = [await counters.load_all(self._connection, each) for each in self._partitions]
        for camera, (epoch, sequence) in self._cameras.items():
            number = partition(camera, len(self._partitions))
            await self._save(self._partitions[number], camera, known[number].get(camera, Counters()), epoch, sequence)
        for each in self._partitions:
            await streams.ensure_all(self._connection, each, first=self._cursor + 1)
            if await self._check(each) <= self._cursor:  # it was made before, by a migration of fewer events
                await self._connection.api(f"STREAM.PURGE.{each.stream}", {"seq": self._cursor + 1})

    async def _check(self, each: Partition) -> int:
        """Return the first number of a partition's stream, 0 if there is none.

        Raises:
            JournalError: it is not empty, or begins too late.
        """
        try:
            first, last = await streams.state(self._connection, each.stream)
        except RefusedError as error:
            if error.code != MISSING:
                raise
            return 0
        if 0 < first <= last or first > self._cursor + 1:  # an empty one has 0 and 0, or ends before it begins
            raise self._used(f"its stream {each.stream} has reached {max(last, first - 1)}")
        return first

    async def _save(self, each: Partition, camera: str, known: Counters, epoch: int, sequence: int) -> None:
        if known.epoch > epoch or known.sequence > sequence:
            raise self._used(f"camera {camera} has epoch {known.epoch} and sequence {known.sequence} there")
        wanted = Counters(epoch, sequence, (self._cursor, self._cursor), known.revision)
        if wanted != known:
            await counters.save(self._connection, each, camera, wanted)

    def _used(self, what: str) -> JournalError:
        return JournalError(
            f"the journal {self._connection.name} has been used already ({what}): an SQLite journal can be moved only "
            "to servers without events of this cell"
        )
