"""What nodes and operators of a cell have in common, in the engine: tables, and the nodes' board.

A table is for what people decide, such as the cameras of a cell: it outlives every process, and a change that meets
another one is refused. The board is for what nodes say about themselves: it is in memory, and forgets what is not
repeated. `fer_stream.journal.nats` implements both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, cast

from fer_stream import plugins
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fer_stream.settings.sections import FleetSettings
    from fer_stream.settings.tree import Settings

REGISTRY, KEYS, NODES, ALIVE = "registry", "keys", "nodes", "alive"
"""Buckets: the cameras that are to be captured, by name; the allowed keys, by name; what nodes say about themselves;
what aggregators say."""

EXPIRY = 20
"""Seconds after which the board forgets what a node does not repeat; longer than the engine elects a leader."""


class Table(Protocol):
    """Texts by name, which operators change with compare-and-set."""

    @property
    def where(self) -> str:
        """Where it is, for messages."""
        ...

    def read(self) -> dict[str, str]:
        """Return all texts, in the order in which they were written.

        Raises:
            JournalError: they cannot be read.
        """
        ...

    def put(self, name: str, text: str) -> None:
        """Store a text; an empty one deletes the name. When this returns, it is stored on most servers.

        Raises:
            JournalError: it is not certain to be stored, or somebody else has changed it since the latest `read`.
        """
        ...

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Notice(NamedTuple):
    """A value that a `Board` has received. An empty text: it was deleted."""

    bucket: str
    key: str
    revision: int
    text: str
    live: bool
    """Whether it was written after the watch had begun; otherwise it may be old."""


class Board(Protocol):
    """A node's view of `REGISTRY`, `NODES` and `ALIVE`. One thread uses it; none of its methods but `close` waits."""

    def say(self, key: str, text: str) -> None:
        """Write a key of `NODES`, if there is a connection."""
        ...

    def notices(self) -> list[Notice]:
        """Return what has arrived since the last time; of each bucket in the order in which it was written."""
        ...

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        ...


class Following(Protocol):
    """A table that is followed in the background."""

    def close(self) -> None:
        """Follow it no more; a second call does nothing."""
        ...


class Commons(Protocol):
    """What a journal plug-in that can hold a cell provides for this, beside `fer_stream.plugins.Journal`."""

    def table(self, fleet: FleetSettings, bucket: str) -> Table:
        """Open a table, `REGISTRY` or `KEYS`; make it if it is missing.

        Raises:
            JournalError: the servers cannot be used, or the cell is another one.
        """
        ...

    def board(self, fleet: FleetSettings, wake: Callable[[], None]) -> Board:
        """Open the board; ``wake`` is called in another thread when something has arrived.

        Raises:
            JournalError: as `table`.
        """
        ...

    def follow(
        self, fleet: FleetSettings, bucket: str, ensured: Mapping[str, str], take: Callable[[dict[str, str]], None]
    ) -> Following:
        """Call ``take`` in another thread with the whole table, now and after each change, while the engine is there.

        Args:
            fleet: the cell.
            bucket: the table.
            ensured: texts that are written first where they are missing or different.
            take: takes the texts by name.

        Raises:
            ConfigError: the credentials cannot be read.
        """
        ...


def commons(settings: Settings) -> Commons:
    """Return what the machines of the settings' cell share.

    Raises:
        ConfigError: the settings name no cell, or no journal that can hold one.
        PluginError: the journal's plug-in is not installed.
    """
    if not settings.fleet.cell:
        raise ConfigError("this needs a cell: set its name (fleet.cell), and its servers (journal.path)")
    found = plugins.journal(settings.journal)
    if not hasattr(found, "table"):
        raise ConfigError(
            f"the cell {settings.fleet.cell} needs a journal in NATS, and journal.path is {found.name}: set it to "
            "nats://HOST:PORT"
        )
    return cast("Commons", found)
