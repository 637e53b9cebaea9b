"""Wrong rules, one for each rule of the fleet. The simulation must find each of them (`test_mutants`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fleet import world
from fleet.engine import Entry
from fleet.nodes import Node, Writer
from fleet.world import Profile

from fer_stream.fleet import balance, liveness, member, ownership, seeker
from fer_stream.fleet.liveness import Liveness
from fer_stream.fleet.member import Member
from fer_stream.fleet.ownership import Ownership
from fer_stream.fleet.records import Done, Mark, Moved, Unknown

if TYPE_CHECKING:
    from fer_stream.fleet.records import Command, Outcome, Place

Mutant = Callable[[pytest.MonkeyPatch], Profile]

MUTANTS: dict[Mutant, tuple[str, int]] = {}
"""Each mutant, a part of the error by which it is found, and the first seed. It returns the profile of its runs."""


def finds(error: str, first: int = 0) -> Callable[[Mutant], Mutant]:
    def known(mutant: Mutant) -> Mutant:
        MUTANTS[mutant] = error, first
        return mutant

    return known


# Liveness


@finds("which lives")
def silence_since_the_last_key(patch: pytest.MonkeyPatch) -> Profile:
    """Silence counts since the other's last key, whether or not I can reach the engine myself."""
    beat = Liveness.beat

    def remember(self: Any, now: float) -> int | None:
        self.now = now
        return beat(self, now)

    patch.setattr(Liveness, "beat", remember)
    patch.setattr(
        Liveness, "silence", lambda self, member: getattr(self, "now", 0.0) - self._heard.get(member, math.inf)
    )
    patch.setattr(Liveness, "settled", lambda self, now: self._since is not None)
    return Profile({"outage": 1}, calm=0.0)


@finds("which lives")
def an_answer_is_proof(patch: pytest.MonkeyPatch) -> Profile:
    """My write counts once it is answered, though my watch may lag behind it."""
    hear = Liveness.hear
    patch.setattr(Liveness, "hear", lambda self, who, n, now: who != self._me and hear(self, who, n, now))

    def beaten(self: Node, number: int) -> Callable[[Outcome], None]:
        def answered(outcome: Outcome) -> None:
            if isinstance(outcome, Done):
                hear(self.member.liveness, self.me, number, self.clock())

        return answered

    patch.setattr(Node, "beaten", beaten)
    return Profile({"stall": 1}, calm=0.0)


@finds("which lives", first=16)
def one_series(patch: pytest.MonkeyPatch) -> Profile:
    """After a gap, silence goes on from before."""
    patch.setattr(liveness, "GAP", math.inf)
    return Profile({"outage": 1}, calm=0.0)


@finds("which lives")
def wall_clock(patch: pytest.MonkeyPatch) -> Profile:
    """Times come from the wall clock."""
    clock = Node.clock
    patch.setattr(Node, "clock", lambda self: clock(self) + self.wall)
    return Profile({"jump": 1}, calm=0.0)


# Fences and appends


class Pipelined(Writer):
    """Several appends are under way, each with the sequence that it will have, and none names the fence."""

    def pump(self) -> None:
        for event in self.held:
            self.node.world.engine.append(self.node, self.number, [event], self.cursor, None, self.answered)
            self.cursor += 1
        self.held = []

    def answered(self, outcome: Outcome) -> None:
        """Go on: the next ones are under way."""


@finds("stores events in", first=3)
def pipelined_appends(patch: pytest.MonkeyPatch) -> Profile:
    patch.setattr(Node, "writer", Pipelined)
    return Profile({"pause": 1}, seconds=60.0, gap=6.0, calm=0.0, partitions=(1, 1), cameras=(12, 14))


@finds("stores events in")
def going_on_after_a_foreign_fence(patch: pytest.MonkeyPatch) -> Profile:
    """After a conflict, the writer goes on from the end, whoever's fence is there."""

    def found(self: Any, outcome: Outcome) -> None:
        if isinstance(outcome, Done):
            entries, self.fence = outcome.value  # type: ignore[misc]
            if entries == [Entry(self.node.me, event) for event in self.batch]:
                self.stored(self.cursor + len(entries))
            else:
                self.cursor += len(entries)
                self.send()
        else:
            self.node.later(0.25, self.read_back)

    patch.setattr(Writer, "found", found)
    patch.setattr(Member, "_inquire", lambda self, now: [])
    return Profile({"pause": 1}, seconds=60.0, gap=6.0, calm=0.0, partitions=(1, 1), cameras=(12, 14))


@finds("stored twice")
def no_reading_back(patch: pytest.MonkeyPatch) -> Profile:
    """An append without an answer is sent again, over what it may have stored."""
    patch.setattr(Writer, "read_back", lambda self: self.node.later(0.25, self.retry))

    def retry(self: Any) -> None:
        self.cursor = len(self.node.world.engine.streams[self.number])
        self.send()

    patch.setattr(Writer, "retry", retry, raising=False)
    return Profile({"outage": 1}, calm=0.0)


@finds("stores events in")
def no_fence(patch: pytest.MonkeyPatch) -> Profile:
    """The new owner trusts `parts` alone."""

    def looked(self: Any, last: int, sequence: int, found: Mark | None) -> list[Command]:
        return self._write("naming", replace(self._mine, fence=sequence))

    patch.setattr(Ownership, "_looked", looked)
    return Profile({"pause": 1, "crash": 1}, calm=0.0)


@finds("is appended after")
def no_term(patch: pytest.MonkeyPatch) -> Profile:
    """A claimer appends its fence without looking whether it has lost meanwhile."""
    looked = Ownership._looked

    def blind(self: Any, last: int, sequence: int, found: Mark | None) -> list[Command]:
        mine = found == Mark(self._me, self._term)
        return looked(self, last, sequence, found if mine else None)

    patch.setattr(Ownership, "_looked", blind)
    patch.setattr(Ownership, "seen", forgetful(Ownership.seen))
    return Profile({"doze": 1}, gap=8.0, calm=10.0)


def forgetful(seen: Callable[..., Any]) -> Callable[..., Any]:
    """Ignore what the watch says while taking over."""
    return lambda self, revision, part: [] if self.state in ownership.TAKING else seen(self, revision, part)


@finds("is appended after")
def unknown_is_success(patch: pytest.MonkeyPatch) -> Profile:
    """A write without an answer counts as done."""
    result = Ownership._result_of_write

    def trusting(self: Any, outcome: Outcome, now: float) -> list[Command]:
        if isinstance(outcome, Unknown) and not self._reading:
            return self._written(self._base + 1, now)
        return result(self, outcome, now)

    patch.setattr(Ownership, "_result_of_write", trusting)
    return Profile({"crash": 2, "outage": 2}, calm=0.0)


# Balance and hand-over


@finds("move")
def no_hysteresis(patch: pytest.MonkeyPatch) -> Profile:
    """Loads are evened out at once, whatever moves."""
    patch.setattr(balance, "UNEVEN", 0.0)
    patch.setattr(balance, "FITS", 1.1)
    for name in ("SETTLE", "COOL", "REST"):
        patch.setattr(member, name, 0.0)
    return Profile({"join": 1})


@finds("loads")
def no_balance(patch: pytest.MonkeyPatch) -> Profile:
    """A newcomer gets nothing."""
    patch.setattr(Member, "_balance", lambda self, others, status, now: [])
    return Profile({"join": 1}, partitions=(12, 16))


@finds("workers still move")
def no_hysteresis_of_workers(patch: pytest.MonkeyPatch) -> Profile:
    """Whoever has an idle worker gives it to whoever has fewer."""

    def generous(me: str, statuses: Any) -> str | None:
        poorest = min(statuses, key=lambda name: (statuses[name].workers, name))
        return poorest if poorest != me and statuses[me].idle else None

    patch.setattr(balance, "spare_worker", generous)
    return Profile({"join": 1}, workers=(7, 7), hosts=(3, 3))


@finds("has no worker")
def no_workers_for_a_newcomer(patch: pytest.MonkeyPatch) -> Profile:
    """Workers stay where they are."""
    patch.setattr(balance, "spare_worker", lambda me, statuses: None)
    return Profile({"join": 1}, hosts=(2, 3))


@finds("loses no frame")
def unannounced_outcomes(patch: pytest.MonkeyPatch) -> Profile:
    """MOVED does not carry the last outcomes of the frames."""

    def move(self: Node, number: int, place: Place) -> None:
        for name, camera in list(self.cameras.items()):
            if camera.peer.partition == number:
                camera.peer.send(self, camera.link, "moved", dict(camera.peer.told), Moved(place))
                del self.cameras[name]

    patch.setattr(Node, "move", move)
    return Profile({"leave": 1, "join": 1})


@finds("loses no frame")
def no_flush(patch: pytest.MonkeyPatch) -> Profile:
    """A partition is given away with frames and events under way."""

    def flush(self: Node, call: int, number: int, until: float) -> None:
        self.flushed.add(number)
        self.answer_to(call)(Done())

    patch.setattr(Node, "flush", flush)
    return Profile({"leave": 1, "join": 1})


@finds("loses no frame")
def leaving_early(patch: pytest.MonkeyPatch) -> Profile:
    """Who gave everything away ends before its captures were moved."""
    patch.setattr(Ownership, "left", property(lambda self: self.state == "idle"))
    return Profile({"leave": 1, "join": 1})


# Captures and workers


@finds("is not joined", first=1)
def no_return_to_the_list(patch: pytest.MonkeyPatch) -> Profile:
    """Who was welcome waits for its aggregator for ever."""
    patch.setattr(seeker, "SILENCE", math.inf)
    patch.setattr(world.World, "kill", lambda self, node, quietly=False: quiet(self, node))
    return Profile({"machine": 1}, gap=15.0, calm=10.0)


def quiet(self: world.World, node: Node) -> None:
    node.die()
    self.hurt()


@finds("is not joined", first=1)
def no_second_address(patch: pytest.MonkeyPatch) -> Profile:
    """Who finds no answer asks the same aggregator again."""
    patch.setattr(seeker.Seeker, "_next", lambda self, now: self.place or self._list[0])
    return Profile({"machine": 1}, hosts=(2, 3), gap=15.0, calm=10.0)
