"""Carries out the commands of a fleet's aggregator (`fer_stream.fleet.driver.Engine`) on a NATS JetStream cluster.

::

    alive.<id>      bucket in memory, of which each key is written every 0.5 s
    parts.<pp>      bucket in files: the owners, written by compare-and-set
    FER_EV_<pp>     a stream for each partition, made by the first aggregator that looks at it

A call is answered once: `Done`, `Conflict` if the server refused what was expected, else `Unknown`. What was given up
is not sent any more: a call that waited for longer than a request may take, as in a process that was suspended, is not
begun, and a connection that breaks takes along what it had not delivered. What the server has received may still be
carried out later.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from fer_stream.errors import JournalError
from fer_stream.events.timeline import closing
from fer_stream.fleet import values
from fer_stream.fleet.driver import Answered, Heard, Seen
from fer_stream.fleet.records import (
    Beat,
    Conflict,
    Done,
    Fence,
    Look,
    Mark,
    Outcome,
    Publish,
    Read,
    Recover,
    Unknown,
    Write,
)
from fer_stream.journal.nats import events, notes, streams
from fer_stream.journal.nats.access import NATSWriter
from fer_stream.journal.nats.connection import REQUEST, Connection, RefusedError, UnclearError
from fer_stream.journal.nats.streams import MISSING, Partition, escape, unescape
from fer_stream.journal.nats.watch import follow
from fer_stream.journal.nats.writer import WRONG_LAST, Writer, append_fence, look
from fer_stream.plugins import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from fer_stream.fleet.driver import Arrival, Task
    from fer_stream.fleet.records import Call
    from fer_stream.journal.nats.connection import Stored
    from fer_stream.journal.nats.watch import Value
    from fer_stream.settings.sections import FleetSettings, JournalSettings
    from fer_stream.types import Annotation, AnnotationPage, AnnotationQuery

LONGEST = 3.0
"""Seconds after which a call is answered in any case. One is made of at most two requests, but `Recover`."""

POLL = 2.0
"""Seconds between two looks at the latest cursors, while somebody listens."""

EXPIRY = 60
"""Seconds after which the key of an aggregator that has gone is deleted."""

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class NATSEngine:
    """See `fer_stream.fleet.driver.Engine`."""

    def __init__(
        self, settings: JournalSettings, fleet: FleetSettings, me: str, wake: Callable[[], None] = lambda: None
    ) -> None:
        """Connect, make the buckets, and begin to watch them.

        Args:
            settings: where the servers are.
            fleet: the cell.
            me: this process's id.
            wake: called in another thread when something has arrived.

        Raises:
            JournalError: the servers cannot be used, or the cell has another number of partitions.
            ConfigError, PluginError: as `Connection.start`.
        """
        self.trouble = ""
        """Why the last call without an answer had none, for display; empty if the last one had one."""
        self._me, self._wake, self._settings = me, wake, settings
        self._partitions = [Partition(fleet.cell, number, fleet.partitions) for number in range(fleet.partitions)]
        self._arrived: list[Arrival] = []
        self._lock = threading.Lock()
        self._writers: dict[int, Writer] = {}
        self._recovering: dict[int, tuple[int, asyncio.Task[Outcome]]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._live: tuple[Client, Subscription] | None = None
        self._connection = Connection(settings)
        self._connection.start()
        try:
            self._connection.submit(self._open()).result()
        except BaseException:
            self._connection.close()
            raise

    # From the aggregator's thread

    def begin(self, task: Task) -> None:
        """See `fer_stream.fleet.driver.Engine.begin`."""
        self._connection.submit(self._carry_out(task, time.monotonic()))

    def arrivals(self) -> list[Arrival]:
        """See `fer_stream.fleet.driver.Engine.arrivals`."""
        with self._lock:
            arrived, self._arrived = self._arrived, []
        return arrived

    def journal(self, partition: int) -> NATSWriter:
        """See `fer_stream.fleet.driver.Engine.journal`. Closing it leaves the connection open."""
        writer = self._writers[partition]

        def close() -> None:
            if not self._connection.ending:
                self._connection.submit(writer.close())

        return NATSWriter(self._connection, self._partitions[partition], writer, close)

    def read(
        self, partition: int, after: int, limit: int, camera: str | None, size: int
    ) -> Future[tuple[list[str], int, int]]:
        """See `fer_stream.fleet.driver.Journals.read`."""
        return self._connection.submit(self._or_error(self._read(partition, after, limit, camera, size)))

    def newest(self) -> Future[dict[int, int]]:
        """See `fer_stream.fleet.driver.Journals.newest`."""
        return self._connection.submit(self._or_error(self._newest()))

    def annotate(self, annotation: Annotation) -> Future[Annotation]:
        """See `fer_stream.fleet.driver.Journals.annotate`."""
        own = streams.of_camera(self._partitions[0], annotation.camera)
        return self._connection.submit(self._or_error(notes.add(self._connection, own, annotation)))

    def annotations(self, wanted: AnnotationQuery) -> Future[AnnotationPage]:
        """See `fer_stream.fleet.driver.Journals.annotations`."""
        found = notes.read(self._connection, self._partitions[0].annotations, wanted)
        return self._connection.submit(self._or_error(found))

    def listen(self, on: bool) -> None:
        """See `fer_stream.fleet.driver.Engine.listen`."""
        self._connection.submit(self._listen(on))

    def close(self) -> None:
        """Close the connection. Calls that were not answered stay without an answer. A second call does nothing."""
        self._connection.close()

    # In the connection's loop

    async def _open(self) -> None:
        cell = streams.describe(self._partitions[0].cell, len(self._partitions))
        beats = streams.bucket("alive", cell, expiry=EXPIRY)
        for bucket in (beats, streams.bucket("parts", cell), streams.bucket(streams.COUNTERS)):
            await streams.ensure(self._connection, bucket)
        loop = asyncio.get_running_loop()
        # A server alone forgets a bucket in memory when it starts again. Owners are not forgotten, nor made up.
        alive = follow(self._connection, "alive", self._see_alive, again=beats)
        parts = follow(self._connection, "parts", self._see_part)
        self._watches = [loop.create_task(watch) for watch in (alive, parts)]

    def _arrive(self, arrival: Arrival) -> None:
        with self._lock:
            self._arrived.append(arrival)
        self._wake()

    def _see_alive(self, value: Value) -> None:
        member, found = unescape(value.key), values.decode_status(value.text)
        # An own beat that is repeated proves nothing: what others wrote before it may be missing.
        if found is not None and (value.live or member != self._me):
            self._arrive(Heard(member, *found))

    def _see_part(self, value: Value) -> None:
        part = values.decode_part(value.text)
        number = next((each.number for each in self._partitions if each.token == value.key), None)
        if part is not None and number is not None:
            self._arrive(Seen(number, value.revision, part))

    async def _carry_out(self, task: Task, since: float) -> None:
        """Carry out a command that was given at a time."""
        late = time.monotonic() - since > REQUEST
        if isinstance(task, Beat):
            if not late:
                await self._beat(task)
            return
        outcome: Outcome = Unknown()
        if not late:
            try:
                outcome = await asyncio.wait_for(self._outcome(task), LONGEST)
                self.trouble = ""
            except RefusedError as error:
                if error.code == WRONG_LAST:
                    outcome = Conflict()
                else:
                    self.trouble = self._connection.trouble(error)
            except (UnclearError, TimeoutError, JournalError) as error:
                self.trouble = str(error) or self.trouble
            except Exception:
                _log.exception("%s failed", task)
        self._arrive(Answered(task.call, outcome))

    async def _beat(self, beat: Beat) -> None:
        text = values.encode_status(beat.number, beat.status)
        try:
            await self._connection.publish(f"$KV.alive.{escape(self._me)}", text.encode())
        except UnclearError as error:  # the next one may arrive
            self.trouble = str(error)

    async def _outcome(self, call: Call) -> Outcome:
        match call:
            case Write(_, number, part, revision):
                headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
                text = values.encode_part(part).encode()
                return Done(int((await self._connection.request(self._key(number), text, headers))["seq"]))
            case Read(_, number):
                found = await self._connection.last("KV_parts", self._key(number))
                return Done((found.sequence, values.decode_part(found.text)) if found else (0, None))
            case Look(_, number):
                last, fence = await self._look(self._partitions[number])
                return Done((last, fence.sequence if fence else 0, _mark(fence)))
            case Fence(_, number, mark, last):
                return Done(
                    await append_fence(self._connection, self._partitions[number], values.encode_mark(mark), last)
                )
            case Recover(_, number, fence):
                return await self._recover(number, fence)
            case _:
                raise TypeError(f"{call} is no call to the engine")

    def _key(self, number: int) -> str:
        return f"$KV.parts.{self._partitions[number].token}"

    async def _look(self, partition: Partition) -> tuple[int, Stored | None]:
        try:
            return await look(self._connection, partition)
        except RefusedError as error:
            if error.code != MISSING:
                raise
        await streams.ensure_now(self._connection, streams.configuration(self._settings, partition))
        return await look(self._connection, partition)

    # Reading what others write

    async def _or_error(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await work
        except (UnclearError, RefusedError) as error:
            raise JournalError(self._connection.trouble(error)) from error

    async def _read(
        self, number: int, after: int, limit: int, camera: str | None, size: int
    ) -> tuple[list[str], int, int]:
        last = await self._last(number)
        after = min(after, last)
        if after == last:
            return [], last, last
        texts, reached = await events.read(self._connection, self._partitions[number], after, limit, camera, size)
        return texts, reached, max(last, reached)

    async def _newest(self) -> dict[int, int]:
        numbers = range(len(self._partitions))
        return dict(zip(numbers, await asyncio.gather(*map(self._last, numbers)), strict=True))

    async def _last(self, number: int) -> int:
        try:
            return (await streams.state(self._connection, self._partitions[number].stream)).last
        except RefusedError as error:
            if error.code != MISSING:
                raise
            return 0  # nobody has owned it yet

    async def _listen(self, on: bool) -> None:
        if on and self._listening is None:
            self._listening = asyncio.get_running_loop().create_task(self._look_often())
        elif not on and self._listening is not None:
            self._listening.cancel()
            self._listening = None
            if self._live is not None:
                (_, live), self._live = self._live, None
                with suppress(Exception):  # there may be no connection, and then no subscription either
                    await live.unsubscribe()

    async def _look_often(self) -> None:
        """Hear of all events that are stored, and look for those that were not heard of."""
        while True:
            try:
                client = self._connection.client
                if self._live is None or self._live[0] is not client:
                    self._live = client, await client.subscribe(self._partitions[0].live_of_all, cb=self._hear)
                for number, last in (await self._newest()).items():
                    self._arrive(Publish(number, last))
            except (UnclearError, RefusedError) as error:
                _log.debug("the latest cursors are unknown: %s", self._connection.trouble(error))
            except Exception:
                _log.exception("the latest cursors are unknown")
            await asyncio.sleep(POLL)

    async def _hear(self, message: Msg) -> None:
        """Take an event that the server has stored, which it publishes once more."""
        token, _, rest = message.subject.removeprefix(self._partitions[0].live_of_all.rstrip(">")).partition(".")
        sequence = (message.headers or {}).get("Nats-Sequence", "")
        number = next((each.number for each in self._partitions if each.token == token), None)
        if number is None or not sequence.isdecimal():
            return  # another program's message
        kind, _, camera = rest.partition(".")
        text = message.data.decode(errors="replace") if kind == "c" else ""
        self._arrive(Publish(number, int(sequence), unescape(camera) if text else "", text))

    # Recovering

    async def _recover(self, number: int, fence: int) -> Outcome:
        """Wait for the recovery after a fence. If it takes too long, it goes on, and the next call waits for it."""
        begun, recovery = self._recovering.get(number, (0, None))
        if recovery is None or begun != fence or (recovery.done() and not isinstance(_result(recovery), Done)):
            if recovery is not None:
                recovery.cancel()
            await self._release(number)
            recovery = asyncio.get_running_loop().create_task(self._recovered(number, fence))
            self._recovering[number] = fence, recovery
        return await asyncio.shield(recovery)

    async def _release(self, number: int) -> None:
        if writer := self._writers.pop(number, None):
            await writer.close()

    async def _recovered(self, number: int, fence: int) -> Outcome:
        partition = self._partitions[number]
        latest = await self._connection.last(partition.stream, partition.fence)
        if latest is None or latest.sequence != fence:
            return Conflict()
        writer = self._writers[number] = Writer(self._connection, partition, latest.text)
        if not await writer.adopt(fence):
            return Conflict()
        left = [closing(event) for event in await writer.unclosed()]
        stored = []
        for begin in range(0, len(left), BATCH):
            stored += [(event, text) for event, text, _ in await writer.append(left[begin : begin + BATCH], lost=0)]
        return Done(stored)


def _result(recovery: asyncio.Task[Outcome]) -> Outcome | None:
    """Return the outcome of a recovery that is done, or ``None`` if it failed."""
    return None if recovery.cancelled() or recovery.exception() else recovery.result()


def _mark(fence: Stored | None) -> Mark | None:
    """Return a fence's mark. An aggregator that is not part of a fleet writes another text, and has no term."""
    return (values.decode_mark(fence.text) or Mark(fence.text, 0)) if fence else None
