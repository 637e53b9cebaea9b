"""Where events come from: a running aggregator or its cell, or a journal that is read while it grows."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self

from fer_stream import client, plugins
from fer_stream.client.partition import starts
from fer_stream.errors import FerStreamError
from fer_stream.events.cursor import to_cursor, to_numbers
from fer_stream.journal import another_journal
from fer_stream.types import GapData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_stream.plugins import Journal
    from fer_stream.settings.tree import Settings
    from fer_stream.types import Cursor, Event

POLL = 0.5
"""Seconds between two looks at a journal whose end was reached."""

DOUBT = 3.0
"""Seconds during which a journal must end before the cursor until it counts as another one."""

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
        self._doubted = math.inf

    def receive(self, timeout: float) -> tuple[Event, str] | None:
        """See `Follower.receive`."""
        if self._events is None:
            pause = self._due - time.monotonic()
            time.sleep(max(0.0, min(timeout, pause)))
            if pause > timeout:
                return None
            self._events = client.read_journal(self._settings, after=self.cursor)
        try:
            found = next(self._events, None) or self._another_journal()
        except FerStreamError:
            self._end()
            raise
        if found is None:
            self._end()
        else:
            self.cursor = found[0].cursor
            if isinstance(found[0].data, GapData):  # after that of another journal, it is read from its beginning
                self._events = None
        return found

    def _another_journal(self) -> tuple[Event, str] | None:
        """Return a gap if the journal ends before the cursor, so that its events are not those of before.

        It has to for a while: a server may know less than the one that was asked before.
        """
        with _journal(self._settings).reader() as reader:
            ends = [reader.cursor(number) for number in range(reader.partitions)]
        numbers = starts(to_numbers(self.cursor), len(ends), "the journal")
        if all(number <= end for number, end in zip(numbers, ends, strict=True)):
            self._doubted = math.inf
            return None
        self._doubted = min(self._doubted, time.monotonic())
        if time.monotonic() < self._doubted + DOUBT:
            return None
        self._doubted = math.inf
        begin = to_cursor(*[number if number <= end else 0 for number, end in zip(numbers, ends, strict=True)])
        return another_journal(self.cursor, begin)

    def _end(self) -> None:
        self._events, self._due = None, time.monotonic() + POLL

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._events = None


class Events:
    """The events that all sinks of a process follow, each at its own pace."""

    def __init__(self, settings: Settings, *, from_journal: bool, find: Callable[[], str] | None = None) -> None:
        """Follow an aggregator, or a journal.

        Args:
            settings: the whole tree, with the aggregator's address or the journal's path.
            from_journal: read the journal.
            find: returns the aggregator's address, if that may change; raises `FerStreamError` if it is not known now.
        """
        self._settings, self._from_journal, self._find = settings, from_journal, find
        self.moves = 0
        """How often the aggregator's address has changed; then followers have to be made anew."""
        self.error = ""
        """Why the latest event could not be found out; empty if it could."""

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

    def _look_for_the_aggregator(self) -> None:
        if self._find is None or self._from_journal:
            return
        with suppress(FerStreamError):  # it may come back, or another one may start
            if (found := self._find()) != self._settings.address:
                self._settings = self._settings.model_copy(update={"address": found})
                self.moves += 1

    def newest(self) -> Cursor | None:
        """Return the cursor of the latest event; ``None`` if it cannot be found out now. This may take a second."""
        self._look_for_the_aggregator()
        try:
            found = self._newest()
        except FerStreamError as error:
            self.error = str(error)
            return None
        self.error = ""
        return found

    def _newest(self) -> Cursor:
        if not self._from_journal:
            return client.status(self._settings, ANSWER)["cursor"]  # type: ignore[no-any-return]
        with _journal(self._settings).reader() as reader:
            return to_cursor(*[reader.cursor(number) for number in range(reader.partitions)])


def _journal(settings: Settings) -> Journal:
    return plugins.journal(settings.journal, settings.fleet)
