"""`fer-stream run` in real processes: several runs at once, and failing sinks, readers, terminals and children."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from faults.service import sound, standing, stored
from processes import PATIENCE, balanced, free_port, gapless, unclosed, wait_for

from fer_stream import client
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli, Process

PLUGINS = '''
"""Failing plug-ins: a detector and a source that crash, a sink that raises, and a sink that never returns."""
import os, signal, time
from pathlib import Path
from fer_stream.sources.demo import open_source as demo

class Crashing:
    def __init__(self, settings): pass
    def detect(self, image): os.kill(os.getpid(), signal.SIGSEGV)

class Breaking:
    live, frames, left = True, None, 3
    def __init__(self, settings): self._demo = demo("demo", settings)
    def read(self):
        self.left -= 1
        if not self.left: os.kill(os.getpid(), signal.SIGSEGV)
        return self._demo.read()
    def close(self): pass

class Raising:
    def __init__(self, argument): self._writes, self._file = 0, open(argument, "a")
    def write(self, event, text):
        self._writes += 1
        if self._writes % 2: raise ValueError("rtsp://user:secret@h does not fit")
        self._file.write(text + "\\n")
        self._file.flush()
    def close(self): raise RuntimeError("not even this")

class Stuck:
    def __init__(self, argument):
        self.opens = argument == "open"
        while self.opens: time.sleep(1)
    def write(self, event, text):
        while True: time.sleep(1)
    def close(self): pass

def crashing(settings): return Crashing(settings)
def breaking(address, settings): return Breaking(settings)
def raising(argument): return Raising(argument)
def stuck(argument): return Stuck(argument)
'''

ENTRIES = """
[fer_stream.detectors]
crashing = failing:crashing
[fer_stream.sources]
breaking = failing:breaking
[fer_stream.sinks]
raising = failing:raising
stuck = failing:stuck
"""


@pytest.fixture
def plugins(tmp_path: Path) -> dict[str, str]:
    """The environment variables with which the failing plug-ins are installed."""
    about = tmp_path / "plug-in" / "failing-1.0.dist-info"
    about.mkdir(parents=True)
    (tmp_path / "plug-in" / "failing.py").write_text(PLUGINS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: failing\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    return {"PYTHONPATH": str(tmp_path / "plug-in")}


def start(cli: Cli, name: str, source: object, *more: object, **environment: str) -> Process:
    """Start a run of one camera, without an address."""
    return cli.start(
        *("run", f"{name}={source}", "--loop", "--format", "jsonl", "--workers", 1, "--journal", f"{name}.db"),
        *("--summary", f"{name}.json", *more),
        **environment,
    )


def addresses(process: Process) -> str:
    """Return the address in the log of the run's aggregator, or an empty text before it is logged."""
    lines = [json.loads(line) for line in process.err.splitlines() if '"ready at ' in line]
    return str(lines[-1]["message"]).removeprefix("ready at ") if lines else ""


# Side by side


def test_two_runs_of_one_user_have_nothing_to_do_with_each_other(cli: Cli, clip: Path) -> None:
    a, b = (start(cli, name, clip) for name in "ab")
    for run in (a, b):
        run.until_event("emotion.ended")
    for command in (("status",), ("subscribe", "--from", 0), ("subscribe", "--from", 0, "--until-now"), ("live",)):
        several = cli.run(*command)
        assert several.popen.returncode == 2
        (message,) = several.errors
        assert "2 services of yours run here" in message
        assert f"{addresses(a)} (cameras a; process {a.pid})" in message
        assert f"{addresses(b)} (cameras b; process {b.pid})" in message
        assert "choose one with --connect ADDRESS" in message
    chosen = cli.run("subscribe", "--connect", addresses(b), "--from", 0, "--until-now", "--format", "jsonl")
    assert {event["source"] for event in chosen.events} == {"/cameras/b"}
    assert a.stop() == 0
    wait_for(lambda: cli.run("status").popen.returncode == 0, "the status of the only remaining run")
    alone = cli.run("status", "--format", "jsonl")
    assert json.loads(alone.out)["cameras"].keys() == {"b"}
    python = (
        "import fer_stream, itertools\nwith fer_stream.subscribe(after=0) as events: print(next(iter(events)).camera)"
    )
    asked = subprocess.run(
        [sys.executable, "-c", python], env=cli.environment, capture_output=True, text=True, check=True
    )
    assert asked.stdout == "b\n"
    assert b.stop() == 0
    assert cli.claims() == []
    for name, run in (("a", a), ("b", b)):
        assert {event["source"] for event in run.events} == {f"/cameras/{name}"}
        sound(run.events)
        ledgers = json.loads((cli.folder / f"{name}.json").read_text())["cameras"]
        assert ledgers.keys() == {name}
        assert balanced(ledgers[name])


def test_two_runs_with_one_journal_or_one_address(cli: Cli, clip: Path, short_folder: Path) -> None:
    address = f"ipc://{short_folder}"
    first = start(cli, "a", clip, "--bind", address)
    first.until_event("camera.online")
    begin = {path: path.stat().st_mtime_ns for path in short_folder.iterdir()}
    second = cli.run("run", f"b={clip}", "--workers", 1, "--bind", address, "--journal", "b.db")
    assert second.popen.returncode == 1
    assert f"{address} is in use by another aggregator" in second.errors[0]
    assert not (cli.folder / "b.db").exists(), "nothing was started"
    assert {path: path.stat().st_mtime_ns for path in short_folder.iterdir()} == begin
    third = cli.run("run", f"b={clip}", "--workers", 1, "--journal", "a.db")
    assert third.popen.returncode == 1
    assert "a.db" in third.errors[0]
    assert first.stop() == 0
    assert {event["source"] for event in stored(cli, "a.db")} == {"/cameras/a"}


def test_a_run_that_was_killed_is_not_found_and_the_next_clears_up(cli: Cli, clip: Path) -> None:
    run = start(cli, "a", clip)
    run.until_event("camera.online")
    address = addresses(run)
    run.children()
    run.popen.kill()
    run.popen.wait()
    dead = cli.run("status")
    assert dead.popen.returncode == 1
    assert "no service of yours runs on this machine: start one, or give its address with --connect" in dead.errors[0]
    wait_for(lambda: not run.children(), "the end of the run's children")
    again = start(cli, "a", clip)
    again.until(lambda: addresses(again), "the same address")
    assert addresses(again) == address
    again.until_event("camera.online")
    assert again.stop() == 0
    assert cli.claims() == []


def test_roles_that_are_started_by_hand_meet_beside_a_run(cli: Cli, clip: Path) -> None:
    run = start(cli, "a", clip)
    run.until_event("camera.online")
    roles = [
        cli.start("worker"),
        cli.start("capture", clip, "--camera", "b", "--loop"),
        cli.start("aggregator", "--journal", "b.db"),
    ]
    wait_for(
        lambda: "camera b is here" in roles[2].err and "worker" in roles[2].err,
        "the worker and the capture at the aggregator",
    )
    several = cli.run("status")
    assert several.popen.returncode == 2
    assert "2 services of yours run here" in several.errors[0]
    assert run.stop() == 0
    assert json.loads(cli.run("status", "--format", "jsonl").out)["cameras"].keys() == {"b"}
    for role in roles:
        assert role.stop() == 0
    assert json.loads((cli.folder / "a.json").read_text())["cameras"].keys() == {"a"}


def test_subscribe_waits_for_the_first_service(cli: Cli, clip: Path) -> None:
    subscriber = cli.start("subscribe", "--from", 0, "--format", "jsonl")
    subscriber.until_said("no service of yours runs on this machine yet")
    run = start(cli, "a", clip)
    subscriber.until_event("camera.online")
    assert run.stop() == 0
    again = start(cli, "a", clip)
    subscriber.until_event("camera.online", 2)
    assert again.stop() == subscriber.stop() == 0


# Sinks and readers


def sinks(address: str) -> dict[str, Any]:
    found: dict[str, Any] = (standing(address) or {"sinks": {}})["sinks"]
    return found


def readiness(port: int) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return {"code": answer.status} | json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return {"code": error.code} | json.load(error)
    except OSError:  # the server does not listen yet
        return {"code": 0}


def unread() -> tuple[int, int]:
    """Return the reading and the writing end of a pipe that is full after 4096 bytes."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    return ours, theirs


def buffered(pipe: int) -> int:
    """Return the number of unread bytes in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
def test_nobody_reads(both: bool, cli: Cli, short_folder: Path, clip: Path) -> None:
    address, port = f"ipc://{short_folder}", free_port()
    ours, theirs = unread()
    other, others = unread()
    command = [
        *(sys.executable, "-m", "fer_stream", "run", f"film={clip}", "--loop", "--format", "jsonl", "--workers", "2"),
        *("--journal", "e.db", "--bind", address, "--metrics", f"127.0.0.1:{port}", "--summary", "s.json"),
        *("--log-level", "debug"),
    ]
    with (cli.folder / "err").open("wb") as err:
        run = subprocess.Popen(
            command, stdout=theirs, stderr=others if both else err, env=cli.environment, cwd=cli.folder
        )
    os.close(theirs)
    os.close(others)

    def status() -> dict[str, Any]:
        found: dict[str, Any] = wait_for(lambda: standing(address), "a status", lambda: run.poll() is None)
        return found

    try:
        wait_for(lambda: sinks(address).get("stdout:jsonl", {}).get("state") == "stuck", "a full pipe")
        old = wait_for(lambda: status()["workers"].get("1", {}).get("pid"), "worker 1")
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: status()["workers"].get("1", {}).get("pid") not in (None, old), "a new worker 1")
        wait_for(lambda: readiness(port)["code"] == 200, "readiness")
        run.send_signal(signal.SIGTERM)
        assert run.wait(PATIENCE) == 1
    finally:
        run.kill()
        run.wait()
    with os.fdopen(ours) as reader:
        seen = [json.loads(line) for line in reader.read().splitlines(keepends=True) if line.endswith("\n")]
    os.close(other)
    summary = json.loads((cli.folder / "s.json").read_text())
    everything = stored(cli, "e.db")
    assert seen == everything[: len(seen)]
    sink = summary["sinks"]["stdout:jsonl"]
    assert sink["delivered"] + sink["undelivered"] == sum(summary["events"].values()) == len(everything)
    assert sink["undelivered"] > 0
    sound(everything)
    assert cli.left_over(Dead, short_folder) == []  # type: ignore[arg-type]
    if not both:
        text = (cli.folder / "err").read_text()
        assert f"fer-stream: error: stdout:jsonl: {sink['undelivered']} of " in text
        assert "events were not delivered: it did not take them in time" in text


class Dead:
    """Stands for a process that has ended and has no children."""

    @staticmethod
    def children() -> list[object]:
        return []


def test_a_reader_who_comes_back_gets_every_event(cli: Cli, short_folder: Path, clip: Path) -> None:
    address = f"ipc://{short_folder}"
    ours, theirs = unread()
    command = [
        *(sys.executable, "-m", "fer_stream", "run", f"film={clip}", "--loop", "--format", "jsonl", "--workers", "1"),
        *("--journal", "e.db", "--bind", address),
    ]
    run = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=cli.environment, cwd=cli.folder)
    os.close(theirs)
    try:
        wait_for(lambda: sinks(address).get("stdout:jsonl", {}).get("behind", 0) > 5, "a sink that is behind")
        run.send_signal(signal.SIGINT)
        with os.fdopen(ours) as reader:
            events = [json.loads(line) for line in reader]
        assert run.wait(PATIENCE) == 0
    finally:
        run.kill()
        run.wait()
    assert events == stored(cli, "e.db")


def test_a_film_that_ends_waits_for_who_reads_it_page_by_page(cli: Cli, short_folder: Path, clip: Path) -> None:
    ours, theirs = unread()
    command = [
        *(sys.executable, "-m", "fer_stream", "run", f"film={clip}", f"again={clip}", "--format", "jsonl"),
        *("--workers", "1", "--policy", "wait", "--journal", "e.db", "--bind", f"ipc://{short_folder}"),
    ]
    run = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=cli.environment, cwd=cli.folder)
    os.close(theirs)
    wait_for(
        lambda: not short_folder.joinpath("control").exists() and (cli.folder / "e.db").exists(),
        "the end of the aggregator",
    )
    with os.fdopen(ours) as reader:
        events = [json.loads(line) for line in reader]
    assert run.wait(PATIENCE) == 0
    assert run.stderr is not None
    run.stderr.close()
    assert events == stored(cli, "e.db")
    assert gapless(events)
    assert not unclosed(events)


def test_a_sink_that_raises_stops_nobody_and_is_told(
    cli: Cli, short_folder: Path, clip: Path, plugins: dict[str, str]
) -> None:
    port, address = free_port(), f"ipc://{short_folder}"
    run = start(
        *(cli, "film", clip, "--bind", address, "--sink", "raising:half.jsonl", "--sink", "file:/dev/full"),
        *("--sink", "file:all.jsonl", "--metrics", f"127.0.0.1:{port}"),
        **plugins,
    )
    run.until_event("emotion.ended", 2)
    known = wait_for(lambda: sinks(address), "sinks in the status")
    assert known.keys() == {"stdout:jsonl", "raising:half.jsonl", "file:/dev/full", "file:all.jsonl"}
    run.until(lambda: sinks(address)["file:/dev/full"]["undelivered"] > 5, "more undelivered events")
    known = sinks(address)
    assert known["file:/dev/full"] | {"state": "failing", "delivered": 0} == known["file:/dev/full"]
    assert known["file:/dev/full"]["error"] == "events cannot be written to '/dev/full': No space left on device"
    assert known["file:all.jsonl"]["state"] == known["stdout:jsonl"]["state"] == "ok"
    shown = cli.run("status", "--connect", address).out
    assert "No space left on device" in shown
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'fer_stream_sink_events_undelivered_total{sink="file:all.jsonl"} 0.0' in text
    assert 'fer_stream_sink_events_undelivered_total{sink="file:/dev/full"} 0.0' not in text
    assert run.stop() == 1
    events = run.events
    sound(events)
    assert (cli.folder / "all.jsonl").read_text() == run.out
    assert len((cli.folder / "half.jsonl").read_text().splitlines()) == len(events) // 2
    (error,) = run.errors
    assert f"file:/dev/full: {len(events)} of {len(events)} events were not delivered: events cannot be" in error
    assert "raising:half.jsonl: " in error
    assert "the sink raising:half.jsonl did not take an event, and the run goes on: ValueError" in run.err
    assert "secret" not in run.err
    summary = json.loads((cli.folder / "film.json").read_text())
    assert summary["sinks"]["file:all.jsonl"] == {"delivered": len(events), "undelivered": 0, "error": ""}
    assert balanced(summary["cameras"]["film"])


@pytest.mark.parametrize("sink", ["stuck:write", "stuck:open", "file:pipe"])
def test_a_sink_that_never_comes_back_delays_nothing(
    sink: str, cli: Cli, short_folder: Path, clip: Path, plugins: dict[str, str]
) -> None:
    os.mkfifo(cli.folder / "pipe")
    run = start(cli, "film", clip, "--bind", f"ipc://{short_folder}", "--sink", sink, **plugins)
    run.until_event("emotion.ended", 2)
    run.until_said(f"the sink {sink} has taken no event for 10 s")
    assert run.stop() == 1
    sound(run.events)
    (error,) = run.errors
    assert f"{sink}: {len(run.events)} of {len(run.events)} events were not delivered" in error
    assert cli.left_over(run, short_folder) == []


def test_a_pipe_gets_its_events_when_somebody_reads(cli: Cli, short_folder: Path, clip: Path) -> None:
    os.mkfifo(cli.folder / "pipe")
    run = start(cli, "film", clip, "--bind", f"ipc://{short_folder}", "--sink", "file:pipe")
    run.until_event("emotion.ended")
    with (cli.folder / "pipe").open() as reader:
        first = json.loads(reader.readline())
        run.signal(signal.SIGTERM)
        rest = [json.loads(line) for line in reader]
    assert run.end() == 0
    assert [first, *rest] == run.events


def test_a_sink_that_cannot_be_opened_is_told_before_anything_starts(cli: Cli, clip: Path) -> None:
    run = cli.run("run", f"film={clip}", "--sink", "file:nowhere/e.jsonl", "--journal", "e.db")
    assert run.popen.returncode == 1
    assert "events cannot be written to 'nowhere/e.jsonl': No such file or directory" in run.errors[0]
    assert not (cli.folder / "e.db").exists()
    assert cli.claims() == []


# Readiness


def test_a_stale_status_is_not_readiness(cli: Cli, short_folder: Path, clip: Path) -> None:
    port = free_port()
    run = start(cli, "film", clip, "--bind", f"ipc://{short_folder}", "--metrics", f"127.0.0.1:{port}")
    run.until(lambda: readiness(port)["code"] == 200, "readiness")
    run.child("aggregator").suspend()
    run.until(lambda: readiness(port).get("missing") == "an answer from the aggregator", "an outdated status")
    run.until(lambda: readiness(port)["code"] == 200, "a new aggregator")
    assert run.stop() == 0


@pytest.mark.parametrize("who", ["worker 1", "capture film"])
def test_who_keeps_crashing_is_started_ever_later(
    who: str, cli: Cli, short_folder: Path, clip: Path, plugins: dict[str, str]
) -> None:
    port = free_port()
    (cli.folder / "plug-in.toml").write_text('[cameras.film]\nplugin = "breaking"\n')
    how = ("--detector", "crashing") if who == "worker 1" else ("--config", "plug-in.toml")
    source = clip if who == "worker 1" else "x"
    run = start(
        *(cli, "film", source, *how, "--bind", f"ipc://{short_folder}", "--metrics", f"127.0.0.1:{port}"), **plugins
    )
    run.until_said(f"{who} is started again in 4 s")
    assert f"{who} keeps failing" in readiness(port)["missing"]
    pauses = [
        line.split(f"{who} is started again in ")[1].split(" s")[0]
        for line in run.err.splitlines()
        if f"{who} is st" in line
    ]
    assert pauses[-3:] == ["1", "2", "4"]
    assert run.stop() == 0


# Cameras whose source ends


def test_a_camera_that_has_ended_leaves_status_and_metrics_and_stays_in_the_summary(
    cli: Cli, short_folder: Path, clip: Path
) -> None:
    port, address = free_port(), f"ipc://{short_folder}"
    (cli.folder / "two.toml").write_text(
        f'[cameras.stays]\nsource = "{clip}"\nloop = true\n[cameras.goes]\nsource = "{clip}"\n'
    )
    run = cli.start(
        *("run", "--config", "two.toml", "--workers", 1, "--bind", address, "--journal", "e.db", "--format", "jsonl"),
        *("--metrics", f"127.0.0.1:{port}", "--summary", "s.json"),
        FER_STREAM_DISPATCH__FORGET_AFTER="1",
    )

    def metrics() -> str:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())
        return ""

    run.until(lambda: 'fer_stream_camera_online{camera="goes"} 1' in metrics(), "both cameras")
    run.until(lambda: (standing(address) or {"cameras": {"goes": 1}})["cameras"].keys() == {"stays"}, "one camera")
    run.until(lambda: 'camera="goes"' not in metrics(), "the removal of the camera's series")
    assert 'fer_stream_camera_online{camera="stays"} 1' in metrics()
    assert readiness(port)["code"] == 200
    assert run.stop() == 0
    ledgers = json.loads((cli.folder / "s.json").read_text())["cameras"]
    assert ledgers["goes"]["captured"] == ledgers["goes"]["done"] + ledgers["goes"]["superseded"] == 60
    assert ledgers["stays"]["captured"] > 0


# Terminals


def test_a_terminal_that_is_closed_ends_a_run_in_order(cli: Cli, short_folder: Path, clip: Path) -> None:
    ours, theirs = pty.openpty()
    command = [
        *("setsid", "--ctty", sys.executable, "-m", "fer_stream", "run", f"film={clip}", "--loop", "--workers", "1"),
        *("--journal", "e.db", "--bind", f"ipc://{short_folder}", "--summary", "s.json"),
    ]
    run = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=cli.environment, cwd=cli.folder)
    os.close(theirs)
    shown = b""
    while b"emotion ended" not in shown:
        shown += os.read(ours, 4096)
    os.close(ours)
    assert run.wait(PATIENCE) == 0
    assert balanced(json.loads((cli.folder / "s.json").read_text())["cameras"]["film"])
    sound(stored(cli, "e.db"))
    assert cli.left_over(Dead, short_folder) == []  # type: ignore[arg-type]


def test_under_nohup_it_goes_on(cli: Cli, clip: Path) -> None:
    cli.under = ("nohup",)
    run = start(cli, "a", clip)
    run.until_event("camera.online")
    run.signal(signal.SIGHUP)
    seen = len(run.events)
    run.until(lambda: len(run.events) > seen + 3, "more events")
    assert run.stop() == 0


def test_a_subscriber_whom_nobody_reads_ends_when_told(cli: Cli, short_folder: Path, clip: Path) -> None:
    address = f"ipc://{short_folder}"
    start(cli, "film", clip, "--bind", address).until_event("emotion.ended", 3)
    ours, theirs = unread()
    command = [
        sys.executable,
        "-m",
        "fer_stream",
        "subscribe",
        "--from",
        "0",
        "--format",
        "jsonl",
        "--connect",
        address,
    ]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=cli.environment) as subscriber:
        os.close(theirs)
        wait_for(lambda: buffered(ours) > 2000, "a pipe that is nearly full, so that the next writes block")
        subscriber.send_signal(signal.SIGTERM)
        assert subscriber.wait(PATIENCE) == 0
    os.close(ours)


def test_status_without_arguments(cli: Cli, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(cli, "a", clip)
    run.until_event("camera.online")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(cli.runtime))
    assert client.status()["cameras"].keys() == {"a"}
    assert client.status(Settings())["pid"] == client.status()["pid"]
    assert run.stop() == 0
