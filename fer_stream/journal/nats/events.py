"""Reads events after a cursor. Any server that holds a copy of the stream may answer, also one that lags behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fer_stream.journal.contents import stored_gap
from fer_stream.journal.nats.streams import state

if TYPE_CHECKING:
    from fer_stream.journal.nats.connection import Connection, Stored
    from fer_stream.journal.nats.streams import Partition

OVERHEAD = 131_072
"""Bytes that a batch may have beyond the requested texts: its headers, and at least one whole message."""


class Batch(NamedTuple):
    """Messages of a subject after a cursor; ``more`` says that the server that answered has further ones."""

    messages: list[Stored]
    more: bool


async def fetch(
    connection: Connection, partition: Partition, subject: str, after: int, limit: int, size: int | None = None
) -> Batch:
    """Return messages of a partition's subject after a cursor; as `Connection.fetch`."""
    what = {"seq": after + 1, "batch": limit, "next_by_subj": subject}
    if size is not None:
        what["max_bytes"] = size + OVERHEAD
    messages, end = await connection.fetch(partition.stream, what)
    return Batch(messages, int(end.get("Nats-Num-Pending", 0)) > 0)


async def read(
    connection: Connection, partition: Partition, after: int, limit: int, camera: str | None, size: int | None
) -> tuple[list[str], int]:
    """See `fer_stream.plugins.JournalReader.read`.

    Raises:
        UnclearError: the server does not answer.
        RefusedError: there is no journal.
    """
    if camera is None:
        messages, _ = await fetch(connection, partition, partition.all, after, limit, size)
        reached = messages[-1].sequence if messages else after
    else:
        messages, reached = await _read_camera(connection, partition, camera, after, limit, size)
    first, last = await state(
        connection, partition.stream
    )  # after the messages: what was deleted meanwhile belongs to the gap
    texts, taken = [], 0
    if after < first - 1:
        texts, after = [stored_gap(after, first - 1, "retention").text], first - 1
        reached = max(reached, after) if first <= last else last
    events = [message for message in messages if message.sequence > after and message.subject != partition.fence]
    for number, message in enumerate(events):
        taken += len(message.text.encode())
        if number == limit or (size is not None and taken > size and number):
            return texts, events[number - 1].sequence
        texts.append(message.text)
    return texts, reached


async def _read_camera(
    connection: Connection, partition: Partition, camera: str, after: int, limit: int, size: int | None
) -> tuple[list[Stored], int]:
    """Return a camera's events and the gaps, in order, and the sequence up to which they are complete."""
    subjects = (partition.events_of(camera), partition.gap)
    batches = [await fetch(connection, partition, subject, after, limit, size) for subject in subjects]
    messages = sorted(message for batch in batches for message in batch.messages)
    if cut := [batch.messages[-1].sequence for batch in batches if batch.more]:
        reached = min(cut)
        return [message for message in messages if message.sequence <= reached], reached
    # The server may lag behind, so the latest cursor is not reached unless a server says so: one that knows no later
    # message of these subjects, up to a sequence of its own.
    seen = messages[-1].sequence if messages else after
    latest, end = await connection.fetch(
        partition.stream, {"multi_last": [*subjects, partition.fence], "batch": len(subjects) + 1}
    )
    later = any(message.sequence > seen for message in latest if message.subject != partition.fence)
    return messages, seen if later else max(seen, int(end.get("Nats-UpTo-Sequence", 0)))
