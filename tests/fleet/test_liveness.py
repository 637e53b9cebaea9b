"""Silence is counted by my own clock, and only as far as my own echoes prove it."""

from __future__ import annotations

from fer_stream.fleet.liveness import BEAT, GAP, Liveness, T


class Pair:
    """My liveness, and another aggregator that writes with me."""

    def __init__(self) -> None:
        self.liveness = Liveness("me")
        self.now = 1000.0

    def go(self, seconds: float, *, other: bool = True, engine: bool = True) -> None:
        for _ in range(round(seconds / BEAT)):
            self.now += BEAT
            number = self.liveness.beat(self.now)
            assert number is not None
            if engine:
                if other:
                    assert not self.liveness.hear("other", 1, self.now + 0.01)
                assert self.liveness.hear("me", number, self.now + 0.02)


def test_a_beat_is_due_each_half_second() -> None:
    liveness = Liveness("me")
    assert [liveness.beat(now) for now in (0.0, 0.1, BEAT, BEAT + 0.1, 5.0)] == [1, None, 2, None, 3]


def test_who_writes_is_not_silent() -> None:
    pair = Pair()
    pair.go(20)
    assert pair.liveness.silence("other") == 0
    assert pair.liveness.settled(pair.now)


def test_who_stops_is_silent_after_three_seconds() -> None:
    pair = Pair()
    pair.go(5)
    pair.go(T, other=False)
    assert not pair.liveness.silent("other"), "up to my last write it was less"
    pair.go(BEAT, other=False)
    assert pair.liveness.silent("other")


def test_nobody_is_silent_while_the_engine_is_away_nor_at_once_on_its_return() -> None:
    pair = Pair()
    pair.go(5)
    pair.go(9, engine=False)
    assert not pair.liveness.silent("other")
    assert not pair.liveness.settled(pair.now)
    assert pair.liveness.doubtful(pair.now)
    pair.go(T, other=False)
    assert not pair.liveness.silent("other"), "it gets a whole T from the return on"
    pair.go(BEAT, other=False)
    assert pair.liveness.silent("other")


def test_a_judgement_grows_old() -> None:
    pair = Pair()
    pair.go(5)
    pair.go(T + BEAT, other=False)
    assert pair.liveness.settled(pair.now + 0.1)
    assert not pair.liveness.settled(pair.now + GAP + 0.1)


def test_a_short_gap_does_not_begin_anew() -> None:
    pair = Pair()
    pair.go(5)
    pair.go(T - GAP + BEAT, other=False)
    pair.go(GAP - BEAT, engine=False)
    pair.go(BEAT, other=False)
    assert pair.liveness.silent("other")


def test_an_unknown_echo_proves_nothing() -> None:
    pair = Pair()
    pair.go(1)
    assert not pair.liveness.hear("me", 99, pair.now)


def test_a_late_echo_counts_from_its_sending() -> None:
    pair = Pair()
    pair.go(5)
    numbers = []
    for _ in range(10):  # the watch lags: neither the other's writes nor mine arrive
        pair.now += BEAT
        numbers.append(pair.liveness.beat(pair.now))
    for number in numbers:
        assert not pair.liveness.silent("other")
        pair.liveness.hear("other", 1, pair.now)
        assert number is not None
        pair.liveness.hear("me", number, pair.now)
    assert not pair.liveness.silent("other")


def test_whom_others_mention_is_silent_from_then_on() -> None:
    pair = Pair()
    pair.go(20)
    pair.liveness.mention("stranger", pair.now + 0.01)
    pair.liveness.mention("other", pair.now + 100)
    pair.go(T)
    assert not pair.liveness.silent("stranger")
    pair.go(BEAT)
    assert pair.liveness.silent("stranger")
    assert not pair.liveness.silent("other")
    pair.liveness.forget("stranger")
    assert pair.liveness.silence("stranger") > 20, "counted from the start of my series"
