"""Runs a `Member` with an engine: what arrives from the engine goes in, and its commands go out.

The aggregator calls `Driver.turn` at least every 0.1 s, and whenever the engine wakes it. It carries out the commands
that `turn` returns; the engine's thread carries out the others.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from fer_stream.fleet.records import Beat, Fence, Look, Outcome, Part, Publish, Read, Recover, Status, Write

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from fer_stream.fleet.member import Member
    from fer_stream.fleet.records import Command
    from fer_stream.plugins import JournalWriter
    from fer_stream.settings.tree import FleetSettings
    from fer_stream.types import Annotation, AnnotationPage, AnnotationQuery

Task = Beat | Write | Read | Look | Fence | Recover
"""A command that the engine carries out."""


class Heard(NamedTuple):
    """A delivery of the watch on ``alive``. An own beat is delivered only if the watch is older than it."""

    member: str
    number: int
    status: Status


class Seen(NamedTuple):
    """A delivery of the watch on ``parts``."""

    partition: int
    revision: int
    part: Part


class Answered(NamedTuple):
    """The answer to a call."""

    call: int
    outcome: Outcome


Arrival = Heard | Seen | Answered | Publish


class Journals(Protocol):
    """The journals of all partitions, for reading. Other threads complete the futures; `JournalError`: not now."""

    def read(
        self, partition: int, after: int, limit: int, camera: str | None, size: int
    ) -> Future[tuple[list[str], int, int]]:
        """As `fer_stream.plugins.JournalReader.read`. The third value is the number of the latest cursor.

        An ``after`` beyond that one counts as that one.
        """
        ...

    def newest(self) -> Future[dict[int, int]]:
        """Return the number of the latest cursor of each partition."""
        ...

    def annotate(self, annotation: Annotation) -> Future[Annotation]:
        """As `fer_stream.plugins.JournalWriter.annotate`, for a camera of any partition."""
        ...

    def annotations(self, wanted: AnnotationQuery) -> Future[AnnotationPage]:
        """As `fer_stream.plugins.JournalReader.annotations`, of all partitions."""
        ...


class Engine(Journals, Protocol):
    """What several aggregators share. One thread uses it; none of its methods but `close` waits."""

    trouble: str
    """Why the last call without an answer had none, for display; empty if the last one had one."""

    def begin(self, task: Task) -> None:
        """Begin to carry out a command. Each call is answered once, within seconds."""
        ...

    def arrivals(self) -> list[Arrival]:
        """Return what has arrived since the last time, in order."""
        ...

    def journal(self, partition: int) -> JournalWriter:
        """Return the journal of a partition that was recovered. Its ``check`` raises `RivalError` if it was fenced."""
        ...

    def listen(self, on: bool) -> None:
        """Let every event that is stored in a partition arrive as `Publish`, or no more. Some may be missing.

        The latest cursors arrive, too, every few seconds.
        """
        ...

    def close(self) -> None:
        """Leave the engine. Calls that were not answered stay without an answer. A second call does nothing."""
        ...


@runtime_checkable
class Shared(Protocol):
    """A `fer_stream.plugins.Journal` that several aggregators can share."""

    def engine(self, fleet: FleetSettings, me: str, wake: Callable[[], None]) -> Engine:
        """Join a cell.

        Args:
            fleet: the cell.
            me: this process's id.
            wake: called in another thread when something has arrived.

        Raises:
            JournalError: it cannot be used, or the cell has another number of partitions.
        """
        ...


class Driver:
    """See the module docstring."""

    def __init__(self, member: Member, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self.member = member
        self._engine, self._clock = engine, clock

    def turn(self) -> list[Command]:
        """Take what has arrived, and do what is due.

        Returns:
            The commands to the aggregator: `Serve`, `Move`, `MoveWorker`, `Inquire`, `Flush`, `Publish`, `End`, `Left`.
        """
        commands: list[Command] = []
        for arrival in self._engine.arrivals():
            match arrival:
                case Heard(member, number, status):
                    self.member.alive(member, number, status, self._clock())
                case Seen(partition, revision, part):
                    commands += self.inform(partition, revision, part)
                case Answered(call, outcome):
                    commands += self.answer(call, outcome)
                case Publish():
                    commands.append(arrival)
        return commands + self._carry_out(self.member.tick(self._clock()))

    def answer(self, call: int, outcome: Outcome) -> list[Command]:
        """Take the answer to a call, such as the aggregator's own to `Flush`. Returns as `turn`."""
        return self._carry_out(self.member.result(call, outcome, self._clock()))

    def inform(self, partition: int, revision: int, part: Part) -> list[Command]:
        """Take a value of ``parts``, such as another aggregator's answer to `Inquire`. Returns as `turn`."""
        return self._carry_out(self.member.seen(partition, revision, part, self._clock()))

    def _carry_out(self, commands: list[Command]) -> list[Command]:
        others: list[Command] = []
        for command in commands:
            if isinstance(command, Task):
                self._engine.begin(command)
            else:
                others.append(command)
        return others
