"""Runs a `Member` with an engine: what arrives from the engine goes in, and its commands go out.

The aggregator calls `Driver.turn` at least every 0.1 s, and whenever the engine wakes it. It carries out the commands
that `turn` returns; the engine's thread carries out the others.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fer_stream.fleet.records import Beat, Fence, Look, Outcome, Part, Read, Recover, Status, Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_stream.fleet.member import Member
    from fer_stream.fleet.records import Command
    from fer_stream.plugins import JournalWriter

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


Arrival = Heard | Seen | Answered


class Engine(Protocol):
    """What several aggregators share. One thread uses it; none of its methods but `close` waits."""

    def begin(self, task: Task) -> None:
        """Begin to carry out a command. Each call is answered once, within seconds."""
        ...

    def arrivals(self) -> list[Arrival]:
        """Return what has arrived since the last time, in order."""
        ...

    def journal(self, partition: int) -> JournalWriter:
        """Return the journal of a partition that was recovered. Its ``check`` raises `RivalError` if it was fenced."""
        ...

    def close(self) -> None:
        """Leave the engine. Calls that were not answered stay without an answer. A second call does nothing."""
        ...


class Driver:
    """See the module docstring."""

    def __init__(self, member: Member, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self.member = member
        self._engine, self._clock = engine, clock

    def turn(self) -> list[Command]:
        """Take what has arrived, and do what is due.

        Returns:
            The commands to the aggregator: `Serve`, `Move`, `MoveWorker`, `Inquire`, `Flush`, `End`, `Left`.
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
        return commands + self._carry_out(self.member.tick(self._clock()))

    def answer(self, call: int, outcome: Outcome) -> list[Command]:
        """Take the answer to a call, such as the aggregator's own to `Flush`. Returns as `turn`."""
        return self._carry_out(self.member.result(call, outcome, self._clock()))

    def inform(self, partition: int, revision: int, part: Part) -> list[Command]:
        """Take a value of ``parts``, such as another aggregator's answer to `Inquire`. Returns as `turn`."""
        return self._carry_out(self.member.seen(partition, revision, part, self._clock()))

    def fenced(self, partition: int) -> list[Command]:
        """Take that the journal of a partition raised `RivalError`. Returns as `turn`."""
        return self._carry_out(self.member.fenced(partition))

    def _carry_out(self, commands: list[Command]) -> list[Command]:
        others: list[Command] = []
        for command in commands:
            if isinstance(command, Task):
                self._engine.begin(command)
            else:
                others.append(command)
        return others
