"""The pauses before a process is restarted, and what it reports."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

from fer_stream.service.children import HEALTHY, LONGEST_PAUSE, Backoff, Child

if TYPE_CHECKING:
    from pathlib import Path


def test_who_worked_is_started_at_once_and_who_goes_on_failing_ever_later() -> None:
    backoff = Backoff()
    assert [backoff.died(2.0) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 32, 32]
    assert backoff.died(None) == LONGEST_PAUSE, "a process that never became ready does not reset the pause"
    backoff.died(HEALTHY - 1)
    assert backoff.deaths == 10


def test_who_never_worked_is_not_started_at_once() -> None:
    backoff = Backoff()
    assert [backoff.died(None) for _ in range(4)] == [1, 1, 2, 4]


def test_a_minute_of_health_begins_anew() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.died(1.0)
    backoff.well(HEALTHY - 1)
    assert backoff.deaths == 5
    assert backoff.died(HEALTHY) == 0.0
    assert backoff.died(3.0) == 1.0


def test_a_process_that_crashes_two_seconds_after_each_start_is_started_a_few_times_a_minute() -> None:
    backoff, now, starts = Backoff(), 0.0, 0
    while now < 60:
        now += 2.0 + backoff.died(0.5)
        starts += 1
    assert starts <= 7, "without pauses there would be 30 starts"


def test_a_report_counts_while_it_is_fresh_and_of_the_present_process(tmp_path: Path) -> None:
    child = Child("worker 1", [], tmp_path)
    assert child.report(60) is None
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            child.process = process

            def report(pid: int, age: float = 0.0) -> dict[str, Any] | None:
                (tmp_path / "worker 1.json").write_text(json.dumps({"pid": pid, "at": time.monotonic() - age}))
                return child.report(60)

            assert report(process.pid) is not None
            assert report(process.pid, age=61) is None
            assert report(process.pid + 1) is None
            (tmp_path / "worker 1.json").write_text("half")
            assert child.report(60) is None
            child.forget()
            assert not list(tmp_path.iterdir())
        finally:
            process.kill()
