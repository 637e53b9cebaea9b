"""What `fer-stream run` knows about its service: status, counts of events, and progress through files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.client import Subscription, ask_status, read_journal
from fer_stream.errors import FerStreamError, JournalError, TransportError
from fer_stream.events.cursor import to_cursor, to_number
from fer_stream.operations.logs import stderr
from fer_stream.types import BEGINNING

if TYPE_CHECKING:
    from fer_stream.plugins import Peer
    from fer_stream.settings.tree import Settings

STALE = 5.0
"""Seconds after which a status is out of date."""


class Progress:
    """See the module's text."""

    def __init__(self, settings: Settings, begin: int) -> None:
        """Listen to the aggregator at the settings' address; count its events after the cursor number ``begin``."""
        self.started, self.begin = time.time(), time.monotonic()
        self._settings = settings
        self._control: Peer = plugins.transport(settings).connect(settings.address, "control")
        self._subscription = Subscription(
            settings.address, after=to_cursor(begin), transport=settings.transport, key=settings.key, keys=settings.keys
        )
        self.status: dict[str, Any] = {}
        self.cameras: dict[str, dict[str, Any]] = {}
        """The latest status of each camera, also of those that the aggregator has forgotten."""
        self._answered = -STALE
        self.events: dict[str, int] = {}
        self.error: FerStreamError | None = None
        self._bars: dict[str, Any] = {}

    @property
    def cursor(self) -> int:
        """The number of the latest known event's cursor."""
        return max(to_number(self._subscription.cursor), self._newest)

    @property
    def _newest(self) -> int:
        return to_number(self.status.get("cursor", BEGINNING))

    @property
    def stale(self) -> bool:
        """Whether the last status is out of date."""
        return time.monotonic() - self._answered > STALE

    def look(self, timeout: float = 0.05) -> None:
        """Count the events that are here; wait up to ``timeout`` seconds for one."""
        found = self._subscription.receive(timeout)
        while found is not None:
            self._count(found[0].type)
            found = self._subscription.receive(0)

    def read_rest(self) -> None:
        """Count what was journaled after the aggregator's last word, when it closed what was open."""
        try:
            for event, _ in read_journal(self._settings.journal.path, after=self._subscription.cursor):
                self._count(event.type)
        except JournalError as error:
            self.error = error

    def _count(self, kind: str) -> None:
        self.events[kind] = self.events.get(kind, 0) + 1

    def ask(self, timeout: float) -> bool:
        """Ask the aggregator for its status; ``False`` if it does not answer."""
        try:
            self.status = ask_status(self._control, self._settings.address, timeout)
        except TransportError:
            return False
        self._answered = time.monotonic()
        self.cameras |= self.status["cameras"]
        self._progress()
        return True

    def finish(self, deadline: float) -> None:
        """Count every event up to the last one that the status named."""
        while to_number(self._subscription.cursor) < self._newest and time.monotonic() < deadline:
            self.look()

    def _progress(self) -> None:
        """Show the progress through each file, on a terminal."""
        for name, camera in self.status["cameras"].items():
            if not camera["frames"]:
                continue
            if name not in self._bars:
                from tqdm import tqdm  # noqa: PLC0415

                self._bars[name] = tqdm(
                    total=camera["frames"], desc=name, unit="frame", disable=None, leave=False, file=stderr
                )
            bar = self._bars[name]
            bar.update(camera["ledger"]["captured"] - bar.n)

    def close(self) -> None:
        """Close the links and the progress bars."""
        for bar in self._bars.values():
            bar.close()
        self._subscription.close()
        self._control.close()
