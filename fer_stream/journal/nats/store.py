"""The plug-in `fer_stream.plugins.Journal` for NATS."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fer_stream.errors import JournalError
from fer_stream.journal.nats import streams
from fer_stream.journal.nats.access import ALONE, NATSReader, NATSWriter, check_cell
from fer_stream.journal.nats.connection import Connection, RefusedError, UnclearError, parse
from fer_stream.journal.nats.engine import NATSEngine
from fer_stream.journal.nats.streams import Partition
from fer_stream.journal.nats.tables import NATSBoard, NATSFollowing, NATSTable
from fer_stream.journal.nats.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fer_stream.fleet.driver import Engine
    from fer_stream.settings.sections import FleetSettings
    from fer_stream.settings.tree import JournalSettings

_log = logging.getLogger(__name__)


class NATS:
    """See `fer_stream.plugins.Journal`."""

    def __init__(self, settings: JournalSettings, fleet: FleetSettings | None = None) -> None:
        """Take the settings; ``fleet`` only of a cell, whose partitions can be read, examined and purged."""
        self._settings = settings
        self._parts = (
            tuple(Partition(fleet.cell, number, fleet.partitions) for number in range(fleet.partitions))
            if fleet
            else (ALONE,)
        )
        self.name = parse(str(settings.path)).name

    def writer(self) -> NATSWriter:
        """See `fer_stream.plugins.Journal.writer`. It takes over from another writer, which then ends."""
        connection = Connection(self._settings)
        connection.start()
        try:
            writer = Writer(connection, ALONE)
            connection.submit(writer.open()).result()
        except BaseException:
            connection.close()
            raise
        if warning := connection.warning:
            _log.warning(warning)
        return NATSWriter(connection, ALONE, writer, connection.close)

    def reader(self) -> NATSReader:
        """See `fer_stream.plugins.Journal.reader`."""
        return NATSReader(self._settings, self._parts)

    def purge(self, older_than: float) -> int:
        """See `fer_stream.plugins.Journal.purge`."""
        with NATSReader(self._settings, self._parts) as journal:
            return journal.purge(older_than)

    def examine(self) -> tuple[str, str]:
        """See `fer_stream.plugins.Journal.examine`."""
        connection = Connection(self._settings)
        connection.start()
        try:
            return connection.submit(_examine(connection, self._parts)).result(), connection.warning
        finally:
            connection.close()

    def engine(self, fleet: FleetSettings, me: str, wake: Callable[[], None]) -> Engine:
        """Join a fleet; see `NATSEngine`."""
        return NATSEngine(self._settings, fleet, me, wake)

    def table(self, fleet: FleetSettings, bucket: str) -> NATSTable:
        """See `fer_stream.fleet.commons.Commons.table`."""
        return NATSTable(self._settings, fleet, bucket)

    def board(self, fleet: FleetSettings, wake: Callable[[], None]) -> NATSBoard:
        """See `fer_stream.fleet.commons.Commons.board`."""
        return NATSBoard(self._settings, fleet, wake)

    def follow(
        self, fleet: FleetSettings, bucket: str, ensured: Mapping[str, str], take: Callable[[dict[str, str]], None]
    ) -> NATSFollowing:
        """See `fer_stream.fleet.commons.Commons.follow`."""
        return NATSFollowing(self._settings, fleet, bucket, ensured, take)


async def _examine(connection: Connection, parts: Sequence[Partition]) -> str:
    try:
        found = await connection.api("INFO")
        try:
            await check_cell(connection, parts)
        except RefusedError as error:
            if error.code != streams.MISSING:
                raise
            return f"can be made ({found.get('streams', 0)} streams there)"
        infos = [info for part in parts if (info := await _info(connection, part))]
    except (UnclearError, RefusedError) as error:
        raise JournalError(connection.trouble(error)) from error
    messages = sum(info["state"]["messages"] for info in infos)
    copies = min((info["config"]["num_replicas"] for info in infos), default=0)
    where = f"{len(infos)} of {len(parts)} partitions"
    if parts == (ALONE,):
        where = f"cursor {infos[0]['state']['last_seq']}"
    return f"{where}, {messages} messages, {copies} cop{'y' if copies == 1 else 'ies'}"


async def _info(connection: Connection, part: Partition) -> dict[str, Any] | None:
    """Return what the server says about a partition's stream; ``None`` if a cell's partition has none yet."""
    try:
        return await connection.api(f"STREAM.INFO.{part.stream}")
    except RefusedError as error:
        if error.code != streams.MISSING or part == ALONE:
            raise
        return None
