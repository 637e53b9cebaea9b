"""One partition's steps: what follows from each answer of the engine."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from fer_stream.fleet.ownership import OFFER, RETRY, Ownership
from fer_stream.fleet.records import (
    Conflict,
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

HERE, THERE = Place("tcp://here", "my key"), Place("tcp://there", "another key")


class Case:
    """An `Ownership`, a clock, and the last command."""

    def __init__(self) -> None:
        self.one = Ownership(7, "me", HERE, count(1))
        self.now = 100.0
        self.last: Any = None

    def take(self, commands: list[Any]) -> Any:
        assert len(commands) <= 1, commands
        self.last = commands[0] if commands else self.last
        return commands[0] if commands else None

    def answer(self, outcome: Any) -> Any:
        return self.take(self.one.result(self.last.call, outcome, self.now))

    def wait(self, seconds: float = RETRY) -> Any:
        self.now += seconds
        return self.take(self.one.tick(self.now))

    def own(self) -> Case:
        """Take the partition over from another aggregator, whose events end at 40."""
        self.take(self.one.seen(5, Part("other", THERE, fence=30)))
        self.take(self.one.claim(9.0, "dead"))
        self.answer(Done(6))
        self.answer(Done((40, 30, Mark("other", 4))))
        self.answer(Done(41))
        self.answer(Done(7))
        assert self.answer(Done()) == Serve(7)
        return self


MINE = Part("me", HERE, fence=0, weight=9.0)
NAMED = Part("me", HERE, fence=41, weight=9.0)


def test_a_take_over() -> None:
    case = Case()
    assert case.take(case.one.seen(5, Part("other", THERE, fence=30))) is None
    assert case.take(case.one.claim(9.0, "dead")) == Write(1, 7, MINE, revision=5)
    assert case.answer(Done(6)) == Look(2, 7)
    assert case.answer(Done((40, 30, Mark("other", 4)))) == Fence(3, 7, Mark("me", 6), last=40)
    assert case.answer(Done(41)) == Write(4, 7, NAMED, revision=6)
    assert case.answer(Done(7)) == Recover(5, 7, fence=41)
    assert case.answer(Done()) == Serve(7)
    assert case.one.state == "owned"
    assert (case.one.revision, case.one.part) == (7, NAMED)


def test_a_partition_that_nobody_ever_owned() -> None:
    case = Case()
    assert case.take(case.one.claim(1.0, "dead")) == Write(1, 7, Part("me", HERE), revision=0)
    case.answer(Done(1))
    assert case.answer(Done((0, 0, None))) == Fence(3, 7, Mark("me", 1), last=0)


def test_nothing_begins_twice() -> None:
    case = Case()
    case.take(case.one.claim(1.0, "dead"))
    assert case.one.claim(1.0, "dead") == []
    assert case.one.give("other", 1.0) == []
    case = Case().own()
    assert case.one.claim(1.0, "dead") == []


def test_a_late_answer_is_ignored() -> None:
    case = Case()
    first = case.take(case.one.claim(9.0, "dead"))
    case.answer(Unknown())
    read = case.wait()
    assert read == Read(2, 7)
    assert case.one.result(first.call, Done(6), case.now) == []
    assert case.one.result(99, Done(6), case.now) == []
    assert case.last is read


# A claim without success


def test_a_lost_race() -> None:
    case = Case()
    case.take(case.one.claim(9.0, "dead"))
    assert case.answer(Conflict()) == Read(2, 7)
    assert case.answer(Done((6, Part("other", THERE)))) is None
    assert (case.one.state, case.one.revision) == ("idle", 6)


def test_an_unknown_claim_that_succeeded() -> None:
    case = Case()
    case.take(case.one.claim(9.0, "dead"))
    assert case.answer(Unknown()) is None
    assert case.wait(RETRY / 2) is None
    assert case.wait(RETRY / 2) == Read(2, 7)
    assert case.answer(Done((6, MINE))) == Look(3, 7)


def test_an_unknown_claim_that_did_not_arrive_is_decided_anew() -> None:
    case = Case()
    case.take(case.one.claim(9.0, "dead"))
    case.answer(Unknown())
    case.wait()
    assert case.answer(Done((0, None))) is None
    assert case.one.state == "idle"


def test_reading_back_is_repeated() -> None:
    case = Case()
    case.take(case.one.claim(9.0, "dead"))
    case.answer(Conflict())
    assert case.answer(Unknown()) is None
    assert case.wait() == Read(3, 7)


def test_a_claim_that_was_overwritten_before_its_answer_came() -> None:
    case = Case()
    case.take(case.one.claim(9.0, "dead"))
    case.take(case.one.seen(7, Part("other", THERE, fence=3)))
    assert case.answer(Done(6)) is None
    assert case.one.state == "idle"


# A fence without success


@pytest.mark.parametrize("outcome", [Conflict(), Unknown()])
def test_a_fence_is_looked_for_and_appended_again(outcome: Any) -> None:
    case = Case()
    case.take(case.one.claim(9.0, "dead"))
    case.answer(Done(6))
    case.answer(Done((40, 30, Mark("other", 4))))
    assert case.answer(outcome) == Look(4, 7)
    assert case.answer(Done((43, 30, Mark("other", 4)))) == Fence(5, 7, Mark("me", 6), last=43)


def test_a_fence_that_landed_unseen() -> None:
    case = Case()
    case.take(case.one.claim(9.0, "dead"))
    case.answer(Done(6))
    case.answer(Done((40, 30, Mark("other", 4))))
    case.answer(Unknown())
    assert case.answer(Done((41, 41, Mark("me", 6)))) == Write(5, 7, NAMED, revision=6)


def test_a_later_claim_wins_even_if_this_process_slept() -> None:
    case = Case()
    case.take(case.one.claim(9.0, "dead"))
    case.answer(Done(6))
    assert case.answer(Done((41, 41, Mark("other", 8)))) is None
    assert case.one.state == "idle"


def test_a_later_claim_that_is_seen_ends_the_take_over() -> None:
    case = Case()
    case.take(case.one.claim(9.0, "dead"))
    look = case.answer(Done(6))
    assert case.take(case.one.seen(8, Part("other", THERE))) is None
    assert case.one.state == "idle"
    assert case.one.result(look.call, Done((40, 30, None)), case.now) == []


def test_a_fence_is_named_again_until_it_is_known() -> None:
    case = Case()
    case.take(case.one.claim(9.0, "dead"))
    case.answer(Done(6))
    case.answer(Done((40, 0, None)))
    case.answer(Done(41))
    case.answer(Unknown())
    case.wait()
    assert case.answer(Done((6, MINE))) == Write(6, 7, NAMED, revision=6)
    case.answer(Unknown())
    case.wait()
    assert case.answer(Done((7, NAMED))) == Recover(8, 7, fence=41)


@pytest.mark.parametrize("outcome", [Conflict(), Unknown()])
def test_before_recovering_again_the_fence_is_looked_for(outcome: Any) -> None:
    case = Case()
    case.take(case.one.claim(9.0, "dead"))
    case.answer(Done(6))
    case.answer(Done((40, 0, None)))
    case.answer(Done(41))
    case.answer(Done(7))
    assert case.answer(outcome) is None
    assert case.wait() == Look(6, 7)
    assert case.answer(Done((42, 41, Mark("me", 6)))) == Recover(7, 7, fence=41)


# Loss


def test_a_foreign_owner_ends_the_process() -> None:
    case = Case().own()
    assert isinstance(case.take(case.one.seen(9, Part("other", THERE))), End)


def test_a_foreign_fence_ends_the_process() -> None:
    case = Case().own()
    assert isinstance(case.take(case.one.fenced()), End)
    assert Case().one.fenced() == []


def test_old_news_and_own_echoes_change_nothing() -> None:
    case = Case().own()
    assert case.take(case.one.seen(5, Part("other", THERE, fence=30))) is None
    assert case.take(case.one.seen(7, NAMED)) is None
    assert case.one.state == "owned"


# Hand-over


def offered() -> Case:
    case = Case().own()
    assert case.take(case.one.give("other", 12.0)) == Flush(6, 7)
    offer = Part("me", HERE, fence=41, heir="other", weight=12.0)
    assert case.answer(Done()) == Write(7, 7, offer, revision=7)
    assert case.answer(Done(8)) is None
    assert (case.one.state, case.one.heir) == ("offered", "other")
    return case


def test_a_hand_over_moves_captures_once_the_heir_has_named_its_fence() -> None:
    case = offered()
    assert case.take(case.one.seen(9, Part("other", THERE))) is None
    assert case.one.state == "idle"
    assert not case.one.left
    assert case.take(case.one.seen(10, Part("other", THERE, fence=50))) == Move(7, THERE)
    assert case.one.left
    assert case.take(case.one.seen(11, Part("third", THERE, fence=60))) is None, "they have gone"


def test_an_heir_that_is_quicker_than_the_answer_to_the_offer() -> None:
    case = Case().own()
    case.take(case.one.give("other", 12.0))
    case.answer(Done())
    assert case.take(case.one.seen(9, Part("other", THERE))) is None
    assert case.answer(Done(8)) is None
    assert case.one.state == "idle"


def test_events_that_cannot_be_stored_keep_the_partition_here() -> None:
    case = Case().own()
    case.take(case.one.give("other", 12.0))
    assert case.answer(Unknown()) == Serve(7)
    assert case.one.heir == ""


def test_an_offer_that_nobody_takes_is_revoked() -> None:
    case = offered()
    assert case.wait(OFFER / 2) is None
    revoked = Part("me", HERE, fence=41, weight=12.0)
    assert case.wait(OFFER / 2) == Write(8, 7, revoked, revision=8)
    assert case.answer(Done(9)) == Serve(7)
    assert case.one.state == "owned"


def test_an_heir_that_claims_while_the_offer_is_revoked() -> None:
    case = offered()
    case.wait(OFFER)
    assert case.answer(Conflict()) == Read(9, 7)
    assert case.answer(Done((9, Part("other", THERE, fence=50)))) == Move(7, THERE)
    assert case.one.left
