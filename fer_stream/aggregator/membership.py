"""An aggregator works alone, or is a member of a cell (`fer_stream.aggregator.cell`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from fer_stream.aggregator.home import Home
from fer_stream.events.timeline import closing
from fer_stream.fleet.records import Welcome

if TYPE_CHECKING:
    from fer_stream.aggregator.captures import Captures
    from fer_stream.aggregator.publisher import Publisher
    from fer_stream.aggregator.workers import Workers
    from fer_stream.fleet.driver import Journals
    from fer_stream.fleet.records import Answer
    from fer_stream.plugins import JournalWriter


class Membership(Home, Protocol):
    """What the aggregator's loop needs of either."""

    @property
    def partitions(self) -> int:
        """How many partitions the cameras fall into."""
        ...

    @property
    def journals(self) -> Journals | None:
        """What reads the journals of partitions that other aggregators write; ``None`` if there are none."""
        ...

    @property
    def pace(self) -> float:
        """Most seconds between two calls of `turn`."""
        ...

    def begin(self, publisher: Publisher, captures: Captures, workers: Workers) -> None:
        """Begin to open journals, and to take part. Called once, first."""
        ...

    def turn(self, now: float) -> None:
        """Do what is due at the monotonic time ``now``.

        Raises:
            RivalError: another aggregator has taken over what this one serves.
        """
        ...

    def leave(self) -> None:
        """Begin to give everything to others, if there are any."""
        ...

    @property
    def left(self) -> bool:
        """Whether nothing is to be given away, or nobody is there to take it."""
        ...

    @property
    def missing(self) -> str:
        """What is missing before frames can be processed; empty if nothing is."""
        ...

    def export(self, now: float) -> None:
        """Set the metrics of the cell."""
        ...

    def status(self) -> dict[str, Any] | None:
        """Return the state of the cell as a JSON object, or ``None`` on one machine."""
        ...

    def parts(self) -> dict[str, Any]:
        """Return who owns each partition, for another aggregator of the cell, as a JSON object."""
        ...


class Alone:
    """There are no others: everything belongs to this aggregator, and goes into one journal."""

    partitions = 1
    journals = None
    pace = math.inf
    left = True
    missing = ""

    def __init__(self, journal: JournalWriter) -> None:
        self._journal = journal

    def begin(self, publisher: Publisher, captures: Captures, workers: Workers) -> None:  # noqa: ARG002
        """See `Membership.begin`. It closes what a killed aggregator left open."""
        publisher.open(0, self._journal)
        publisher.record(closing(event) for event in self._journal.unclosed())
        publisher.flush()

    def turn(self, now: float) -> None:
        """See `Membership.turn`."""

    def leave(self) -> None:
        """See `Membership.leave`."""

    def answer(self, camera: str) -> Answer:  # noqa: ARG002
        """See `Home.answer`."""
        return Welcome()

    def gives(self, camera: str) -> bool:  # noqa: ARG002
        """See `Home.gives`."""
        return False

    def answer_worker(self) -> Answer:
        """See `Home.answer_worker`."""
        return Welcome()

    def export(self, now: float) -> None:
        """See `Membership.export`."""

    def status(self) -> dict[str, Any] | None:
        """See `Membership.status`."""
        return None

    def parts(self) -> dict[str, Any]:
        """See `Membership.parts`."""
        return {}
