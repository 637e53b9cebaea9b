"""How far a sink is behind."""

from __future__ import annotations

from fer_stream.delivery.lag import MARKS, Lag
from fer_stream.types import Cursor


def cursor(text: str) -> Cursor:
    return Cursor(text)


def test_events_and_seconds() -> None:
    lag = Lag()
    lag.look(cursor("10"), 100.0)
    assert lag.behind(cursor("10"), 100.0) == (0, 0.0)
    lag.look(cursor("15"), 102.0)
    lag.look(cursor("20"), 104.0)
    assert lag.behind(cursor("10"), 105.0) == (10, 3.0)
    assert lag.behind(cursor("15"), 105.0) == (5, 1.0)
    assert lag.behind(cursor("20"), 105.0) == (0, 0.0)


def test_a_sink_that_is_ahead_of_the_latest_look_is_not_behind() -> None:
    lag = Lag()
    lag.look(cursor("10"), 0.0)
    assert lag.behind(cursor("12"), 5.0) == (0, 0.0)


def test_without_new_events_the_seconds_go_on() -> None:
    lag = Lag()
    for now in range(100):
        lag.look(cursor("7"), float(now))
    assert lag.behind(cursor("6"), 100.0) == (1, 100.0)


def test_a_cell() -> None:
    lag = Lag()
    lag.look(cursor("00:5,01:7"), 0.0)
    assert lag.behind(cursor("00:5,01:4"), 2.0) == (3, 2.0)
    assert lag.behind(cursor("0"), 2.0) == (12, 2.0)


def test_memory_is_bounded_and_the_oldest_moment_is_kept() -> None:
    lag = Lag()
    for now in range(10 * MARKS):
        lag.look(cursor(str(now + 1)), float(now))
    assert len(lag._marks) <= MARKS
    assert lag.behind(cursor("0"), 10.0 * MARKS) == (10 * MARKS, 10.0 * MARKS)


def test_a_sink_has_caught_up_when_it_has_reached_what_was_there_at_the_beginning() -> None:
    lag = Lag()
    lag.look(Cursor("100"), 0.0)
    assert lag.behind(Cursor("50"), 0.0) == (50, 0.0)
    assert not lag.caught_up
    lag.look(Cursor("150"), 2.0)
    assert lag.behind(Cursor("100"), 2.0) == (50, 0.0)
    assert lag.caught_up
    lag.look(Cursor("200"), 4.0)
    lag.behind(Cursor("100"), 4.0)
    assert lag.caught_up
