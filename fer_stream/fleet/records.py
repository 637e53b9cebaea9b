"""The values that aggregators share through the engine, and the commands and answers of the fleet's state machines."""

from __future__ import annotations

from dataclasses import dataclass

# Values in the engine


@dataclass(frozen=True, slots=True)
class Place:
    """Where an aggregator can be reached: its address, and the public half of its CURVE key (empty: no encryption)."""

    address: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """What an aggregator writes to its key in the bucket ``alive`` with every beat."""

    place: Place
    load: float = 0.0
    """Sum of the weights of its partitions."""
    workers: int = 0
    idle: int = 0
    """Least number of idle workers during the last second."""
    leaving: bool = False
    cameras: int = 0
    """Its cameras that give frames."""


@dataclass(frozen=True, slots=True)
class Part:
    """The value of a partition's key in the bucket ``parts``."""

    owner: str
    """Id of the aggregator's process."""
    place: Place
    fence: int = 0
    """Sequence of the owner's fence in the partition's stream; 0: it has not been appended yet."""
    heir: str = ""
    """Id of the aggregator to which the owner gives the partition; it has stored all its events, and stores no more."""
    weight: float = 1.0
    """The partition's load when it was taken."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The contents of a fence in a partition's stream. ``term`` is the revision of the claim in ``parts``."""

    owner: str
    term: int


# Commands to the engine. Each has a number, and is answered once by `Done`, `Conflict` or `Unknown` within seconds.


@dataclass(frozen=True, slots=True)
class Beat:
    """Write ``alive.<me>`` without waiting for an answer. The watch on ``alive`` returns it with its number."""

    number: int
    status: Status


@dataclass(frozen=True, slots=True)
class Write:
    """Write a partition's key in ``parts`` if its revision is still this one (0: it does not exist). Done: revision."""

    call: int
    partition: int
    part: Part
    revision: int


@dataclass(frozen=True, slots=True)
class Read:
    """Read a partition's key in ``parts``. Done: ``(revision, part or None)``."""

    call: int
    partition: int


@dataclass(frozen=True, slots=True)
class Look:
    """Read the end of a partition's stream. Done: ``(last sequence, sequence of the last fence or 0, its mark)``."""

    call: int
    partition: int


@dataclass(frozen=True, slots=True)
class Fence:
    """Append a fence if the stream's last sequence is still this one. Done: the fence's sequence."""

    call: int
    partition: int
    mark: Mark
    last: int


@dataclass(frozen=True, slots=True)
class Recover:
    """Read the partition's last events, close what is open, begin new epochs. Repeatable. Conflict: a later fence.

    Done: the events that were stored, with their texts.
    """

    call: int
    partition: int
    fence: int


@dataclass(frozen=True, slots=True)
class Flush:
    """Ask the partition's captures for no more frames, resolve those that were asked for, and store all their events.

    Unknown: not all events could be stored in time, so captures are asked again. Done: frames that still come are lost.
    """

    call: int
    partition: int


# Commands to the aggregator


@dataclass(frozen=True, slots=True)
class Serve:
    """Welcome the partition's captures, and ask them for frames."""

    partition: int


@dataclass(frozen=True, slots=True)
class Move:
    """Send MOVED with this place, and the last outcomes of their frames, to the partition's captures that are here."""

    partition: int
    place: Place


@dataclass(frozen=True, slots=True)
class MoveWorker:
    """Send MOVED with this place to one worker that holds no frame."""

    place: Place


@dataclass(frozen=True, slots=True)
class Inquire:
    """Ask the aggregator at this place for its copy of ``parts``. Its answer is an input like that of the watch."""

    place: Place


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish an event that is stored in a partition. Without a camera, take the cursor's number only."""

    partition: int
    cursor: int
    camera: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """End the process: this aggregator has lost a partition. Its supervisor starts it again, with a new id."""

    reason: str


@dataclass(frozen=True, slots=True)
class Left:
    """All partitions were given away, so the process may end."""


Call = Write | Read | Look | Fence | Recover | Flush
Command = Beat | Call | Serve | Move | MoveWorker | Inquire | Publish | End | Left


# Answers of the engine


@dataclass(frozen=True, slots=True)
class Done:
    """The call succeeded. Its command says what ``value`` is."""

    value: object = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """The call was refused: what it expected was not so."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer came. The call may have been carried out, and may still be."""


Outcome = Done | Conflict | Unknown


# Answers to a capture or worker


@dataclass(frozen=True, slots=True)
class Welcome:
    """It belongs here. ``others`` are places to try when this aggregator does not answer any more."""

    others: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Moved:
    """It belongs to the aggregator at ``place``. ``None``: nobody yet, so come again in ``wait`` seconds."""

    place: Place | None
    wait: float = 0.0
    others: tuple[Place, ...] = ()
    """As in `Welcome`."""


Answer = Welcome | Moved
