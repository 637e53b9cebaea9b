"""Pauses before a process is started again."""

from __future__ import annotations

from fer_stream.service.children import HEALTHY, LONGEST_PAUSE, Backoff


def test_who_worked_is_started_at_once_and_who_goes_on_failing_ever_later() -> None:
    it = Backoff()
    assert [it.died(2.0) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 32, 32]
    assert it.died(None) == LONGEST_PAUSE, "a start that never came to work does not help"
    it.died(HEALTHY - 1)
    assert it.deaths == 10


def test_who_never_worked_is_not_started_at_once() -> None:
    it = Backoff()
    assert [it.died(None) for _ in range(4)] == [1, 1, 2, 4]


def test_a_minute_of_health_begins_anew() -> None:
    it = Backoff()
    for _ in range(5):
        it.died(1.0)
    it.well(HEALTHY - 1)
    assert it.deaths == 5
    assert it.died(HEALTHY) == 0.0
    assert it.died(3.0) == 1.0


def test_a_process_that_crashes_two_seconds_after_each_start_is_started_a_few_times_a_minute() -> None:
    it, now, starts = Backoff(), 0.0, 0
    while now < 60:
        now += 2.0 + it.died(0.5)
        starts += 1
    assert starts <= 7, "30, were there no pauses"
