"""The state of a service as `fer-stream run` sees it: status, counts of events, and progress through files."""

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
"""Age in seconds from which on a status is out of date."""


class Progress:
    """Follows one aggregator: its status, its events, and progress bars for files."""

    def __init__(self, settings: Settings, begin: int) -> None:
        """Connect to the aggregator at the settings' address; count its events after the cursor number ``begin``."""
        self.started, self.begin = time.time(), time.monotonic()
        self._settings = settings
        self._control: Peer = plugins.transport(settings).connect(settings.address, "control")
        self._subscription = Subscription(
            settings.address, after=to_cursor(begin), transport=settings.transport, key=settings.key, keys=settings.keys
        )
        self.status: dict[str, Any] = {}
        self._ledgers: dict[str, dict[str, int]] = {}
        """The latest ledger of each camera, also of cameras that the aggregator has forgotten."""
        self._closed: dict[str, dict[str, int]] = {}
        """The sum of the earlier ledgers of cameras that were removed, and may have come again."""
        self._answered = -STALE
        self.events: dict[str, int] = {}
        self.error: FerStreamError | None = None
        self._bars: dict[str, Any] = {}

    @property
    def cursor(self) -> int:
        """The cursor number of the latest known event."""
        return max(to_number(self._subscription.cursor), self._newest)

    @property
    def _newest(self) -> int:
        return to_number(self.status.get("cursor", BEGINNING))

    @property
    def stale(self) -> bool:
        """Whether the last status is out of date."""
        return time.monotonic() - self._answered > STALE

    def look(self, timeout: float = 0.05) -> None:
        """Count the received events; wait up to ``timeout`` seconds for the first one."""
        found = self._subscription.receive(timeout)
        while found is not None:
            self._count(found[0].type)
            found = self._subscription.receive(0)

    def read_rest(self) -> None:
        """Count the remaining events from the journal, such as those that the aggregator wrote while it ended."""
        try:
            for event, _ in read_journal(self._settings.journal, after=self._subscription.cursor):
                self._count(event.type)
        except JournalError as error:
            self.error = error

    def _count(self, kind: str) -> None:
        self.events[kind] = self.events.get(kind, 0) + 1

    def ask(self, timeout: float) -> bool:
        """Request the aggregator's status; return ``False`` if it does not answer within ``timeout`` seconds."""
        try:
            self.status = ask_status(self._control, self._settings.address, timeout)
        except TransportError:
            return False
        self._answered = time.monotonic()
        self._ledgers |= {name: camera["ledger"] for name, camera in self.status["cameras"].items()}
        self._progress()
        return True

    def close_ledger(self, camera: str) -> None:
        """Take the ledger of a removed camera as final: if the camera comes again, the aggregator begins a new one."""
        if camera in self._ledgers:
            self._closed[camera] = _sum(self._ledgers.pop(camera), self._closed.get(camera, {}))

    def ledgers(self) -> dict[str, dict[str, int]]:
        """Return the ledger of every camera that there was in this run."""
        names = dict.fromkeys([*self._ledgers, *self._closed])
        return {name: _sum(self._ledgers.get(name, {}), self._closed.get(name, {})) for name in names}

    def finish(self, deadline: float) -> None:
        """Count the events up to the status's cursor, until ``deadline`` (monotonic seconds) at the latest."""
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
        for name in self._bars.keys() - self.status["cameras"].keys():
            self._bars.pop(name).close()

    def close(self) -> None:
        """Close the connections and the progress bars."""
        for bar in self._bars.values():
            bar.close()
        self._subscription.close()
        self._control.close()


def _sum(ledger: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {term: ledger.get(term, 0) + other.get(term, 0) for term in (ledger | other)}
