"""Reads the events in a journal, whether or not an aggregator runs."""

from __future__ import annotations

from functools import partial
from heapq import merge
from typing import TYPE_CHECKING, Literal

from fer_stream import plugins
from fer_stream.client.partition import starts
from fer_stream.client.subscription import numbers_after, wanted
from fer_stream.errors import JournalError, WireError
from fer_stream.events import cloudevents
from fer_stream.events.cursor import CellCursor, to_number
from fer_stream.fleet.partitions import partition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fer_stream.plugins import Journal, JournalReader
    from fer_stream.settings.tree import JournalSettings, Settings
    from fer_stream.types import Cursor, Event

    _Found = tuple[int, Event, str]
    """A partition's number, an event of it, and its text."""

BATCH = 1000
"""Events to read at a time, shared by the partitions of a cell."""

LEAST = 20
"""Least events to read at a time from one of many partitions."""


def read_journal(
    journal: Path | str | JournalSettings | Settings,
    *,
    after: str | Literal[0] = 0,
    camera: str | None = None,
    types: Sequence[str] = (),
) -> Iterator[tuple[Event, str]]:
    """Yield the events in a journal after a cursor, with their texts, whether or not an aggregator runs.

    Each camera's events are in order. Those of a cell's partitions are put together by their time; one that arrives
    late may follow later ones.

    Args:
        journal: the path of an SQLite file, the address of NATS servers, or settings that name either. A cell's journal
            is read with all settings, of which ``fleet`` names the cell.
        after: the cursor.
        camera: only this camera's events, and gaps.
        types: only these types or families, and gaps.

    Raises:
        JournalError: there is no readable journal.
        ConfigError: ``after`` is neither a cursor of this journal nor 0, or the journal's address is invalid.
        PluginError: nats-py is not installed.
    """
    numbers = numbers_after(after)
    place = _open(journal)
    with place.reader() as reader:
        count = reader.partitions
        positions = starts(numbers, count, place.name)
        followed = range(count) if camera is None else [partition(camera, count)]
        size = max(LEAST, BATCH // len(followed))
        found: Iterator[tuple[Event, str]]
        parts = [_read(place, reader, number, positions[number], camera, size) for number in followed]
        if len(parts) == 1:
            found = ((event, text) for _, event, text in parts[0])
        else:
            found = _together(parts, CellCursor(positions))
        yield from (pair for pair in found if wanted(pair[0], types))


def _together(parts: list[Iterator[_Found]], cell: CellCursor) -> Iterator[tuple[Event, str]]:
    """Yield the events of all partitions by their time, with the cell's cursor at each of them."""

    def at(number: int, cursor: Cursor) -> Cursor:
        return cell.at(number, to_number(cursor))

    for number, event, text in merge(*parts, key=lambda found: found[1].time):
        yield cloudevents.with_cursors(event, text, partial(at, number))


def _read(
    place: Journal, reader: JournalReader, number: int, after: int, camera: str | None, size: int
) -> Iterator[_Found]:
    """Yield the events of one partition, with its number."""
    while after < reader.cursor(number):
        texts, reached = reader.read(after, size, camera, partition=number)
        for text in texts:
            try:
                yield number, cloudevents.decode(text), text
            except WireError as error:
                raise JournalError(f"the journal {place.name} holds an invalid event: {error}") from error
        after = reached


def _open(journal: Path | str | JournalSettings | Settings) -> Journal:
    from fer_stream.settings.tree import JournalSettings, Settings  # noqa: PLC0415  (slow to import)

    if isinstance(journal, Settings):
        return plugins.journal(journal.journal, journal.fleet)
    return plugins.journal(journal if isinstance(journal, JournalSettings) else JournalSettings(path=journal))
