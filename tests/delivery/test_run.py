"""`fer-stream run` starts `fer-stream deliver` for its sinks."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from deliveries import Bench, without_repeats
from faults.service import sound
from processes import wait_for
from single_runs import start

if TYPE_CHECKING:
    from pathlib import Path


def test_the_sinks_of_a_run_get_every_event(bench: Bench, short_folder: Path, clip: Path) -> None:
    bench.settings(file={"sink": "file:out.jsonl", "begin": "now"})
    bench.receive()
    arguments = ("--bind", f"ipc://{short_folder}", "--sink", f"receiver:{bench.port}", "--config", "s.toml")
    run = start(bench.cli, "film", clip, *arguments, **bench.variables)
    run.until_event("emotion.ended", 2)
    deliver = run.child("deliver")
    run.until(lambda: bench.got() and bench.got("out.jsonl"), "events")
    deliver.send_signal(signal.SIGKILL)
    run.until(lambda: run.child("deliver").pid != deliver.pid, "another process")
    run.until_event("emotion.ended", 4)
    assert run.stop() == 0
    sound(run.events)
    assert without_repeats(bench.got()) == run.events
    assert bench.got("out.jsonl") == run.events
    assert bench.cli.left_over(run, short_folder) == []
    again = start(bench.cli, "film", clip, *arguments, **bench.variables)
    again.until_event("emotion.ended")
    assert again.stop() == 0
    assert bench.got("out.jsonl") == [*run.events, *again.events]


def test_a_receiver_that_is_down_does_not_hold_the_run_up(bench: Bench, short_folder: Path, clip: Path) -> None:
    arguments = ("--bind", f"ipc://{short_folder}", "--sink", f"receiver:{bench.port}")
    run = start(bench.cli, "film", clip, *arguments, **bench.variables)
    run.until_event("emotion.ended", 2)
    run.until_said(f"the sink receiver:{bench.port} takes no events and is tried again")
    assert run.stop() == 0
    waits = (
        f"sink receiver:{bench.port}: {len(run.events)} events wait, and are delivered at the next start: the receiver"
    )
    assert waits in run.err
    bench.receive()
    rest = bench.cli.start(*("deliver", "--sink", f"receiver:{bench.port}", "--journal", "film.db"), **bench.variables)
    rest.until(lambda: len(bench.got()) >= len(run.events), "all events")
    assert bench.got() == run.events
    assert rest.stop() == 0


def test_a_sink_that_cannot_be_opened_is_told_before_anything_starts(bench: Bench, clip: Path) -> None:
    run = bench.cli.run("run", f"film={clip}", "--sink", "receiver:x", "--journal", "e.db", **bench.variables)
    assert run.end() == 2
    assert "receiver:x: receiver needs a port, not 'x'" in run.errors[0]
    assert not (bench.folder / "e.db").exists()
    assert bench.cli.claims() == []
    wait_for(lambda: not run.children(), "no child")
