"""`fer-stream run` in real processes: several runs at once, children that crash, cameras that end, terminals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from faults.service import sound, standing, stored
from processes import PATIENCE, balanced, free_port, wait_for
from single_runs import Dead, addresses, readiness, start

from fer_stream import client
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli

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


def test_status_without_arguments(cli: Cli, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(cli, "a", clip)
    run.until_event("camera.online")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(cli.runtime))
    assert client.status()["cameras"].keys() == {"a"}
    assert client.status(Settings())["pid"] == client.status()["pid"]
    assert run.stop() == 0


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


@pytest.mark.parametrize("more", [(), ("--config", "settings.toml")], ids=["plain", "with a settings file"])
def test_a_terminal_that_is_closed_ends_a_run_in_order(
    more: tuple[str, ...], cli: Cli, short_folder: Path, clip: Path
) -> None:
    (cli.folder / "settings.toml").touch()
    ours, theirs = pty.openpty()
    command = [
        *("setsid", "--ctty", sys.executable, "-m", "fer_stream", "run", f"film={clip}", "--loop", "--workers", "1"),
        *("--journal", "e.db", "--bind", f"ipc://{short_folder}", "--summary", "s.json", *more),
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
