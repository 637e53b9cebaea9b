"""One aggregator's part in a fleet: which partitions it takes, keeps and gives away, and what it answers to peers.

The aggregator passes in what the engine and its own work tell it, with the time (monotonic seconds), and carries out
the commands that are returned (`fer_stream.fleet.records`)::

    alive      a delivery of the watch on `alive`       ->  Beat, Inquire          its own liveness
    seen       a delivery of the watch on `parts`       ->  Write, Read, Look,     calls to the engine, one at a time
    result     the engine's answer to a call                Fence, Recover, Flush  for each partition
    report     loads and idle workers                   ->  Serve, Move            captures are welcome, or go elsewhere
    fenced     an append was refused                    ->  MoveWorker             an idle worker goes elsewhere
    leave      give everything away                     ->  Left, End              this process may or must end
    tick       at least every 0.1 s

The rules:

1. Take-over. A partition is an orphan if its owner is silent (`liveness`), if nobody owns it, or if this process
   replaces its owner (``former``, which a supervisor saw die). Of those who live, the first in a hash's order claims
   it, and each next one `STEP` seconds later. A partition of ``former`` is claimed at once.
2. Hand-over. While loads are uneven (`balance`), the heavier gives the lighter one partition at a time, after they have
   been uneven for `SETTLE` seconds, and none that it took less than `REST` seconds ago. So a newcomer gets its share
   gradually, and nothing goes back and forth. Who leaves gives all, and takes nothing while others live.
3. Loss. Who loses a partition that it serves ends.
4. Doubt. While none of its latest writes is proven, it serves on: the engine may be away from everybody. In case it
   alone is cut off, it asks others for their copies of `parts`. It gives nothing away, and judges nobody.
5. Peers. A camera belongs to its partition's owner. A worker stays where it is, and an idle one is sent where none is
   idle, one a second.

`ownership` has the steps of one partition.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from fer_stream.fleet import balance
from fer_stream.fleet.liveness import BEAT, Liveness, T
from fer_stream.fleet.ownership import GIVING, TAKING, Ownership
from fer_stream.fleet.partitions import MOST, partition
from fer_stream.fleet.records import Beat, End, Inquire, Left, Moved, MoveWorker, Status, Welcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_stream.fleet.ownership import Cause
    from fer_stream.fleet.records import Answer, Command, Outcome, Part, Place

STEP, FIRST_STEP = 0.2, 2.0
"""Seconds between the claims of one orphan by two aggregators; of one that nobody ever owned. Nobody waits for that
one, and not all aggregators of a new cell start at the same moment."""

SETTLE = 3.0
"""Seconds for which loads must have been uneven before a partition is given away."""

COOL = 1.5
"""Seconds between two gifts, so that the next one is chosen with loads that include the last."""

REST = 10.0
"""Seconds after a take-over for which a partition stays, and weighs at least what it weighed before: its captures have
not all arrived yet."""

SOON, LATER = 0.1, 0.5
"""Seconds after which a capture is to come again: while its partition changes hands, and while its owner is silent."""

ASIDE = 1.0
"""Seconds between two inquiries of a doubtful aggregator, and between two workers given away."""

FRESH = 3 * BEAT
"""Seconds of silence from which an aggregator is given nothing: it may be dead."""

NEIGHBOURS = 8
"""Most places of other aggregators that an answer names."""

FORGET = 60.0
"""Seconds of silence after which an aggregator without partitions is forgotten."""


class Member:
    """See the module docstring. After `End` it takes no more input."""

    def __init__(self, me: str, place: Place, partitions: int, former: str = "") -> None:
        """Join a fleet.

        Args:
            me: an id that no other process has or had.
            place: where captures and workers reach this process.
            partitions: how many the cell has; the same for all aggregators.
            former: the id of this aggregator's last process, if it is known to have ended.

        Raises:
            ValueError: a wrong number of partitions.
        """
        if not 1 <= partitions <= MOST:
            raise ValueError(f"a cell has 1 to {MOST} partitions, not {partitions}")
        calls = count(1)
        self.partitions = [Ownership(number, me, place, calls) for number in range(partitions)]
        self.liveness = Liveness(me)
        self.statuses: dict[str, Status] = {}
        """The latest status of every other aggregator, by id."""
        self.ended = False
        self._me, self._place, self._former = me, place, former
        self._weights: Mapping[int, float] = {}
        self._cameras = self._workers = self._idle = 0
        self._calls: dict[int, Ownership] = {}
        self._orphans: dict[int, float] = {}  # by partition, since when it is known to be one
        self._uneven: float | None = None  # since when the loads differ too much
        self._lightest = ("", 0.0, 0.0)  # who has the least load, that load, and since when
        self._gave = self._aside = float("-inf")
        self._asked = ""
        self._leaving = False

    # Input from the engine

    def alive(self, member: str, number: int, status: Status, now: float) -> None:
        """Take a value of the bucket ``alive``: an aggregator's id, the number of its beat, and its status."""
        self.liveness.hear(member, number, now)
        if member != self._me:
            self.statuses[member] = status

    def seen(self, partition: int, revision: int, part: Part, now: float) -> list[Command]:
        """Take a value of the bucket ``parts``, from the watch or from another aggregator."""
        if self.ended:
            return []
        self.liveness.mention(part.owner, now)
        one = self.partitions[partition]
        return self._sent(one.seen(revision, part), one)

    def result(self, call: int, outcome: Outcome, now: float) -> list[Command]:
        """Take the engine's answer to a call. One that comes late is ignored."""
        one = self._calls.pop(call, None)
        return [] if one is None or self.ended else self._sent(one.result(call, outcome, now), one)

    # Input from the aggregator

    def report(self, weights: Mapping[int, float], cameras: int, workers: int, idle: int) -> None:
        """Take the loads of the own partitions, the cameras that give frames, the workers, and the least idle ones.

        A load is any number that adds up. By default it is these cameras plus one, so that empty partitions are
        spread, too.
        """
        self._weights, self._cameras, self._workers, self._idle = weights, cameras, workers, idle

    def fenced(self, partition: int) -> list[Command]:
        """Take the journal's word that another aggregator's fence refused an append."""
        one = self.partitions[partition]
        return self._sent(one.fenced(), one)

    def leave(self) -> None:
        """Give all partitions away; `Left` follows. Without another aggregator the process can simply end."""
        self._leaving = True

    def answer(self, camera: str) -> Answer:
        """Return what to answer to a camera's HELLO."""
        one, others = self.partitions[partition(camera, len(self.partitions))], self._neighbours()
        if one.state in ("owned", "flushing"):
            return Welcome(others)
        if one.state != "idle":
            return Moved(None, SOON, others)
        part = one.part
        if part is None or part.place == self._place or self.liveness.silence(part.owner) >= T / 2:
            return Moved(None, LATER, others)  # nobody, this process or a former one here, or somebody who may be dead
        return Moved(part.place, others=others) if part.fence else Moved(None, SOON, others)

    def answer_worker(self) -> Answer:
        """Return what to answer to a worker's READY."""
        others = self._others()
        if not self._leaving or not others:
            return Welcome(self._neighbours())
        return Moved(others[min(others, key=lambda member: (balance.wealth(others[member]), member))].place)

    # Time

    def tick(self, now: float) -> list[Command]:
        """Do what is due. Call it at least every 0.1 s."""
        commands: list[Command] = []
        if self.ended:
            return commands
        for one in self.partitions:
            if one.due is not None:
                commands += self._sent(one.tick(now), one)
        others = self._others()
        commands += self._adopt(others, now)
        doubtful = self.liveness.doubtful(now)
        if self._leaving and not doubtful:
            commands += self._give_all(self._others(FRESH), now)
        number = self.liveness.beat(now)
        if number is None:
            return commands
        status = self.status(now)
        if doubtful:
            commands += self._inquire(now)
        elif self.liveness.settled(now) and not self._leaving:
            commands += self._balance(self._others(FRESH), status, now)
            commands += self._spare(self._others(FRESH), status, now)
        self._forget()
        return [*commands, Beat(number, status)]

    # The rules

    def _adopt(self, others: Mapping[str, Status], now: float) -> list[Command]:
        """Claim orphans when it is this process's turn."""
        if self._leaving and others:
            return []
        commands: list[Command] = []
        living = self.liveness.living() if self.liveness.settled(now) else None
        orphans: dict[int, float] = {}
        for one in self.partitions:
            if one.state != "idle":
                continue
            part, turn = one.part, -1
            cause: Cause = "new" if part is None else "dead"
            if part is not None and (part.heir == self._me or part.owner in (self._me, self._former)):
                turn, cause = 0, "given" if part.heir == self._me else "former"
            elif living is None or (part is not None and part.owner in living):
                continue
            orphans[one.partition] = since = self._orphans.get(one.partition, now)
            if turn < 0:
                turn = balance.claimants(one.partition, [self._me, *others]).index(self._me)
            if now >= since + turn * (FIRST_STEP if part is None else STEP):
                commands += self._sent(one.claim(self._expected(one), cause), one)
        self._orphans = orphans
        return commands

    def _expected(self, one: Ownership) -> float:
        """Return the load to expect: the giver's word, or an orphan's share of its dead owner's load."""
        if one.part is None:
            return 1.0
        owner = one.part.owner
        status = self.statuses.get(owner)
        if status is None or one.part.heir == self._me:
            return one.part.weight
        return max(1.0, status.load / sum(1 for other in self.partitions if other.part and other.part.owner == owner))

    def _balance(self, others: Mapping[str, Status], status: Status, now: float) -> list[Command]:
        """Give a partition to a lighter aggregator if the loads have been uneven for long enough."""
        loads = {member: other.load for member, other in others.items()} | {self._me: status.load}
        partner, lightest, rank = balance.partners(self._me, loads)
        if not balance.uneven(loads):
            self._uneven = None
            return []
        self._uneven = now if self._uneven is None else self._uneven
        if (lightest, loads[lightest]) != self._lightest[:2]:
            self._lightest = (lightest, loads[lightest], now)
        giving = any(one.state in GIVING for one in self.partitions)
        if giving or now - self._uneven < SETTLE or now - self._gave < COOL:
            return []
        rested = {
            one.partition: self._weight(one, now)
            for one in self.partitions
            if one.state == "owned" and now - one.since >= REST
        }
        heir, number = partner, balance.gift(loads[self._me], loads[partner], rested)
        if number is None and now - self._lightest[2] >= SETTLE + rank * COOL:
            heir, number = lightest, balance.gift(loads[self._me], loads[lightest], rested)
        if number is None:
            return []
        self._gave = now
        one = self.partitions[number]
        return self._sent(one.give(heir, rested[number]), one)

    def _give_all(self, others: Mapping[str, Status], now: float) -> list[Command]:
        """Give away what is owned: to every other aggregator one at a time, the lightest first."""
        if all(one.left for one in self.partitions):
            self.ended = True
            return [Left()]
        busy = {one.heir for one in self.partitions if one.state in GIVING}
        free = sorted((status.load, member) for member, status in others.items() if member not in busy)
        commands: list[Command] = []
        owned = (one for one in self.partitions if one.state == "owned")
        for (_, heir), one in zip(free, owned, strict=False):
            commands += self._sent(one.give(heir, self._weight(one, now)), one)
        return commands

    def _spare(self, others: Mapping[str, Status], status: Status, now: float) -> list[Command]:
        """Give an idle worker away, at most one a second."""
        if now - self._aside < ASIDE:
            return []
        statuses = {**others, self._me: status}
        to = balance.spare_worker(self._me, statuses)
        if to is None:
            return []
        self._aside = now
        return [MoveWorker(statuses[to].place)]

    def _inquire(self, now: float) -> list[Command]:
        """Ask the next other aggregator who owns what."""
        names = sorted(self.statuses)
        if not names or now - self._aside < ASIDE:
            return []
        self._aside = now
        self._asked = next((name for name in names if name > self._asked), names[0])
        return [Inquire(self.statuses[self._asked].place)]

    # Views

    @property
    def alone(self) -> bool:
        """Whether there is no other aggregator that could take what this one gives."""
        return not self._others()

    def status(self, now: float) -> Status:
        """Return this process's status, as its next beat carries it."""
        held = (one for one in self.partitions if one.state in ("owned", "flushing", "revoking", *TAKING))
        load = sum(self._weight(one, now) for one in held)
        return Status(self._place, load, self._workers, self._idle, self._leaving, self._cameras)

    def _weight(self, one: Ownership, now: float) -> float:
        """Return an own partition's load. After a take-over its captures arrive by and by."""
        reported = self._weights.get(one.partition, 1.0)
        return reported if one.state not in TAKING and now - one.since >= REST else max(reported, one.weight)

    def _neighbours(self) -> tuple[Place, ...]:
        """Return places of other aggregators, the lightest first."""
        others = sorted((status.load, member) for member, status in self._others().items())
        return tuple(self.statuses[member].place for _, member in others[:NEIGHBOURS])

    def _others(self, silence: float = T) -> dict[str, Status]:
        """Return the other aggregators that stay and have been silent for less than some seconds."""
        return {
            name: status
            for name, status in self.statuses.items()
            if not status.leaving and self.liveness.silence(name) < silence
        }

    def _forget(self) -> None:
        """Forget aggregators that have been silent for long."""
        for name in [name for name in self.statuses if self.liveness.silence(name) > FORGET]:
            del self.statuses[name]
            self.liveness.forget(name)

    def _sent(self, commands: list[Command], one: Ownership) -> list[Command]:
        """Remember whose the calls among these commands are, and whether the process must end."""
        for command in commands:
            if isinstance(command, End):
                self.ended = True
            elif call := getattr(command, "call", None):
                self._calls[call] = one
        return commands
