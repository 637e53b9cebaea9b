"""Epochs and sequences of the cameras, in the key-value bucket ``cameras``.

A key is the partition's number and the camera's name. It is written when a camera joins, and before retention deletes
its latest events. Sequences in between are found again in the camera's latest event.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fer_stream.errors import WireError
from fer_stream.events.cloudevents import decode
from fer_stream.journal.nats.streams import COUNTERS, unescape

if TYPE_CHECKING:
    from fer_stream.journal.nats.connection import Connection, Stored
    from fer_stream.journal.nats.streams import Partition

PAGE = 1000
"""Keys in one answer."""


@dataclass(frozen=True, slots=True)
class Counters:
    """The numbers of one camera."""

    epoch: int = 0
    sequence: int = 0
    joined: tuple[int, int] = (0, 0)
    """The cursors at which the epoch before the latest one, and the latest one, began."""
    revision: int = 0
    """The key's revision when it was read; 0 if there was none."""


async def load(connection: Connection, partition: Partition, camera: str) -> Counters:
    """Return a camera's counters; as `Connection.request`."""
    entry = await connection.last(f"KV_{COUNTERS}", partition.counter_of(camera))
    latest = await connection.last(partition.stream, partition.events_of(camera))
    return _with_latest(_parsed(entry), latest)


async def load_all(connection: Connection, partition: Partition) -> dict[str, Counters]:
    """Return the counters of every camera of a partition, without a look at its latest event; as `Connection.fetch`."""
    found: dict[str, Counters] = {}
    after, more = 0, True
    while more:
        what = {"seq": after + 1, "batch": PAGE, "next_by_subj": partition.counters}
        entries, end = await connection.fetch(f"KV_{COUNTERS}", what)
        for entry in entries:
            found[unescape(entry.subject.rpartition(".")[2])] = _parsed(entry)
            after = entry.sequence
        more = int(end.get("Nats-Num-Pending", 0)) > 0
    return found


async def save(connection: Connection, partition: Partition, camera: str, counters: Counters) -> Counters:
    """Write a camera's counters if nobody else has since they were read; return them with the new revision.

    Raises:
        UnclearError: it is not known whether they are written: read them again.
        RefusedError: they were changed meanwhile (code 10071), or cannot be written.
    """
    value = {"epoch": counters.epoch, "sequence": counters.sequence, "joined": counters.joined}
    headers = {"Nats-Expected-Last-Subject-Sequence": str(counters.revision)}
    answer = await connection.request(partition.counter_of(camera), json.dumps(value).encode(), headers)
    return replace(counters, revision=answer["seq"])


def _parsed(entry: Stored | None) -> Counters:
    if entry is None:
        return Counters()
    try:
        value = json.loads(entry.text)
        joined = int(value["joined"][0]), int(value["joined"][1])
        return Counters(int(value["epoch"]), int(value["sequence"]), joined, entry.sequence)
    except (ValueError, KeyError, TypeError, IndexError):  # an operator deleted or changed the key
        return Counters(revision=entry.sequence)


def _with_latest(counters: Counters, latest: Stored | None) -> Counters:
    if latest is None:
        return counters
    try:
        event = decode(latest.text)
    except WireError:
        return counters
    return replace(counters, epoch=max(counters.epoch, event.epoch), sequence=max(counters.sequence, event.sequence))
