"""An aggregator's rules, one by one. The simulation has them all at once."""

from __future__ import annotations

from typing import Any

import pytest

from fer_stream.fleet import balance
from fer_stream.fleet import member as rules
from fer_stream.fleet.liveness import BEAT, T
from fer_stream.fleet.member import Member
from fer_stream.fleet.partitions import partition
from fer_stream.fleet.records import (
    Beat,
    Conflict,
    Done,
    End,
    Flush,
    Inquire,
    Left,
    Moved,
    MoveWorker,
    Part,
    Place,
    Status,
    Welcome,
    Write,
)

HERE, THERE, ELSEWHERE = Place("tcp://here"), Place("tcp://there"), Place("tcp://elsewhere")
CAMERA = "demo"


class Fleet:
    """One `Member` with an engine that answers everything at once, and others that only beat."""

    def __init__(self, partitions: int = 1, former: str = "") -> None:
        self.member = Member("me", HERE, partitions, former)
        self.now, self.revision = 0.0, 100
        self.engine = self.obliging = True
        self.others: dict[str, Status] = {}
        self.done: list[Any] = []

    def add(self, name: str, place: Place = THERE, load: float = 0.0, **more: Any) -> None:
        self.others[name] = Status(place, load, **more)

    def own(self, owner: str, number: int = 0, fence: int = 1, heir: str = "") -> None:
        self.revision += 1
        part = Part(owner, THERE, fence, heir, 5.0)
        self.do(self.member.seen(number, self.revision, part, self.now))

    def do(self, commands: list[Any]) -> None:
        for command in commands:
            self.done.append(command)
            if isinstance(command, Beat):
                if self.engine:
                    for name, status in self.others.items():
                        self.member.alive(name, 1, status, self.now)
                    self.member.alive("me", command.number, command.status, self.now)
            elif call := getattr(command, "call", None):
                self.revision += 1
                answers = {"Write": self.revision, "Look": (9, 0, None), "Fence": 10, "Recover": None, "Flush": None}
                answer = Done(answers[type(command).__name__]) if self.obliging else Conflict()
                self.do(self.member.result(call, answer, self.now))

    def go(self, seconds: float) -> list[Any]:
        """Let time pass; return what was commanded meanwhile, without beats."""
        self.done = []
        for _ in range(round(seconds / 0.1)):
            self.now += 0.1
            self.do(self.member.tick(self.now))
        return [command for command in self.done if not isinstance(command, Beat)]

    def kinds(self, seconds: float) -> list[str]:
        return [type(command).__name__ for command in self.go(seconds)]


TAKE_OVER = ["Write", "Look", "Fence", "Write", "Recover", "Serve"]


def test_a_wrong_number_of_partitions() -> None:
    with pytest.raises(ValueError, match="1 to 256 partitions"):
        Member("me", HERE, 0)


def test_it_takes_what_nobody_owns_once_it_has_listened_for_long_enough() -> None:
    fleet = Fleet()
    assert fleet.kinds(T) == []
    assert fleet.kinds(2 * BEAT) == TAKE_OVER
    assert fleet.member.answer(CAMERA) == Welcome()


def test_it_takes_over_from_a_silent_owner_and_from_no_other() -> None:
    fleet = Fleet()
    fleet.add("other")
    fleet.own("other")
    assert fleet.kinds(20) == []
    del fleet.others["other"]
    assert fleet.kinds(T - BEAT) == []
    assert fleet.kinds(3 * BEAT) == TAKE_OVER


def test_an_owner_that_it_never_heard_gets_time() -> None:
    fleet = Fleet()
    fleet.add("other")
    fleet.own("other")
    fleet.go(20)
    fleet.own("stranger")
    assert fleet.kinds(T - BEAT) == []
    assert fleet.kinds(3 * BEAT) == TAKE_OVER


def test_an_old_judgement_is_no_reason_to_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "claimants", lambda number, members: [*(20 * ["other"]), "me"])
    fleet = Fleet()
    fleet.add("other")
    fleet.own("other")
    fleet.go(10)
    del fleet.others["other"]
    fleet.go(T + BEAT)
    assert fleet.member.liveness.silent("other")
    fleet.engine = False
    assert set(fleet.kinds(20 * rules.STEP)) <= {"Inquire"}


def test_the_first_in_order_claims_and_the_next_one_later() -> None:
    fleet = Fleet(partitions=64)
    fleet.add("other")
    for number in range(64):
        fleet.own("dead", number)
    fleet.go(T - BEAT)
    while not (first := fleet.kinds(0.1)):
        pass
    assert 16 < first.count("Serve") < 48, "about half"
    assert fleet.kinds(0.1) == []
    assert first.count("Serve") + fleet.kinds(rules.STEP).count("Serve") == 64, "the other one does not claim"


def test_a_new_cell_gives_its_aggregators_time_to_start() -> None:
    fleet = Fleet(partitions=64)
    fleet.add("other")
    assert 16 < fleet.kinds(T + 2 * BEAT).count("Serve") < 48
    assert fleet.kinds(rules.FIRST_STEP - 2 * BEAT) == []
    assert fleet.kinds(2 * BEAT).count("Serve") > 16


def test_it_replaces_its_former_process_at_once() -> None:
    fleet = Fleet(former="me before")
    fleet.own("me before")
    assert fleet.kinds(0.1) == TAKE_OVER


def test_an_heir_claims_at_once() -> None:
    fleet = Fleet()
    fleet.own("other", heir="me")
    assert fleet.kinds(0.1) == TAKE_OVER
    assert fleet.member.status(fleet.now).load == 5.0, "what the giver said, until its captures are here"


def test_after_an_end_nothing_is_done() -> None:
    fleet = Fleet()
    fleet.go(T + 2 * BEAT)
    fleet.own("other")
    assert isinstance(fleet.done[-1], End)
    fleet.own("third")
    assert fleet.go(5) == []


def test_a_refused_append_ends_it() -> None:
    fleet = Fleet()
    assert fleet.member.fenced(0) == [], "it owns nothing"
    fleet.go(T + 2 * BEAT)
    assert isinstance(fleet.member.fenced(0)[0], End)
    assert fleet.member.ended


# Hand-over


def heavy() -> Fleet:
    fleet = Fleet(partitions=8)
    fleet.go(T + 2 * BEAT)
    fleet.member.report(dict.fromkeys(range(8), 10.0), cameras=72, workers=2, idle=0)
    return fleet


def test_a_newcomer_gets_its_share_one_by_one() -> None:
    fleet = heavy()
    fleet.go(rules.REST)
    fleet.add("new")
    assert fleet.kinds(rules.SETTLE) == []
    given = [command for command in fleet.go(3 * BEAT) if isinstance(command, Write)]
    assert [write.part.heir for write in given] == ["new"]


def test_what_was_taken_lately_stays() -> None:
    fleet = heavy()
    fleet.add("new")
    assert [kind for kind in fleet.kinds(rules.REST - 2) if kind == "Flush"] == []


def test_nothing_is_given_to_who_may_be_dead() -> None:
    fleet = heavy()
    fleet.add("new")
    fleet.go(rules.SETTLE)
    del fleet.others["new"]
    assert [kind for kind in fleet.kinds(T) if kind == "Flush"] == []


def test_even_loads_stay() -> None:
    fleet = heavy()
    fleet.add("new", load=72.0)
    assert fleet.kinds(30) == []


def test_who_leaves_gives_all_to_the_lightest_first_and_then_has_left() -> None:
    fleet = heavy()
    fleet.add("light", load=10.0)
    fleet.add("heavy", ELSEWHERE, load=20.0)
    fleet.go(BEAT)
    fleet.member.leave()
    given = [command for command in fleet.go(0.1) if isinstance(command, Write)]
    assert [write.part.heir for write in given] == ["light", "heavy"]
    while offered := [one.partition for one in fleet.member.partitions if one.state == "offered"]:
        for number in offered:
            fleet.own("light", number, fence=0)
        assert Left() not in fleet.go(0.2), "its captures are still here"
    for number in range(8):
        fleet.own("light", number)
    assert fleet.go(0.1) == [Left()]
    assert fleet.go(1) == []


def test_who_leaves_alone_serves_on() -> None:
    fleet = heavy()
    fleet.member.leave()
    assert fleet.kinds(10) == []


# Peers


def test_a_camera_of_another_aggregator_is_moved() -> None:
    fleet = Fleet(partitions=4)
    fleet.add("other", load=1.0)
    fleet.add("third", ELSEWHERE)
    fleet.go(BEAT)
    number = partition(CAMERA, 4)
    others = (ELSEWHERE, THERE)
    assert fleet.member.answer(CAMERA) == Moved(None, rules.LATER, others)
    fleet.own("other", number, fence=0)
    assert fleet.member.answer(CAMERA) == Moved(None, rules.SOON, others), "its new owner is not ready"
    fleet.own("other", number)
    assert fleet.member.answer(CAMERA) == Moved(THERE, 0.0, others)


def test_a_camera_of_a_silent_aggregator_has_to_wait() -> None:
    fleet = Fleet()
    fleet.add("other")
    fleet.own("other")
    fleet.go(10)
    del fleet.others["other"]
    fleet.go(T / 2 + 2 * BEAT)
    assert fleet.member.answer(CAMERA) == Moved(None, rules.LATER, (THERE,))


def test_a_camera_of_a_former_process_here_is_not_sent_in_a_circle() -> None:
    fleet = Fleet()
    fleet.do(fleet.member.seen(0, 1, Part("me before", HERE, fence=1), 0.0))
    assert fleet.member.answer(CAMERA) == Moved(None, rules.LATER)


def test_a_camera_has_to_wait_while_its_partition_changes_hands() -> None:
    fleet = heavy()
    fleet.add("light")
    fleet.go(BEAT)
    fleet.member.leave()
    fleet.go(0.1)
    number = next(one.partition for one in fleet.member.partitions if one.state == "offered")
    camera = next(f"cam-{n}" for n in range(100) if partition(f"cam-{n}", 8) == number)
    assert fleet.member.answer(camera) == Moved(None, rules.SOON, (THERE,))


def test_a_worker_is_welcome_except_where_all_leave() -> None:
    fleet = heavy()
    assert fleet.member.answer_worker() == Welcome()
    fleet.add("many", workers=9, load=5.0)
    fleet.add("few", ELSEWHERE, workers=1, load=5.0)
    fleet.go(BEAT)
    fleet.member.leave()
    assert fleet.member.answer_worker() == Moved(ELSEWHERE)


def test_idle_workers_go_one_a_second() -> None:
    fleet = heavy()
    fleet.add("needy", load=80.0, cameras=72)
    fleet.member.report(dict.fromkeys(range(8), 10.0), cameras=72, workers=6, idle=4)
    moved = [command for command in fleet.go(5.0) if isinstance(command, MoveWorker)]
    assert moved
    assert set(moved) == {MoveWorker(THERE)}
    assert len(moved) <= 5


# Doubt


def test_in_doubt_it_serves_on_gives_nothing_and_asks_the_others() -> None:
    fleet = heavy()
    fleet.add("one", THERE)
    fleet.add("two", ELSEWHERE)
    fleet.go(BEAT)
    fleet.engine = False
    commands = fleet.go(20)
    assert {type(command) for command in commands} == {Inquire}
    assert 10 < len(commands) <= 20
    assert commands[:2] in ([Inquire(THERE), Inquire(ELSEWHERE)], [Inquire(ELSEWHERE), Inquire(THERE)])
    assert fleet.member.answer(CAMERA) == Welcome((THERE, ELSEWHERE))
    fleet.own("one")
    assert isinstance(fleet.done[-1], End), "one of them knows better"


def test_who_left_long_ago_is_forgotten() -> None:
    fleet = Fleet()
    fleet.add("other")
    fleet.go(5)
    del fleet.others["other"]
    fleet.go(rules.FORGET - 5)
    assert "other" in fleet.member.statuses
    fleet.go(10)
    assert fleet.member.statuses == {}


def test_a_gift_goes_through_flush() -> None:
    fleet = heavy()
    fleet.add("light")
    fleet.go(BEAT)
    fleet.member.leave()
    first = fleet.go(0.1)[0]
    assert isinstance(first, Flush)
