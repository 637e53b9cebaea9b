"""One partition as one aggregator sees it: how it is taken, kept and given away. A state machine without an engine.

Take-over, each step a call to the engine whose answer leads to the next::

    idle --claim()--> claiming   Write   `parts`: the owner is me (compare-and-set)          decides the race
                      looking    Look    the stream's last sequence and its last fence
                      fencing    Fence   append my fence there (expected last sequence)      stops the former owner
                      naming     Write   `parts`: the fence's sequence F
                      recovering Recover read the last events, close what is open, new epochs
                      owned      Serve   captures are welcome

Hand-over: ``owned --give()--> flushing (Flush) -> offering (Write: heir) -> offered --the heir claims--> idle``. If the
heir does not claim in time: ``offered -> revoking (Write: no heir) -> owned``. Captures are moved once the new owner
has named its fence.

The fence gives safety. Its mark carries the revision of its claim, the *term*. Whoever finds a mark of a higher term
has lost, and nobody appends a fence without having looked; so the order of the claims is the order of the owners, even
if a claimer was paused between two steps. The lease (`fer_stream.fleet.liveness`) only decides when to claim.

Every call may succeed, conflict, or stay unknown and be carried out later. So after any answer but success, a write
is read back: my own value means that it succeeded, an unchanged revision that I may repeat it, anything else that I
lost. A fence is looked for in the stream in the same way. Repeating is harmless: of several equal writes that expect
one revision or sequence, one succeeds. A replica's older answer costs one more round, not safety. An answer to an
earlier call is ignored. Who loses a partition that it serves must end (`End`): its frames and tracks are of no use.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

from fer_stream.fleet.records import (
    Call,
    Done,
    End,
    Fence,
    Flush,
    Look,
    Mark,
    Move,
    Part,
    Place,
    Read,
    Recover,
    Serve,
    Unknown,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fer_stream.fleet.records import Command, Outcome

RETRY = 0.25
"""Seconds before a call whose outcome is unknown is followed up."""

OFFER = 1.0
"""Seconds for which an heir may claim."""

Cause = Literal["new", "given", "former", "dead"]
"""Why a partition is taken: nobody ever owned it, its owner gives it, this aggregator's former process owned it, or its
owner counts as dead."""

State = Literal[
    "idle",
    "claiming",
    "looking",
    "fencing",
    "naming",
    "recovering",
    "owned",
    "flushing",
    "offering",
    "offered",
    "revoking",
]

WRITING = ("claiming", "naming", "offering", "revoking")
"""States in which a write to ``parts`` is under way."""
TAKING = ("claiming", "looking", "fencing", "naming", "recovering")
GIVING = ("flushing", "offering", "offered")
SERVING = ("owned", "flushing")
"""States in which events may be stored. Whoever loses the partition here has done work in vain, and ends."""


class Ownership:
    """See the module docstring. Its methods return the commands that follow from their input.

    Args:
        partition: its number.
        me: this process's id.
        place: where this process is reached.
        calls: numbers for calls, unique in this process.
    """

    def __init__(self, partition: int, me: str, place: Place, calls: Iterator[int]) -> None:
        self.partition = partition
        self.state: State = "idle"
        self.revision = 0
        """The newest known revision of the partition's key."""
        self.part: Part | None = None
        """The value of that revision."""
        self.since = float("-inf")
        """When the state last became ``owned``, in monotonic seconds."""
        self.cause: Cause = "new"
        """Why this process claimed it last."""
        self.due: float | None = None
        """When `tick` has something to do: a step is followed up, or an offer ends. In monotonic seconds."""
        self._me, self._place, self._calls = me, place, calls
        self._mine = Part(me, place)  # what the latest write was to write, over the revision `_base`
        self._base = self._term = 0
        self._call: int | None = None  # whose answer is awaited
        self._reading = False  # whether that is the reading back of a write
        self._guests = False  # whether captures of this partition may still be here

    @property
    def heir(self) -> str:
        """Id of the aggregator to which this process gives the partition, or an empty text."""
        return self._mine.heir

    @property
    def left(self) -> bool:
        """Whether this process has nothing to do with the partition any more: its captures were moved, too."""
        return self.state == "idle" and not self._guests

    @property
    def weight(self) -> float:
        """The partition's load when this process took it."""
        return self._mine.weight

    # Input

    def claim(self, weight: float, cause: Cause) -> list[Command]:
        """Begin to take the partition. ``weight`` is its expected load."""
        if self.state != "idle":
            return []
        self.cause = cause
        return self._write("claiming", Part(self._me, self._place, weight=weight))

    def give(self, heir: str, weight: float) -> list[Command]:
        """Begin to give the partition to another aggregator. ``weight`` is its load."""
        if self.state != "owned":
            return []
        self._mine = replace(self._mine, heir=heir, weight=weight)
        return self._ask("flushing", Flush(next(self._calls), self.partition))

    def seen(self, revision: int, part: Part) -> list[Command]:
        """Take a value of the partition's key, from the watch or from another aggregator."""
        if revision <= self.revision:
            return []
        self.revision, self.part = revision, part
        if part.owner == self._me:
            return []
        if self.state in SERVING:
            return [End(f"partition {self.partition} was taken by {part.owner}")]
        if self.state == "offered" or self.state not in (*WRITING, "idle"):
            return self._leave()  # given away; or lost while it was being taken
        return self._dismiss()  # a write that is under way learns of it by its own answer

    def fenced(self) -> list[Command]:
        """Take the journal's word that another aggregator's fence refused an append."""
        return [End(f"partition {self.partition} was fenced")] if self.state in SERVING else []

    def result(self, call: int, outcome: Outcome, now: float) -> list[Command]:
        """Take the engine's answer to a call."""
        if call != self._call:
            return []
        self._call = None
        if self._reading or self.state in WRITING:
            return self._result_of_write(outcome, now)
        match self.state, outcome:
            case "looking", Done(value):
                return self._looked(*cast("tuple[int, int, Mark | None]", value))
            case "fencing", Done(value):
                return self._write("naming", replace(self._mine, fence=cast("int", value)))
            case "recovering", Done():
                return self._own(now)
            case "flushing", Done():
                return self._write("offering", self._mine)
            case "flushing", _:
                self._mine = replace(self._mine, heir="")
                return self._own(now)
            case "fencing", _:
                return self._look()
            case _:
                self.due = now + RETRY
                return []

    def tick(self, now: float) -> list[Command]:
        """Follow up a call whose outcome is unknown, and revoke an offer that nobody took."""
        if self.due is None or now < self.due:
            return []
        self.due = None
        if self.state == "offered":
            return self._write("revoking", replace(self._mine, heir=""))
        if self.state in WRITING:
            return self._read()
        return self._look()  # also before recovering again: another fence may have come

    # Writing `parts`

    def _write(self, state: State, part: Part) -> list[Command]:
        self._mine, self._base = part, self.revision
        return self._repeat(state)

    def _repeat(self, state: State) -> list[Command]:
        return self._ask(state, Write(next(self._calls), self.partition, self._mine, self._base))

    def _read(self) -> list[Command]:
        commands = self._ask(self.state, Read(next(self._calls), self.partition))
        self._reading = True
        return commands

    def _result_of_write(self, outcome: Outcome, now: float) -> list[Command]:
        reading, self._reading = self._reading, False
        if not isinstance(outcome, Done):
            if reading or isinstance(outcome, Unknown):
                self.due = now + RETRY
                return []
            return self._read()
        if not reading:
            return self._written(cast("int", outcome.value), now)
        revision, part = cast("tuple[int, Part | None]", outcome.value)
        if revision <= self._base:
            # A claim is decided anew: its reason may have gone. If the first one still arrives, the partition is mine.
            return self._leave() if self.state == "claiming" else self._repeat(self.state)
        if part == self._mine:
            return self._written(revision, now)
        return self._lost(revision, part)

    def _written(self, revision: int, now: float) -> list[Command]:
        if revision < self.revision and self.part != self._mine:
            return self._lost(self.revision, self.part)  # and already overwritten
        self.revision, self.part = max(revision, self.revision), self._mine
        match self.state:
            case "claiming":
                self._term = revision
                return self._look()
            case "naming":
                return self._recover()
            case "offering":
                self.state, self.due = "offered", now + OFFER
                return []
            case _:
                return self._own(now)

    def _lost(self, revision: int, part: Part | None) -> list[Command]:
        if revision > self.revision:
            self.revision, self.part = revision, part
        return self._leave()

    # Taking

    def _look(self) -> list[Command]:
        return self._ask("looking", Look(next(self._calls), self.partition))

    def _looked(self, last: int, sequence: int, found: Mark | None) -> list[Command]:
        if found is not None and found.term > self._term:
            return self._leave()
        mark = Mark(self._me, self._term)
        if found != mark:
            return self._ask("fencing", Fence(next(self._calls), self.partition, mark, last))
        if self._mine.fence != sequence:
            return self._write("naming", replace(self._mine, fence=sequence))
        return self._recover()

    def _recover(self) -> list[Command]:
        return self._ask("recovering", Recover(next(self._calls), self.partition, self._mine.fence))

    # Common

    def _ask(self, state: State, call: Call) -> list[Command]:
        self.state, self._call, self.due = state, call.call, None
        return [call]

    def _own(self, now: float) -> list[Command]:
        self.state, self.due, self._guests, self.since = "owned", None, True, now
        return [Serve(self.partition)]

    def _leave(self) -> list[Command]:
        self.state, self._call, self.due, self._reading = "idle", None, None, False
        return self._dismiss()

    def _dismiss(self) -> list[Command]:
        """Move the captures once the new owner has named its fence."""
        if self._guests and self.state == "idle" and self.part and self.part.owner != self._me and self.part.fence:
            self._guests = False
            return [Move(self.partition, self.part.place)]
        return []
