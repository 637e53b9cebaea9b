"""Which cameras this machine captures, as it sees its cell. A state machine without sockets or clocks.

Every machine writes a beat, hears those of the others, and knows the registry of cameras. From these it computes its
own share with `fer_stream.fleet.assignment.assign`, as every other machine does. Nobody decides, and nobody holds a
lease: while two differ, the aggregator refuses the second capture of a camera until the first one has gone.

A machine *counts* for the assignment from `STABLE` seconds after it was first heard, so that one that comes and goes
moves no cameras, until it is silent for `T` seconds (`fer_stream.fleet.liveness`), or says that it leaves. A machine
that has just started waits until it has heard the others for `T` seconds. While the engine is away, nobody counts as
silent, and every machine keeps what it has. Cameras that are pinned here are captured at once, and in any case.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from fer_stream.errors import ConfigError
from fer_stream.fleet.assignment import assign
from fer_stream.fleet.liveness import Liveness

if TYPE_CHECKING:
    from collections.abc import Mapping

STABLE = 3.0
"""Seconds for which a machine must have been heard without a pause before it gets cameras."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a machine says every half second."""

    process: str
    """Differs between two processes of the same name."""
    started: float
    """When the process started, in seconds of its wall clock. It only orders two processes of the same name."""
    number: int
    capacity: float
    """Number of its cores."""
    load: int = 0
    """How many cameras it captures."""
    leaving: bool = False


def encode(beat: Beat) -> str:
    """Return the text of a beat."""
    return json.dumps(asdict(beat))


def decode(text: str) -> Beat | None:
    """Return the beat in a text, or ``None``."""
    try:
        value = json.loads(text)
        capacity = float(value["capacity"])
        if not (0 < capacity < math.inf):
            return None
        started = float(value["started"])
        if not math.isfinite(started):
            return None
        number, load = int(value["number"]), int(value["load"])
        return Beat(str(value["process"]), started, number, capacity, load, value["leaving"] is True)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


class Nodes:
    """See the module docstring. Times are seconds of one monotonic clock."""

    def __init__(self, me: str, process: str, started: float, capacity: float) -> None:
        """Begin.

        Args:
            me: this machine's name.
            process: differs from that of any other process.
            started: when it started, in seconds of its wall clock.
            capacity: of this machine, above 0.
        """
        self._me, self._process, self._started = me, process, started
        self._liveness = Liveness(me)
        self._capacities = {me: capacity}
        self._heard: dict[
            str, tuple[float, float]
        ] = {}  # when each other one was heard first, without a pause, and last
        self._counting: frozenset[str] | None = None  # None: it has not heard the others for long enough
        self._used: tuple[Mapping[str, str] | None, frozenset[str] | None] = None, None  # what `_mine` is made from
        self._mine: frozenset[str] = frozenset()

    def beat(self, load: int, leaving: bool, now: float) -> Beat | None:
        """Return the beat that is due, or ``None``."""
        number = self._liveness.beat(now)
        if number is None:
            return None
        return Beat(self._process, self._started, number, self._capacities[self._me], load, leaving)

    def hear(self, machine: str, beat: Beat, live: bool, now: float) -> None:
        """Take a machine's beat; ``live``: it was written after the watch had begun.

        Raises:
            ConfigError: another process has this machine's name, and was started before this one.
        """
        if machine == self._me:
            if beat.process == self._process:
                if live:  # one that is repeated does not show that nothing of the others is missing
                    self._liveness.hear(machine, beat.number, now)
            elif live and not beat.leaving and (beat.started, beat.process) < (self._started, self._process):
                raise ConfigError(
                    f"another node of the cell has the name {machine}: give each machine its own name (fleet.machine), "
                    "and start one node on a machine"
                )
            return
        if beat.leaving:
            self._forget(machine)
            return
        fresh = machine not in self._heard or self._liveness.silent(machine)
        self._heard[machine] = now if fresh else self._heard[machine][0], now
        self._capacities[machine] = beat.capacity
        self._liveness.hear(machine, beat.number, now)

    def _forget(self, machine: str) -> None:
        self._liveness.forget(machine)
        self._heard.pop(machine, None)
        if self._counting:
            self._counting -= {machine}

    @property
    def counting(self) -> frozenset[str]:
        """The machines that get cameras; empty at the beginning."""
        return self._counting or frozenset()

    def mine(self, cameras: Mapping[str, str], now: float) -> frozenset[str]:
        """Return the cameras that this machine captures.

        Args:
            cameras: the machine that each camera of the registry is pinned to, or an empty text; another object after
                each change.
            now: the time. Call this at least every 0.5 s.
        """
        if self._liveness.settled(now):
            for machine in [one for one in self._heard if self._liveness.silent(one)]:
                self._forget(machine)
            if self._counting is None:
                self._counting = frozenset(self._heard) | {self._me}
            self._counting |= {machine for machine, (first, latest) in self._heard.items() if latest - first >= STABLE}
        if cameras is not self._used[0] or self._counting != self._used[1]:
            self._used = cameras, self._counting
            self._mine = frozenset(camera for camera, machine in cameras.items() if machine == self._me)
            if self._counting is not None:
                machines = {machine: self._capacities[machine] for machine in self._counting}
                self._mine |= {camera for camera, machine in assign(cameras, machines).items() if machine == self._me}
        return self._mine
