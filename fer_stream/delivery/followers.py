"""Where events come from: a running aggregator or its cell, or a journal that is read while it grows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, Self

from fer_stream import client, plugins
from fer_stream.errors import FerStreamError
from fer_stream.events.cursor import to_cursor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fer_stream.settings.tree import Settings
    from fer_stream.types import Cursor, Event

POLL = 0.5
"""Seconds between two looks at a journal whose end was reached."""

ANSWER = 1.0
"""Seconds to wait for an aggregator's status."""


class Follower(Protocol):
    """Yields events after a cursor, in order, without an end. One thread uses it."""

    @property
    def cursor(self) -> Cursor:
        """The cursor up to which every event was returned."""
        ...

    def receive(self, timeout: float) -> tuple[Event, str] | None:
        """Return the next event and its text as journaled, or ``None`` after ``timeout`` seconds.

        Raises:
            FerStreamError: there are none for now.
            ConfigError: the cursor to resume after is of other events.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class JournalFollower:
    """A `Follower` of a journal, whether or not an aggregator writes it."""

    def __init__(self, settings: Settings, after: Cursor) -> None:
        self.cursor = after
        self._settings = settings
        self._events: Iterator[tuple[Event, str]] | None = None
        self._due = 0.0

    def receive(self, timeout: float) -> tuple[Event, str] | None:
        """See `Follower.receive`."""
        if self._events is None:
            pause = self._due - time.monotonic()
            time.sleep(max(0.0, min(timeout, pause)))
            if pause > timeout:
                return None
            self._events = client.read_journal(self._settings, after=self.cursor)
        try:
            found = next(self._events, None)
        except FerStreamError:
            self._end()
            raise
        if found is None:
            self._end()
        else:
            self.cursor = found[0].cursor
        return found

    def _end(self) -> None:
        self._events, self._due = None, time.monotonic() + POLL

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._events = None


class Events:
    """The events that all sinks of a process follow, each at its own pace."""

    def __init__(self, settings: Settings, *, from_journal: bool) -> None:
        """Follow an aggregator, or a journal.

        Args:
            settings: the whole tree, with the aggregator's address or the journal's path.
            from_journal: read the journal.
        """
        self._settings, self._from_journal = settings, from_journal

    def after(self, cursor: Cursor) -> Follower:
        """Follow the events after a cursor.

        Raises:
            FerStreamError: the settings do not allow it.
        """
        how = self._settings
        if self._from_journal:
            return JournalFollower(how, cursor)
        return client.Subscription(how.address, after=cursor, transport=how.transport, key=how.key, keys=how.keys)

    def rest(self, cursor: Cursor) -> Follower:
        """Follow the journal in the settings after a cursor, because the aggregator has ended."""
        return JournalFollower(self._settings, cursor)

    def aggregator_ended(self) -> None:
        """Ask the journal alone for the latest event from now on."""
        self._from_journal = True

    def newest(self) -> Cursor | None:
        """Return the cursor of the latest event; ``None`` if it cannot be found out now. This may take a second."""
        try:
            if not self._from_journal:
                return client.status(self._settings, ANSWER)["cursor"]  # type: ignore[no-any-return]
            with plugins.journal(self._settings.journal, self._settings.fleet).reader() as reader:
                return to_cursor(*[reader.cursor(number) for number in range(reader.partitions)])
        except FerStreamError:
            return None
