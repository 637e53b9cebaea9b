"""The stream of annotations, one for a whole cell. It is made with the first annotation.

Any aggregator of the cell may write it, because the order of annotations does not matter. Each has a subject of its
own, so that an annotation that is sent twice is stored once.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from fer_stream.errors import JournalError, WireError
from fer_stream.events import cloudevents
from fer_stream.events.annotations import LONGEST, decode, encode, unknown_camera, within
from fer_stream.journal.nats import counters, streams
from fer_stream.journal.nats.connection import RefusedError
from fer_stream.journal.nats.streams import ANNOTATIONS, MISSING, unescape
from fer_stream.types import AnnotationPage

if TYPE_CHECKING:
    from fer_stream.journal.nats.connection import Connection, Stored
    from fer_stream.journal.nats.streams import AnnotationSubjects, Partition
    from fer_stream.types import Annotation, AnnotationQuery

DAYS = 40
"""Periods of more days than this are read as a whole, and not day by day."""

PAGE = 1000
"""Messages to read at a time."""

_WRONG_LAST = 10071


async def add(connection: Connection, partition: Partition, annotation: Annotation) -> Annotation:
    """Store an annotation, unless its id is there already; return the stored one, with its number.

    Args:
        connection: the connection.
        partition: the partition of its camera.
        annotation: what to store.

    Raises:
        AnnotationRefusedError: no camera of this name has been in the journal.
        JournalError: the stream cannot be made.
        UnclearError, RefusedError: as `Connection.request`.
    """
    if not await _is_known(connection, partition, annotation.camera):
        raise unknown_camera(annotation.camera)
    subject = partition.annotations.of(annotation.camera, annotation.start // LONGEST, annotation.id)
    text, first = encode(annotation).encode(), {"Nats-Expected-Last-Subject-Sequence": "0"}
    try:
        if await _state(connection) is None:
            wanted = streams.annotations_configuration(connection.settings, partition.annotations)
            await streams.ensure(connection, wanted)
        answer = await connection.request(subject, text, first)
    except RefusedError as error:
        stored = await connection.last(ANNOTATIONS, subject) if error.code == _WRONG_LAST else None
        if stored is None:
            raise
        return _decoded(connection, stored)
    return replace(annotation, number=int(answer["seq"]))


async def _is_known(connection: Connection, partition: Partition, camera: str) -> bool:
    try:
        known = await counters.load(connection, partition, camera)
    except RefusedError as error:
        if error.code != MISSING:
            raise
        return False  # nobody has owned the partition yet
    return bool(known.revision or known.sequence)


async def read(connection: Connection, subjects: AnnotationSubjects, wanted: AnnotationQuery) -> AnnotationPage:
    """See `fer_stream.plugins.JournalReader.annotations`. Only the days of a period are read.

    Raises:
        JournalError: a stored text was changed.
        UnclearError, RefusedError: as `Connection.fetch`.
    """
    first, last = (wanted.since - LONGEST) // LONGEST, (wanted.until - 1) // LONGEST
    days = range(first, last + 1) if last - first < DAYS else (None,)
    parts = await asyncio.gather(
        *(_fetch(connection, subjects.of(wanted.camera, day), wanted.after, wanted.limit) for day in days)
    )
    # A part that reached the limit lacks its later messages, so later ones of other parts wait for the next page.
    cut = [messages[-1].sequence for messages, more in parts if more]
    reached = min(cut, default=0)
    messages = sorted(message for part, _ in parts for message in part if not cut or message.sequence <= reached)
    more = reached
    if len(messages) > wanted.limit:
        messages = messages[: wanted.limit]
        more = messages[-1].sequence
    found = [_decoded(connection, message) for message in messages]
    return AnnotationPage([each for each in found if within(each, wanted.since, wanted.until)], more)


async def forget(connection: Connection, partition: Partition, older_than: float) -> None:
    """Delete annotations made before a time (Unix seconds), and those whose events are deleted.

    The latter are annotations that end no later than the oldest event that the journal still has of their camera.

    Args:
        connection: the connection.
        partition: any of the cell.
        older_than: the time.

    Raises:
        UnclearError, RefusedError: as `Connection.request`.
    """
    oldest: dict[str, int | None] = {}
    after, more = 0, True
    while more:
        messages, more = await _fetch(connection, partition.annotations.all, after, PAGE)
        for message in messages:
            after = message.sequence
            camera = unescape(message.subject.split(".")[3])
            if camera not in oldest:
                oldest[camera] = await _oldest(connection, partition, camera)
            try:
                annotation = decode(message.text, message.sequence)
            except WireError:  # reading it reports the damage
                continue
            begin = oldest[camera]
            if annotation.made < older_than * 1e9 or begin is None or annotation.end <= begin:
                await connection.api(f"STREAM.PURGE.{ANNOTATIONS}", {"filter": message.subject})


async def _oldest(connection: Connection, partition: Partition, camera: str) -> int | None:
    """Return the time of the oldest event of a camera; ``None``: there is none."""
    own = streams.of_camera(partition, camera)
    what = {"seq": 1, "batch": 1, "next_by_subj": own.events_of(camera)}
    try:
        messages, _ = await connection.fetch(own.stream, what)
    except RefusedError as error:
        if error.code != MISSING:
            raise
        return None  # nobody has owned the partition yet
    if not messages:
        return None
    try:
        return cloudevents.decode(messages[0].text).time
    except WireError:  # reading it reports the damage
        return 0


async def _fetch(connection: Connection, subject: str, after: int, limit: int) -> tuple[list[Stored], bool]:
    """Return messages of a subject after a number, and whether there are more; none if there is no stream."""
    try:
        messages, end = await connection.fetch(ANNOTATIONS, {"seq": after + 1, "batch": limit, "next_by_subj": subject})
    except RefusedError as error:
        if error.code != MISSING:
            raise
        return [], False
    return messages, bool(messages) and int(end.get("Nats-Num-Pending", 0)) > 0


async def _state(connection: Connection) -> streams.State | None:
    try:
        return await streams.state(connection, ANNOTATIONS)
    except RefusedError as error:
        if error.code != MISSING:
            raise
        return None


def _decoded(connection: Connection, message: Stored) -> Annotation:
    try:
        return decode(message.text, message.sequence)
    except WireError as error:
        raise JournalError(f"the journal {connection.name} holds {error}") from error
