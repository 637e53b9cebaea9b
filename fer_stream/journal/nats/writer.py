"""The protocol of the only writer: what it appends is stored once and in order, or it learns that it has a rival.

A writer begins with a *fence*. Every batch names the cursor that it continues and the writer's fence, and is stored as
a whole or not at all. So a writer that was suspended while another one took over can store nothing more. At most one
batch is in flight: later batches of such a writer could otherwise fit the sequence numbers of the new one.

Whenever an answer is missing, it is unclear whether a batch was stored. The writer then reads what follows its cursor,
and goes on only if that is nothing or its own batch.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import replace
from os import getpid
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.errors import FencedError, JournalError, RivalError, WireError
from fer_stream.events.cloudevents import decode, event_id
from fer_stream.journal.contents import Numbered, OpenEvents, number, stored_gap
from fer_stream.journal.nats import counters, streams
from fer_stream.journal.nats.connection import OPENING, RefusedError, UnclearError
from fer_stream.journal.nats.events import fetch
from fer_stream.journal.nats.streams import DUPLICATES, MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from fer_stream.journal.nats.connection import Connection, Stored
    from fer_stream.journal.nats.counters import Counters
    from fer_stream.journal.nats.streams import Partition
    from fer_stream.types import Event

RETRY = 0.25
"""Seconds until a request that failed is repeated."""

MOST = 1000
"""Most messages in an atomic batch, by the server's limit."""

PAGE = 1000
"""Messages in one answer."""

AT_ONCE = 16
"""Cameras whose open events are read at the same time."""

WRONG_LAST, DUPLICATE = 10071, 10201
"""JetStream's codes for a batch that does not continue the stream, or contains an id that is stored already."""

_log = logging.getLogger(__name__)


class _Message(NamedTuple):
    """A message to store."""

    subject: str
    text: str
    identity: str = ""


async def look(connection: Connection, partition: Partition) -> tuple[int, Stored | None]:
    """Return a stream's last sequence and its last fence; as `Connection.request`.

    The sequence is read first. So whoever appends a fence after it has seen all fences before its own one.
    """
    last = (await streams.state(connection, partition.stream)).last
    return last, await connection.last(partition.stream, partition.fence)


async def append_fence(connection: Connection, partition: Partition, text: str, last: int) -> int:
    """Append a fence if the stream's last sequence is still this one, and return its sequence.

    Raises:
        RefusedError: it is not (code `WRONG_LAST`), or the fence cannot be stored.
        UnclearError: it is not known whether it is stored.
    """
    headers = {"Nats-Expected-Last-Sequence": str(last)}
    return int((await connection.request(partition.fence, text.encode(), headers))["seq"])


class Writer:
    """The state of a writer of one partition. Its coroutines run in the connection's loop."""

    def __init__(self, connection: Connection, partition: Partition, token: str = "") -> None:
        """Prepare to write; `open` or `adopt` takes over.

        Args:
            connection: the connection.
            partition: the partition.
            token: the text of this writer's fences, which no other writer uses; empty outside of a fleet.
        """
        self.cursor = 0
        self.trouble = ""
        """Why nothing can be written at present, for display; empty if it can."""
        self.rival: RivalError | None = None
        """The error to raise once another writer has taken over."""
        self._connection, self._partition = connection, partition
        self._shared = bool(token)
        self._token = token or f"{socket.gethostname()} {getpid()} {secrets.token_hex(8)}"
        self._fence = self._fence_before = 0
        self._cameras: dict[str, Counters] = {}
        self._writing, self._joining = asyncio.Lock(), asyncio.Lock()
        self._lost_after: int | None = None  # while a stream that has lost messages is being filled
        self._watching: Client | None = None
        self._fences: Subscription | None = None

    # Taking over

    async def open(self) -> None:
        """Make the streams if there are none, and take over from the writer before this one.

        Raises:
            JournalError: that is not possible.
        """
        connection = self._connection
        await streams.ensure_all(connection, self._partition)
        deadline = time.monotonic() + OPENING
        while True:
            try:
                await self._take_over()
                break
            except (UnclearError, RefusedError) as error:
                temporary = isinstance(error, UnclearError) or error.code == WRONG_LAST
                if not temporary or time.monotonic() > deadline:
                    raise JournalError(connection.trouble(error)) from error
                await asyncio.sleep(RETRY)
        await self._begin_watching()

    async def adopt(self, fence: int) -> bool:
        """Go on after this writer's fence, which was appended before; ``False``: there is a later one.

        Raises:
            UnclearError: there is no answer.
            RefusedError: it is an error.
        """
        last, latest = await look(self._connection, self._partition)
        if latest is None or latest.sequence != fence or latest.text != self._token:
            return False
        self.cursor, self._fence, self._fence_before = last, fence, fence
        await self._begin_watching()
        return self.rival is None

    async def _take_over(self) -> None:
        last, latest = await look(self._connection, self._partition)
        if latest is not None and latest.text == self._token:  # the answer to an earlier attempt was lost
            self.cursor = self._fence = latest.sequence
            return
        self._fence_before = latest.sequence if latest else 0
        self.cursor = last
        await self._append_fence()

    async def _append_fence(self) -> None:
        sequence = await append_fence(self._connection, self._partition, self._token, self.cursor)
        self.cursor = self._fence = sequence

    async def _begin_watching(self) -> None:
        self._connection.on_connect.append(self._watch)
        await self._watch(self._connection.client)

    async def close(self) -> None:
        """Stop to watch for rivals. The connection stays open."""
        if self._watch in self._connection.on_connect:
            self._connection.on_connect.remove(self._watch)
        if self._fences is not None:
            with suppress(Exception):  # there may be no connection, and then no subscription either
                await self._fences.unsubscribe()

    async def _watch(self, client: Client) -> None:
        """Learn of a rival even if there is nothing to write, and of one that came while there was no connection."""
        if client is not self._watching:
            self._watching = client
            # Not the subject to which a rival publishes its fence: there it arrives before it is stored, or is refused.
            live = self._partition.live.replace(">", "fence")
            self._fences = await client.subscribe(live, cb=self._see_fence)
        await self._verify()

    async def _see_fence(self, message: Msg) -> None:
        """Look closer at a fence that was stored."""
        if message.data != self._token.encode():
            await self._verify()

    async def _verify(self) -> None:
        try:
            latest = await self._connection.last(self._partition.stream, self._partition.fence)
        except (UnclearError, RefusedError):
            return
        if latest is not None and latest.sequence > self._fence and latest.text != self._token:
            self.rival = self._taken_over(latest.text)

    def _taken_over(self, by: str) -> RivalError:
        if self._shared:
            return FencedError(
                f"partition {self._partition.token} at {self._connection.name} was taken over by another aggregator: "
                "this one ends, and may start again"
            )
        host, _, rest = by.partition(" ")
        who = f" (process {rest.partition(' ')[0]} on {host})" if rest else ""
        return RivalError(
            f"the journal {self._connection.name} was taken over by another aggregator{who}: this one ends; give each "
            "its own journal with --journal"
        )

    async def unclosed(self) -> list[Event]:
        """Return what a killed aggregator left open; see `fer_stream.journal.contents.OpenEvents`."""
        known = await counters.load_all(self._connection, self._partition)
        gate = asyncio.Semaphore(AT_ONCE)

        async def left_open(camera: str, since: int) -> list[Event]:
            async with gate:
                return await self._left_open(camera, since)

        found = await asyncio.gather(*(left_open(camera, each.joined[0]) for camera, each in sorted(known.items())))
        return [event for events in found for event in events]

    async def _left_open(self, camera: str, since: int) -> list[Event]:
        # A new epoch may have begun before everything of the previous one was closed: begin with that one.
        subject = self._partition.events_of(camera)
        latest = await self._connection.last(self._partition.stream, subject)
        if latest is None:
            return []
        found, after = OpenEvents(), since
        while after < latest.sequence:
            messages, more = await fetch(self._connection, self._partition, subject, after, PAGE)
            for message in messages:
                found.see(_decoded(message.text, self._connection.name))
            after = messages[-1].sequence if messages else after
            if not more and after < latest.sequence:  # a server that lags behind
                await asyncio.sleep(RETRY)
        return found.unclosed()

    # Counters

    async def epoch(self, camera: str) -> int:
        """Begin a new epoch of a camera, and return it.

        Raises:
            JournalError: it cannot be stored now.
            RivalError: another writer has taken over.
        """

        def next_epoch(known: Counters) -> Counters:
            return replace(known, epoch=known.epoch + 1, joined=(known.joined[1], self.cursor))

        return (await self._change(camera, next_epoch)).epoch

    async def _counters(self, camera: str) -> Counters:
        if camera not in self._cameras:
            self._cameras[camera] = await counters.load(self._connection, self._partition, camera)
        return self._cameras[camera]

    async def _change(self, camera: str, change: Callable[[Counters], Counters]) -> Counters:
        """Write a camera's counters. After an error they are read again, but no number is ever used twice.

        Raises:
            JournalError: they cannot be written now.
            RivalError: another writer has taken over.
        """
        async with self._joining:
            try:
                while True:
                    if self.rival:
                        raise self.rival
                    changed = change(await self._counters(camera))
                    try:
                        saved = await counters.save(self._connection, self._partition, camera, changed)
                    except (UnclearError, RefusedError) as error:
                        await self._reload(camera)
                        if isinstance(error, UnclearError) or error.code != WRONG_LAST:
                            raise
                        await self._verify()  # it may also have been a purge, which writes counters, too
                    else:
                        self._cameras[camera] = _latest(saved, self._cameras[camera])
                        return saved
            except (UnclearError, RefusedError) as error:
                raise JournalError(self._connection.trouble(error)) from error

    async def _reload(self, camera: str) -> None:
        fresh = await counters.load(self._connection, self._partition, camera)
        self._cameras[camera] = _latest(fresh, self._cameras[camera])

    async def tend(self) -> None:
        """Do what is due every hour; errors as `epoch`.

        The counters of all cameras are written, so that retention may delete their latest events. The streams get more
        copies if the cluster has grown.
        """
        await streams.ensure_all(self._connection, self._partition)
        for camera in sorted(self._cameras):
            await self._change(camera, lambda known: known)

    # Batches

    async def append(self, events: Sequence[Event], lost: int) -> list[Numbered]:
        """Store events; see `fer_stream.plugins.JournalWriter.append`. It waits as long as they cannot be stored.

        Raises:
            RivalError: another writer has taken over.
        """
        async with self._writing:
            new = [(event, identity) for identity, event in {event_id(e): e for e in reversed(events)}.items()][::-1]
            batch: list[Numbered] = []
            unclear = repeated = False
            while True:
                try:
                    if unclear and await self._is_stored(batch):
                        break
                    if repeated:
                        new = await self._without_repeats(new)
                    unclear = repeated = False
                    batch = await self._numbered(new, lost)
                    if batch:
                        unclear = True
                        messages = [
                            _Message(self._partition.events_of(event.camera), text, i) for event, text, i in batch
                        ]
                        await self._send(messages, self.cursor, self._fence)
                    break
                except RefusedError as error:
                    # An earlier attempt that had no answer may be what is in the way.
                    repeated = error.code == DUPLICATE
                    unclear = repeated or error.code == WRONG_LAST
                    if not unclear:
                        self.trouble = self._connection.trouble(error)
                except UnclearError as error:
                    self.trouble = self._connection.trouble(error)
                except RivalError:
                    raise
                except JournalError as error:  # a deleted stream cannot be made again
                    self.trouble = str(error)
                await asyncio.sleep(RETRY)
            self.trouble = ""
            self.cursor += len(batch)
            for event, _, _ in batch:
                if event.camera:
                    self._cameras[event.camera] = replace(self._cameras[event.camera], sequence=event.sequence)
            return batch

    async def _numbered(self, new: Sequence[tuple[Event, str]], lost: int) -> list[Numbered]:
        sequences = {event.camera: (await self._counters(event.camera)).sequence for event, _ in new}
        batch = number(new, self.cursor, sequences)
        if lost:
            reached = self.cursor + len(batch)
            batch.append(stored_gap(reached, reached + 1, "journal full"))  # it takes one cursor, however many are lost
        return batch

    async def _send(self, messages: Sequence[_Message], cursor: int, fence: int) -> None:
        """Store messages after a cursor, as a whole or not at all, if the latest fence is still this one.

        Raises:
            RefusedError: they are not stored.
            UnclearError: it is not known whether they are.
        """
        batch = secrets.token_hex(12)
        for place, message in enumerate(messages, 1):
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(place)}
            if message.identity:
                headers["Nats-Msg-Id"] = message.identity
            if place == 1:
                headers["Nats-Expected-Last-Sequence"] = str(cursor)
                headers["Nats-Expected-Last-Subject-Sequence"] = str(fence)
                headers["Nats-Expected-Last-Subject-Sequence-Subject"] = self._partition.fence
            if place < len(messages):
                await self._connection.publish(message.subject, message.text.encode(), headers)
            else:
                headers["Nats-Batch-Commit"] = "1"
                await self._connection.request(message.subject, message.text.encode(), headers)

    async def _is_stored(self, batch: Sequence[Numbered]) -> bool:
        """Read what follows the cursor: the batch, or nothing, after which the batch can be sent again.

        Raises:
            RivalError: it is something else.
        """
        first, last = await self._state()
        fence = await self._connection.last(self._partition.stream, self._partition.fence)
        if fence is not None and fence.text != self._token and fence.sequence > self._fence_before:
            raise self._taken_over(fence.text)
        if last < self.cursor:
            await self._restore(last)
        elif last > self.cursor:
            found = await self._connection.get(
                self._partition.stream, {"seq": self.cursor + 1, "next_by_subj": self._partition.all}
            )
            if (
                found is not None
                and found.subject == self._partition.fence
                and fence is not None
                and found.text == self._token
            ):
                self.cursor = self._fence = fence.sequence  # the answer to a new fence was lost
            elif batch and (found is None or found.text == batch[0].text):  # None: stored, and purged already
                return True
            else:
                raise self._taken_over("")
        elif fence is None or first > self._fence:  # retention has deleted it; nobody has taken over since
            await self._append_fence()
        return False

    async def _state(self) -> streams.State:
        try:
            return await streams.state(self._connection, self._partition.stream)
        except RefusedError as error:
            if error.code != MISSING:
                raise
        await streams.ensure_all(self._connection, self._partition, first=max(1, self.cursor))
        return await streams.state(self._connection, self._partition.stream)

    async def _restore(self, last: int) -> None:
        """Go on with a stream that has lost its latest messages, at a cursor that nobody has seen.

        A server may lose what it had acknowledged: if its power fails (unless ``sync_interval`` is ``always``), if it
        is put back to an older state, or if an operator deletes the stream. Fences fill the numbers, and a gap follows.
        """
        if self._lost_after is None:
            self._lost_after = last
            _log.error("the journal %s has lost its latest events: a gap reports them", self._connection.name)
        latest = await self._connection.last(self._partition.stream, self._partition.fence)
        fence = latest.sequence if latest else 0
        missing = stored_gap(self._lost_after, self.cursor, "retention")
        filled = [_Message(self._partition.fence, self._token)] * (self.cursor - last - 1)
        messages = [*filled, _Message(self._partition.gap, missing.text, missing.identity)]
        for begin in range(0, len(messages), MOST):
            part = messages[begin : begin + MOST]
            await self._send(part, last, fence)
            last += len(part)
            fence = last  # of all parts but the last one, after which it is not used
        self._lost_after = None
        await self._append_fence()

    async def _without_repeats(self, new: Sequence[tuple[Event, str]]) -> list[tuple[Event, str]]:
        """Return the events that are not among those up to the cursor that the server refuses as repeated."""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 2 * DUPLICATES))
        stored: set[str] = set()
        what: dict[str, object] = {"start_time": since, "batch": PAGE, "next_by_subj": self._partition.all}
        while True:
            messages, end = await self._connection.fetch(self._partition.stream, what)
            stored |= {message.identity for message in messages if message.sequence <= self.cursor}
            if not messages or not int(end.get("Nats-Num-Pending", 0)):
                return [(event, identity) for event, identity in new if identity not in stored]
            what = {"seq": messages[-1].sequence + 1, "batch": PAGE, "next_by_subj": self._partition.all}


def _latest(new: Counters, known: Counters) -> Counters:
    """Return new counters, but never lower numbers than the known ones: events may have been stored meanwhile."""
    return replace(new, epoch=max(new.epoch, known.epoch), sequence=max(new.sequence, known.sequence))


def _decoded(text: str, name: str) -> Event:
    try:
        return decode(text)
    except WireError as error:
        raise JournalError(f"the journal {name} holds an invalid event: {error}") from error
