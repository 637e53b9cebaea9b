"""The buckets of a cell that its operators and its nodes use: see `fer_stream.fleet.commons`.

::

    registry.<camera>   in files: the settings of each camera that is to be captured
    keys.<name>         in files: the allowed keys
    nodes.<key>         in memory: what nodes say about themselves
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fer_stream.errors import JournalError
from fer_stream.fleet.commons import ALIVE, EXPIRY, NODES, REGISTRY, Notice
from fer_stream.journal.nats import streams
from fer_stream.journal.nats.connection import OPENING, Connection, RefusedError, UnclearError
from fer_stream.journal.nats.streams import escape, unescape
from fer_stream.journal.nats.watch import follow

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from concurrent.futures import Future

    from fer_stream.journal.nats.watch import Value
    from fer_stream.settings.sections import FleetSettings, JournalSettings

Result = TypeVar("Result")

PAGE = 1000
"""Keys in one answer."""

RETRY = 0.2
"""Seconds between two attempts of a request without an answer."""

AGAIN = 1.0
"""Seconds between two attempts to follow a table while the servers are away."""

LEAVING = 1.0
"""Seconds to wait for the end of the thread that follows a table."""

_WRONG_LAST = 10071

_log = logging.getLogger(__name__)


def _configuration(bucket: str, fleet: FleetSettings) -> dict[str, Any]:
    cell = streams.describe(fleet.cell, fleet.partitions)
    return streams.bucket(bucket, cell, expiry=EXPIRY if bucket == NODES else 0, most=65_536)


async def _read(connection: Connection, bucket: str) -> dict[str, tuple[str, int]]:
    """Return the text and the revision of each key, also of deleted ones, whose text is empty.

    Raises:
        UnclearError: there is no answer, or that of a server which has just started, and has not caught up yet.
        RefusedError: as `Connection.fetch`.
    """
    found: dict[str, tuple[str, int]] = {}
    present = await streams.state(connection, f"KV_{bucket}")
    after, more = 0, present.last >= present.first > 0
    while more:
        what = {"seq": after + 1, "batch": PAGE, "next_by_subj": f"$KV.{bucket}.>"}
        entries, end = await connection.fetch(f"KV_{bucket}", what)
        for entry in entries:
            found[unescape(entry.subject.removeprefix(f"$KV.{bucket}."))] = entry.text, entry.sequence
            after = entry.sequence
        more = int(end.get("Nats-Num-Pending", 0)) > 0
    if after < present.last >= present.first:  # the latest message of a bucket is always there
        raise UnclearError(f"a server of {connection.name} has not caught up with the others: wait until it has")
    return found


async def _put(connection: Connection, bucket: str, name: str, text: str, revision: int) -> int:
    headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)} | ({} if text else {"KV-Operation": "DEL"})
    answer = await connection.request(f"$KV.{bucket}.{escape(name)}", text.encode(), headers)
    return int(answer["seq"])


class NATSTable:
    """See `fer_stream.fleet.commons.Table`. It repeats a request while a cluster elects its leader."""

    def __init__(self, settings: JournalSettings, fleet: FleetSettings, bucket: str) -> None:
        self._bucket = bucket
        self._known: dict[str, tuple[str, int]] = {}
        self._connection = Connection(settings)
        self._connection.start()
        try:
            self._connection.submit(streams.ensure(self._connection, _configuration(bucket, fleet))).result()
        except BaseException:
            self.close()
            raise

    @property
    def where(self) -> str:
        """See `fer_stream.fleet.commons.Table.where`."""
        return self._connection.name

    def read(self) -> dict[str, str]:
        """See `fer_stream.fleet.commons.Table.read`."""
        self._known = self._wait(lambda: _read(self._connection, self._bucket))
        return {name: text for name, (text, _) in self._known.items() if text}

    def put(self, name: str, text: str) -> None:
        """See `fer_stream.fleet.commons.Table.put`."""
        _, revision = self._known.get(name, ("", 0))
        try:
            stored = self._wait(lambda: _put(self._connection, self._bucket, name, text, revision))
        except _ConflictError:
            # Perhaps the first attempt was carried out, and only its answer was lost.
            subject = f"$KV.{self._bucket}.{escape(name)}"
            latest = self._wait(lambda: self._connection.last(f"KV_{self._bucket}", subject))
            stored = latest.sequence if latest else 0
            if latest is None or latest.text != text or stored == revision:
                raise JournalError(
                    f"somebody else has changed {name} in the {self._bucket} of {self.where} at the same time: nothing "
                    "was changed now; look at it, and repeat the command if it is still needed"
                ) from None
        self._known[name] = text, stored

    def _wait(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        deadline = time.monotonic() + OPENING
        while True:
            try:
                return self._connection.submit(work()).result()
            except (UnclearError, RefusedError) as error:
                code = error.code if isinstance(error, RefusedError) else streams.MISSING
                if code == _WRONG_LAST:
                    raise _ConflictError from error
                # A bucket that was just made may be missing at first, where it is read.
                if code != streams.MISSING or time.monotonic() > deadline:
                    raise JournalError(self._connection.trouble(error)) from error
                time.sleep(RETRY)

    def close(self) -> None:
        """See `fer_stream.fleet.commons.Table.close`."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _ConflictError(Exception):
    """The key has another revision than expected."""


class NATSBoard:
    """See `fer_stream.fleet.commons.Board`."""

    def __init__(self, settings: JournalSettings, fleet: FleetSettings, wake: Callable[[], None]) -> None:
        self._fleet, self._wake = fleet, wake
        self._arrived: list[Notice] = []
        self._lock = threading.Lock()
        self._connection = Connection(settings)
        self._connection.start()
        try:
            self._connection.submit(self._open()).result()
        except BaseException:
            self._connection.close()
            raise

    async def _open(self) -> None:
        nodes = _configuration(NODES, self._fleet)
        for wanted in (nodes, _configuration(REGISTRY, self._fleet)):
            await streams.ensure(self._connection, wanted)
        # A server alone forgets a bucket in memory when it starts again. The aggregators make theirs.
        again: dict[str, dict[str, Any] | None] = {NODES: nodes, REGISTRY: None, ALIVE: None}
        loop = asyncio.get_running_loop()
        self._watches = [
            loop.create_task(follow(self._connection, bucket, self._taker(bucket), again=made))
            for bucket, made in again.items()
        ]

    def _taker(self, bucket: str) -> Callable[[Value], None]:
        def take(value: Value) -> None:
            with self._lock:
                self._arrived.append(Notice(bucket, unescape(value.key), value.revision, value.text, value.live))
            self._wake()

        return take

    def say(self, key: str, text: str) -> None:
        """See `fer_stream.fleet.commons.Board.say`."""
        self._connection.submit(self._say(key, text, time.monotonic()))

    async def _say(self, key: str, text: str, since: float) -> None:
        if time.monotonic() - since < AGAIN:  # not what waited in a process that was suspended
            try:
                await self._connection.publish(f"$KV.{NODES}.{escape(key)}", text.encode())
            except UnclearError as error:  # the next one may arrive
                _log.debug("not said: %s", error)

    def notices(self) -> list[Notice]:
        """See `fer_stream.fleet.commons.Board.notices`."""
        with self._lock:
            arrived, self._arrived = self._arrived, []
        return arrived

    def close(self) -> None:
        """See `fer_stream.fleet.commons.Board.close`."""
        self._connection.close()


class NATSFollowing:
    """See `fer_stream.fleet.commons.Commons.follow`."""

    def __init__(
        self,
        settings: JournalSettings,
        fleet: FleetSettings,
        bucket: str,
        ensured: Mapping[str, str],
        take: Callable[[dict[str, str]], None],
    ) -> None:
        self._settings, self._wanted = settings, _configuration(bucket, fleet)
        self._bucket, self._ensured, self._take = bucket, ensured, take
        self._ending = threading.Event()
        self._work: Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name=bucket, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Connect, and follow from then on; a connection that is there once comes back by itself."""
        told = ""
        while not self._ending.is_set():
            connection = Connection(self._settings)
            try:
                connection.start()
                self._work = connection.submit(self._follow(connection))
                self._work.result()
            except JournalError as error:
                if str(error) != told:
                    told = str(error)
                    _log.warning("the bucket %s cannot be followed, and is as it was: %s", self._bucket, error)
            except Exception:
                if not self._ending.is_set():
                    _log.exception("the bucket %s cannot be followed, and is as it was", self._bucket)
            connection.close()
            self._ending.wait(AGAIN)

    async def _follow(self, connection: Connection) -> None:
        await streams.ensure(connection, self._wanted)
        try:
            present = await _read(connection, self._bucket)
            for name, text in self._ensured.items():
                known, revision = present.get(name, ("", 0))
                if known != text:
                    present[name] = text, await _put(connection, self._bucket, name, text, revision)
        except (UnclearError, RefusedError) as error:
            raise JournalError(connection.trouble(error)) from error
        table = {name: text for name, (text, _) in present.items() if text}
        revisions = {name: revision for name, (_, revision) in present.items()}
        self._take(dict(table))

        def deliver(value: Value) -> None:
            name = unescape(value.key)
            if value.revision <= revisions.get(name, 0):
                return
            revisions[name] = value.revision
            table.pop(name, None)
            if value.text:
                table[name] = value.text
            self._take(dict(table))

        await follow(connection, self._bucket, deliver)

    def close(self) -> None:
        """See `fer_stream.fleet.commons.Following.close`."""
        self._ending.set()
        deadline = time.monotonic() + LEAVING
        while self._thread.is_alive() and time.monotonic() < deadline:  # it may just be connecting
            if self._work is not None:
                self._work.cancel()
            self._thread.join(0.05)
