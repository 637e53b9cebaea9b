"""`fer-stream deliver` in real processes: order, receivers that fail, refuse or are gone, and what operators do."""

from __future__ import annotations

import json
import signal
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from deliveries import Bench, ids, without_repeats
from event_receiver import OlderSink
from faults.service import sound
from processes import free_port, wait_for
from single_runs import start

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli, Process


def receiver(bench: Bench, **more: Any) -> dict[str, Any]:
    return {"sink": f"receiver:{bench.port}"} | more


def delivered(bench: Bench, run: Process, events: list[dict[str, Any]], name: str = "got.jsonl") -> None:
    run.until(lambda: len(bench.got(name)) >= len(events), "all events")
    assert bench.got(name) == events


def test_everything_arrives_in_order_and_nothing_again_after_a_restart(bench: Bench) -> None:
    events = bench.journal("door", "yard", events=600)
    bench.settings(main=receiver(bench), file={"sink": "file:out.jsonl"})
    bench.receive()
    run = bench.deliver()
    delivered(bench, run, events)
    delivered(bench, run, events, "out.jsonl")
    assert run.stop() == 0
    again = bench.deliver()
    events += bench.journal("door", events=3, first=601)[-3:]
    delivered(bench, again, events)
    delivered(bench, again, events, "out.jsonl")
    assert again.stop() == 0
    states = bench.states()
    assert {name: (one["state"], one["delivered"], one["cursor"]) for name, one in states.items()} == {
        name: ("ok", len(events), events[-1]["cursor"]) for name in ("main", "file")
    }


def test_a_receiver_that_is_down_delays_nobody_else_and_catches_up(bench: Bench) -> None:
    events = bench.journal("door", events=300)
    bench.settings(main=receiver(bench), file={"sink": "file:out.jsonl"})
    run = bench.deliver()
    delivered(bench, run, events, "out.jsonl")
    run.until_said("the sink main takes no events and is tried again: the receiver cannot be reached")
    assert bench.states()["main"] | {"state": "failing", "delivered": 0, "cursor": "0"} == bench.states()["main"]
    assert not bench.got()
    first = bench.receive()
    bench.manage("retry", "main")
    delivered(bench, run, events)
    first.signal(signal.SIGKILL)
    first.end()
    events += bench.journal("door", events=10, first=301)[-10:]
    delivered(bench, run, events, "out.jsonl")
    bench.receive()
    bench.manage("retry", "main")
    run.until(lambda: len(without_repeats(bench.got())) == len(events), "all events")
    assert without_repeats(bench.got()) == events
    run.until_said("the sink main takes events again")
    assert run.stop() == 0


def test_refused_events_become_dead_letters_and_can_be_sent_again(bench: Bench) -> None:
    events = bench.journal("door", events=200)
    bad = [events[3]["id"], events[150]["id"], events[199]["id"]]
    bench.order(refuse=bad)
    bench.settings(main=receiver(bench))
    bench.receive()
    run = bench.deliver()
    delivered(bench, run, [event for event in events if event["id"] not in bad])
    wait_for(lambda: bench.states()["main"]["dead_letters"] == 3, "three dead letters")
    assert ids(bench.manage("status", "main", "--format", "jsonl").events) == bad
    assert "too ugly" in bench.manage("status", "main", bad[0]).out
    bench.order(refuse=bad[1:])
    bench.manage("retry", "main", bad[0])
    wait_for(lambda: ids(bench.got()).count(bad[0]), "the first dead letter")
    assert "1 dead letter deleted" in bench.manage("discard", "main", bad[1]).out
    bench.manage("retry", "main")
    wait_for(lambda: not bench.manage("status", "main", bad[0]).out.startswith("id"), "a dead letter that has gone")
    bench.order()
    bench.manage("retry", "main")
    wait_for(lambda: ids(bench.got()).count(bad[2]), "the last dead letter")
    wait_for(lambda: bench.states()["main"]["dead_letters"] == 0, "no dead letters")
    assert bench.states()["main"]["delivered"] == 199
    assert run.stop() == 0
    assert sorted(ids(bench.got())) == sorted(set(ids(events)) - {bad[1]})


def test_a_sink_that_has_stopped_goes_on_when_told(bench: Bench) -> None:
    events = bench.journal("door", events=60)
    bench.order(fatal="410 Gone")
    bench.settings(main=receiver(bench), file={"sink": "file:out.jsonl"})
    bench.receive()
    run = bench.deliver()
    run.until_said("the sink main has stopped; nothing is lost: 410 Gone; then run fer-stream deliver retry 'main'")
    delivered(bench, run, events, "out.jsonl")
    assert bench.states()["main"]["state"] == "stopped"
    bench.order()
    assert bench.manage("retry", "main").out == "main: 0 dead letters and all events that wait will be sent now\n"
    delivered(bench, run, events)
    wait_for(lambda: bench.states()["main"]["state"] == "ok", "a sink that is well")
    assert run.stop() == 0


def test_the_operator_skips_what_is_in_the_way(bench: Bench) -> None:
    events = bench.journal("door", events=120)
    bench.order(retry="the database is read-only")
    bench.settings(main=receiver(bench))
    bench.receive()
    run = bench.deliver()
    run.until_said("the database is read-only")
    bench.manage("skip", "main", events[0]["id"])
    wait_for(lambda: bench.states()["main"]["error"] and not bench.got(), "a failure")
    bench.manage("skip", "main")
    bench.order()
    run.until(lambda: len(bench.got()) >= 70, "the rest")
    wait_for(lambda: bench.states()["main"]["cursor"] == "120", "the end")
    letters = bench.manage("status", "main", "--format", "jsonl").events
    assert ids([*letters, *bench.got()]) == ids(events)
    assert letters[0]["reason"] == "skipped by the operator; before: the database is read-only"
    assert run.stop() == 0


def test_the_doctor_asks_the_sinks_or_the_process_that_serves_them(bench: Bench) -> None:
    events = bench.journal("door", events=60)
    bench.order(fatal="410 Gone")
    bench.settings(main=receiver(bench), file={"sink": "file:out.jsonl"})
    bench.receive()

    def findings() -> list[str]:
        run = bench.cli.run("doctor", "--config", "s.toml", "--journal", "e.db", **bench.variables)
        return [line for line in run.out.splitlines() if "sink " in line]

    where = f"receiver:{bench.port}"
    assert findings() == [
        f"ok    sink main: {where} can be opened; its receiver was not asked",
        "ok    sink file: file:out.jsonl is ready",
    ]
    assert not (bench.folder / "out.jsonl").exists()
    run = bench.deliver()
    delivered(bench, run, events, "out.jsonl")
    run.until(lambda: bench.states()["file"]["delivered"] == 60, "the record")
    run.until_said("the sink main has stopped")
    assert findings() == [
        "fail  sink main has stopped: 410 Gone; then run fer-stream deliver retry 'main'",
        "ok    sink file: fer-stream deliver runs, and has delivered 60 events",
    ]
    assert run.stop() == 0


def test_filters(bench: Bench) -> None:
    events = bench.journal("door", "yard", events=100)
    bench.settings(
        main=receiver(bench, cameras=["yard"]), none=receiver(bench, types=["emotion"]), all={"sink": "file:out.jsonl"}
    )
    bench.receive()
    run = bench.deliver()
    delivered(bench, run, events, "out.jsonl")
    delivered(bench, run, [event for event in events if event["source"] == "/cameras/yard"])
    wait_for(lambda: {one["cursor"] for one in bench.states().values()} == {"200"}, "all cursors")
    states = bench.states()
    assert {name: (one["delivered"], one["filtered"]) for name, one in states.items()} == {
        "main": (100, 100),
        "none": (0, 200),
        "all": (200, 0),
    }
    assert run.stop() == 0


def test_a_new_sink_begins_with_the_next_event(bench: Bench) -> None:
    bench.journal("door", events=50)
    bench.settings(main={"sink": "file:out.jsonl", "begin": "now"})
    run = bench.deliver("--sink", "file:other.jsonl")
    record = bench.folder / "e.db.deliveries.db"
    wait_for(lambda: record.exists() and len(bench.states()) == 2, "two sinks")
    assert {one["cursor"] for one in bench.states().values()} == {"50"}
    events = bench.journal("door", events=5, first=51)[-5:]
    delivered(bench, run, events, "out.jsonl")
    delivered(bench, run, events, "other.jsonl")
    assert run.stop() == 0


def test_after_a_cursor_of_another_journal_everything_follows(bench: Bench) -> None:
    events = bench.journal("door", events=20)
    bench.settings(main={"sink": "file:out.jsonl", "begin": "now"})
    run = bench.deliver("--from", 1000)
    run.until(lambda: len(bench.got("out.jsonl")) == 21, "a gap and all events")
    gap, *others = bench.got("out.jsonl")
    assert others == events
    assert gap["data"] == {"from": "1000", "to": "0", "reason": "another journal"}
    assert bench.states()["main"]["cursor"] == "20"
    assert run.stop() == 0


def test_what_a_new_sink_waits_for_is_in_the_log(bench: Bench) -> None:
    bench.settings(main={"sink": "file:out.jsonl", "begin": "now"})
    run = bench.deliver()
    run.until_said("main cannot begin yet: there is no journal at e.db")
    bench.journal("door", events=5)
    wait_for(lambda: bench.states()["main"]["cursor"] == "5", "the sink's beginning")
    assert run.stop() == 0


def test_a_record_that_is_moved_away_is_reported(bench: Bench) -> None:
    bench.journal("door", events=5)
    bench.settings(main={"sink": "file:out.jsonl"})
    run = bench.deliver()
    run.until(lambda: len(bench.got("out.jsonl")) == 5, "all events")
    (bench.folder / "e.db.deliveries.db").rename(bench.folder / "away.db")
    run.until_said("the record of deliveries e.db.deliveries.db was moved or deleted")
    assert run.stop() == 0


def test_a_sink_of_the_older_contract_gets_every_event_once(bench: Bench) -> None:
    events = bench.journal("door", events=12)
    bench.settings(main={"sink": "older:ids"})
    run = bench.deliver()

    def done() -> bool:
        bench.manage("retry", "main")  # otherwise the pauses grow
        return (bench.folder / "ids").exists() and len((bench.folder / "ids").read_text().splitlines()) >= 12

    wait_for(lambda: (bench.folder / "e.db.deliveries.db").exists() and bench.states(), "the sink")
    run.until(done, "all events")
    assert (bench.folder / "ids").read_text().splitlines() == ids(events)
    assert "secret" not in run.err
    assert run.stop() == 0
    assert OlderSink.__doc__


def test_metrics(bench: Bench) -> None:
    events = bench.journal("door", events=100)
    bench.order(refuse=[events[5]["id"]])
    bench.settings(main=receiver(bench), dead={"sink": "receiver:1"})
    bench.receive()
    port = free_port()
    run = bench.deliver("--metrics", f"127.0.0.1:{port}")
    delivered(bench, run, events[:5] + events[6:])

    def page() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line.startswith("fer_stream_deliver")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    run.until(lambda: page().get('fer_stream_delivery_lag_events{sink="dead"}') == 100, "a lag")
    run.until(lambda: page().get('fer_stream_delivery_lag_seconds{sink="dead"}', 0) > 0, "a lag in seconds")
    run.until(lambda: page().get('fer_stream_delivery_dead_letters{sink="main"}') == 1, "a dead letter")
    run.until(lambda: page()['fer_stream_delivery_retries_total{sink="dead"}'] > 0, "a retry")
    found = page()
    assert found['fer_stream_delivery_lag_events{sink="main"}'] == 0
    assert found['fer_stream_delivery_lag_seconds{sink="main"}'] == 0
    assert found['fer_stream_deliveries_total{outcome="delivered",sink="main"}'] == 99
    assert found['fer_stream_deliveries_total{outcome="rejected",sink="main"}'] == 1
    assert found['fer_stream_deliveries_total{outcome="delivered",sink="dead"}'] == 0
    assert run.stop() == 0


def test_from_a_running_service(bench: Bench, cli: Cli, short_folder: Path, clip: Path) -> None:
    address = f"ipc://{short_folder}"
    bench.settings(main=receiver(bench), file={"sink": "file:out.jsonl"})
    run = start(cli, "film", clip, "--bind", address)
    deliver = cli.start("deliver", "--config", "s.toml", "--connect", address, **bench.variables)
    run.until_event("emotion.ended", 2)
    deliver.until(lambda: len(bench.got("out.jsonl")) >= len(run.events), "all events in the file")
    assert not bench.got()
    bench.receive()
    run.until_event("emotion.ended", 4)
    deliver.until(lambda: len(bench.got()) >= len(run.events), "all events at the receiver")
    assert deliver.stop() == 0
    assert run.stop() == 0
    sound(run.events)
    for found in (without_repeats(bench.got()), bench.got("out.jsonl")):
        assert found == run.events[: len(found)]


@pytest.mark.parametrize(
    ("settings", "arguments", "said", "code"),
    [
        ({}, (), "there is no sink to deliver to: give --sink NAME:ARGUMENT, or a table deliver.NAME", 2),
        (
            {"a": {"sink": "nothing:x"}},
            (),
            "a: there is no sink 'nothing'; installed are: file, ",
            2,
        ),
        ({"a": {"sink": "receiver:x"}}, (), "a: receiver needs a port, not 'x'", 2),
        ({"a": {"sink": "stdout:jsonl"}}, (), "a: events are not delivered to standard output; fer-stream run and", 2),
        (
            {"a": {"sink": "file:no/where.jsonl"}},
            (),
            "'no/where.jsonl': No such file or directory; make its folder, or give another path",
            1,
        ),
        ({"a": {"sink": "older:x", "options": {"x": 1}}}, (), "a: the sink older has no options", 2),
        ({}, ("--sink", "file:a", "--sink", "file:a"), "there are two sinks file:a", 2),
        ({}, ("--sink", ":a"), "':a' is not a sink: give NAME:ARGUMENT", 2),
        ({}, ("status",), "there is no record of deliveries at e.db.deliveries.db: start fer-stream deliver first", 1),
        ({}, ("status", "--sink", "file:a"), "deliver status takes a sink's name, and no --sink", 2),
    ],
)
def test_bad_input(settings: dict[str, Any], arguments: tuple[str, ...], said: str, code: int, bench: Bench) -> None:
    bench.settings(**settings)
    run = bench.deliver(*arguments)
    assert run.end() == code
    assert "Traceback" not in run.err
    (error,) = run.errors
    assert said in error


def test_commands_with_names_that_are_none(bench: Bench) -> None:
    bench.journal("door", events=3)
    bench.settings(main={"sink": "file:out.jsonl"})
    run = bench.deliver()
    run.until(lambda: len(bench.got("out.jsonl")) == 3, "all events")
    for arguments, said in (
        (("retry",), "which sink? there are: main"),
        (("skip", "other"), "there is no sink 'other' in e.db.deliveries.db; there are: main"),
        (("retry", "main", "x"), "main has no dead letter 'x': fer-stream deliver status 'main' lists them"),
    ):
        (error,) = bench.manage(*arguments).errors
        assert said in error
    second = bench.deliver()
    assert second.end() == 1
    assert "e.db.deliveries.db is in use by another fer-stream deliver" in second.errors[0]
    assert json.loads(bench.manage("status", "--format", "jsonl").out)["state"] == "ok"
    assert run.stop() == 0


def test_the_operator_is_told_whether_a_process_delivers(bench: Bench) -> None:
    bench.journal("door", events=3)
    bench.settings(main={"sink": "file:out.jsonl"})
    ended = "no fer-stream deliver runs now; this is how far the sinks were when it ended"
    run = bench.deliver()
    run.until_said("delivers to main")
    run.until(lambda: len(bench.got("out.jsonl")) == 3, "all events")
    assert ended not in bench.manage("status").out
    assert run.stop() == 0
    assert bench.manage("status").out.splitlines()[-1] == ended
    later = (
        "main: 0 dead letters and all events that wait will be sent when fer-stream deliver serves this sink; none does"
    )
    assert bench.manage("retry", "main").out == f"{later} now\n"
    bench.settings(other={"sink": "file:other.jsonl"})
    run = bench.deliver()
    run.until(lambda: len(bench.got("other.jsonl")) == 3, "all events for the other sink")
    wait_for(lambda: bench.states()["other"]["state"] == "ok", "the record")
    assert bench.states()["main"]["state"] == "idle"
    assert "serves this sink; none does now" in bench.manage("retry", "main").out
    assert run.stop() == 0
    bench.settings(main={"sink": "file:out.jsonl"})
    run = bench.deliver()
    wait_for(lambda: bench.states()["main"]["state"] == "ok", "a sink that is served again")
    assert run.stop() == 0
    (error,) = bench.manage("skip", "main").errors
    assert "no fer-stream deliver serves main now, so it waits at no batch to skip" in error


def test_a_wrong_argument_is_told_before_a_service_is_awaited(bench: Bench) -> None:
    run = bench.cli.start("deliver", "--sink", "receiver:x", **bench.variables)
    assert run.end() == 2
    assert "receiver:x: receiver needs a port, not 'x'" in run.errors[0]


def test_a_sink_that_was_removed_is_forgotten(bench: Bench) -> None:
    bench.journal("door", events=3)
    bench.settings(main={"sink": "file:out.jsonl"}, other={"sink": "file:other.jsonl"})
    run = bench.deliver()
    run.until(lambda: len(bench.got("out.jsonl")) == len(bench.got("other.jsonl")) == 3, "all events")
    (error,) = bench.manage("forget", "other").errors
    assert "other is served by a fer-stream deliver: remove it from the settings" in error
    assert run.stop() == 0
    assert bench.manage("forget", "other").out == (
        "other is forgotten, with 0 dead letters; under this name a sink begins anew\n"
    )
    assert bench.states().keys() == {"main"}


def test_a_service_that_is_started_again_at_another_address_is_found(
    bench: Bench, cli: Cli, short_folder: Path, clip: Path
) -> None:
    """As after a crash: the address of the killed run may still be in use, so the next one takes another."""
    first = start(cli, "film", clip, "--bind", f"ipc://{short_folder}")
    deliver = cli.start("deliver", "--sink", "file:out.jsonl")
    deliver.until_said("has delivered nothing yet")
    first.until_event("emotion.ended", 2)
    first.kill()
    second = start(cli, "film", clip)
    second.until_event("emotion.ended", 2)
    deliver.until(lambda: bench.got("out.jsonl")[-1:] == second.events[-1:], "the newest event")
    assert second.stop() == 0
    assert deliver.stop() == 0
    journaled = cli.run("subscribe", "--journal", "film.db", "--format", "jsonl").events
    got = bench.got("out.jsonl")
    assert got == journaled[journaled.index(got[0]) :][: len(got)], "none is missing, none comes twice"
