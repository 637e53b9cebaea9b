"""Names of the streams, their subjects and keys, and how the streams are made.

A partition of a cell has one stream of events. One aggregator alone uses one partition, ``00``, of the cell ``local``.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.errors import JournalError
from fer_stream.fleet.partitions import partition
from fer_stream.journal.nats.connection import OPENING, RefusedError, UnclearError

if TYPE_CHECKING:
    from fer_stream.journal.nats.connection import Connection
    from fer_stream.settings.tree import JournalSettings


@dataclass(frozen=True, slots=True)
class Partition:
    """The names of one partition: its stream, the subjects in it, and its keys in the bucket ``cameras``."""

    cell: str = "local"
    number: int = 0
    count: int = 1
    """How many partitions the cell has."""

    @property
    def token(self) -> str:
        """The number as two hexadecimal digits."""
        return f"{self.number:02x}"

    @property
    def stream(self) -> str:
        """The name of its stream."""
        return f"FER_EV_{self.token}"

    @property
    def all(self) -> str:
        """The subjects of all its messages."""
        return f"{self._prefix}.>"

    @property
    def cameras(self) -> str:
        """The subjects of its cameras."""
        return f"{self._prefix}.c.*"

    @property
    def fence(self) -> str:
        """The subject of its fences."""
        return f"{self._prefix}.fence"

    @property
    def gap(self) -> str:
        """The subject of its gaps."""
        return f"{self._prefix}.gap"

    @property
    def _prefix(self) -> str:
        return f"fer.{escape(self.cell)}.ev.{self.token}"

    @property
    def annotations(self) -> AnnotationSubjects:
        """The subjects of the cell's annotations."""
        return AnnotationSubjects(self.cell)

    @property
    def live_of_all(self) -> str:
        """The subjects on which the server publishes what it has stored in any partition of the cell."""
        return f"fer.{escape(self.cell)}.live.>"

    @property
    def live(self) -> str:
        """The subjects on which it publishes what it has stored in this partition."""
        return f"fer.{escape(self.cell)}.live.{self.token}.>"

    def events_of(self, camera: str) -> str:
        """Return the subject of a camera's events, or of the gaps for an empty name."""
        return f"{self._prefix}.c.{escape(camera)}" if camera else self.gap

    def counter_of(self, camera: str) -> str:
        """Return the subject of a camera's key in the bucket ``cameras``."""
        return f"$KV.cameras.{self.token}.{escape(camera)}"

    @property
    def counters(self) -> str:
        """The subjects of its cameras' keys in the bucket ``cameras``."""
        return f"$KV.cameras.{self.token}.*"


def of_camera(any_: Partition, camera: str) -> Partition:
    """Return the partition of a camera, in the cell of any of its partitions."""
    return Partition(any_.cell, partition(camera, any_.count), any_.count)


@dataclass(frozen=True, slots=True)
class AnnotationSubjects:
    """The subjects of a cell's annotations in their one stream: each has its camera, its day and its id.

    The day is that of the annotation's start, in days since 1970. So a period can be read without all others.
    """

    cell: str = "local"

    @property
    def all(self) -> str:
        """The subjects of all annotations."""
        return f"{self._prefix}.>"

    @property
    def _prefix(self) -> str:
        return f"fer.{escape(self.cell)}.an"

    def of(self, camera: str | None, day: int | None = None, identity: str = "*") -> str:
        """Return the subject of a camera's annotations, ``None``: of all cameras, on a day, ``None``: on all days."""
        name = "*" if camera is None else escape(camera)
        return f"{self._prefix}.{name}.{'*' if day is None else day}.{identity}"


ANNOTATIONS = "FER_AN"
"""The stream of annotations."""

ANNOTATIONS_SHARE = 20
"""The annotations may take a further ``journal.max_gib`` divided by this."""

COUNTERS = "cameras"
"""The bucket of cameras' epochs and sequences."""

DUPLICATES = 120
"""Seconds during which the server refuses an id that is stored already."""

SECOND = 10**9


def escape(name: str) -> str:
    """Return a name as one token of a subject: ``=2E`` stands for a dot, as in quoted-printable text."""
    return "".join(
        chr(byte) if re.fullmatch(rb"[A-Za-z0-9_-]", bytes([byte])) else f"={byte:02X}" for byte in name.encode()
    )


def unescape(token: str) -> str:
    """Return the name that `escape` turned into this token."""
    return re.sub(rb"=([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), token.encode()).decode(errors="replace")


def configuration(settings: JournalSettings, partition: Partition) -> dict[str, Any]:
    """Return the configuration of a partition's stream, without its replicas."""
    age = max(1, round(settings.retention_days * 86_400 * SECOND))
    return {
        "name": partition.stream,
        "subjects": [partition.all],
        "retention": "limits",
        "storage": "file",
        "discard": "new",  # a full stream refuses events, which are then held, instead of dropping old ones unseen
        "max_bytes": round(settings.max_gib * 2**30 / partition.count),
        "max_age": age,
        "max_msg_size": 65_536,
        "duplicate_window": min(DUPLICATES * SECOND, age),
        "allow_atomic": True,
        "allow_direct": True,
        "deny_delete": True,
        "republish": {"src": partition.all, "dest": partition.live},
    }


def annotations_configuration(settings: JournalSettings, subjects: AnnotationSubjects) -> dict[str, Any]:
    """Return the configuration of the stream of annotations, without its replicas."""
    age = max(1, round(settings.retention_days * 86_400 * SECOND))
    return {
        "name": ANNOTATIONS,
        "subjects": [subjects.all],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_bytes": round(settings.max_gib * 2**30 / ANNOTATIONS_SHARE),
        "max_age": age,
        "max_msg_size": 65_536,
        "max_msgs_per_subject": 1,
        "discard_new_per_subject": True,
        "duplicate_window": min(DUPLICATES * SECOND, age),
        "allow_direct": True,
        "deny_delete": True,
    }


def bucket(name: str, cell: str = "", *, expiry: int = 0, most: int = 4096) -> dict[str, Any]:
    """Return the configuration of a key-value bucket, without its replicas.

    Args:
        name: its name.
        cell: the cell that it belongs to, as `describe` says it; empty: to any.
        expiry: seconds after which a key that is not written again is deleted. Such a bucket is in memory.
        most: most bytes of a value.
    """
    kept = {"storage": "memory", "max_age": expiry * SECOND, "duplicate_window": expiry * SECOND}
    return {
        "name": f"KV_{name}",
        **({"description": cell} if cell else {}),
        "subjects": [f"$KV.{name}.>"],
        **(kept if expiry else {"storage": "file"}),
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_msg_size": most,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
    }


def describe(cell: str, partitions: int) -> str:
    """Return the description of a cell's buckets, by which another cell is noticed."""
    return f"cell {cell}, partitions: {partitions}"


ADJUSTABLE = ("max_bytes", "max_age", "duplicate_window", "republish")
"""What a writer changes in an existing stream when the settings have changed. Any other difference is an error."""

REPLICAS = (3, 2, 1)
"""How many servers hold a copy of a stream: as many as the cluster offers."""

MISSING = 10059
"""JetStream's code for a stream that does not exist."""


class State(NamedTuple):
    """The range of sequence numbers in a stream. Of an empty one, ``first`` is ``last + 1``, or both are 0."""

    first: int
    last: int


async def state(connection: Connection, stream: str) -> State:
    """Return a stream's state, from its leader; as `Connection.request`."""
    found = (await connection.api(f"STREAM.INFO.{stream}"))["state"]
    return State(found["first_seq"], found["last_seq"])


async def ensure_all(connection: Connection, partition: Partition, first: int = 1) -> None:
    """Make a partition's stream, and the bucket of counters, as `ensure`.

    Args:
        connection: the connection.
        partition: the partition.
        first: the first sequence number of a new stream of events.
    """
    await ensure(
        connection, configuration(connection.settings, partition) | ({"first_seq": first} if first > 1 else {})
    )
    await ensure(connection, bucket(COUNTERS))


async def ensure(connection: Connection, wanted: dict[str, Any]) -> None:
    """Make a stream if it is missing, and adjust what the settings, or the size of the cluster, have changed.

    It waits for a cluster that is starting.

    Raises:
        JournalError: it cannot be made, or a stream of its name has another configuration.
    """
    deadline = time.monotonic() + OPENING
    while True:
        try:
            await ensure_now(connection, wanted)
        except (UnclearError, RefusedError) as error:
            temporary = isinstance(error, UnclearError) or error.code in _TEMPORARY
            if not temporary or time.monotonic() > deadline:
                raise JournalError(connection.trouble(error)) from error
            await asyncio.sleep(0.2)
        else:
            return


_TEMPORARY = (10008, 10009, 10023, MISSING)
"""Codes of a cluster that has no leader yet (system temporarily unavailable, not enough resources), or in which
another process is just making the stream."""


async def ensure_now(connection: Connection, wanted: dict[str, Any]) -> None:
    """As `ensure`, without waiting; errors as `Connection.request`."""
    name = wanted["name"]
    try:
        found = (await connection.api(f"STREAM.INFO.{name}"))["config"]
    except RefusedError as error:
        if error.code != MISSING:
            raise
        await _make(connection, wanted)
        return
    other = [key for key, value in wanted.items() if found.get(key) != value and key not in (*ADJUSTABLE, "first_seq")]
    if other == ["description"]:
        raise JournalError(
            f"{connection.name} has another cell ({found.get('description')}) than the settings say "
            f"({wanted['description']}): neither can be changed; correct fleet.cell and fleet.partitions"
        )
    if other:
        differences = ", ".join(f"{key} is {found.get(key)!r} instead of {wanted[key]!r}" for key in other)
        raise JournalError(
            f"the journal {connection.name} has a stream {name} that another program made, or an operator changed: "
            f"{differences}; correct that, or use another account"
        )
    changed = {key: wanted[key] for key in ADJUSTABLE if key in wanted and found.get(key) != wanted[key]}
    if changed:
        await connection.api(f"STREAM.UPDATE.{name}", found | changed)
    if found["num_replicas"] < REPLICAS[0]:  # the cluster may have grown
        await _replicate(connection, found | changed)


async def _make(connection: Connection, wanted: dict[str, Any]) -> None:
    for replicas in REPLICAS:
        try:
            await connection.api(f"STREAM.CREATE.{wanted['name']}", wanted | {"num_replicas": replicas})
        except RefusedError as error:
            if replicas == REPLICAS[-1] or error.code not in _TOO_FEW:
                raise
        else:
            return


async def _replicate(connection: Connection, found: dict[str, Any]) -> None:
    for replicas in REPLICAS:
        if replicas <= found["num_replicas"]:
            return
        try:
            await connection.api(f"STREAM.UPDATE.{found['name']}", found | {"num_replicas": replicas})
        except RefusedError as error:
            if error.code not in _TOO_FEW:
                raise
        else:
            return


_TOO_FEW = (10005, 10074)
"""Codes of a cluster with fewer servers: no suitable peers for placement, and no cluster at all."""
