"""`fer-stream run`: killed children, signals to every role, and bad input, which is reported once."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from camera_servers import Camera, Server, folder, mjpeg
from faults.service import standing
from processes import Cli, free_port, gapless, unclosed, wait_for

from fer_stream.service.supervisor import Supervisor
from fer_stream.settings import tree

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Process


def start_run(cli: Cli, short_folder: Path, source: object, *more: object) -> Process:
    return cli.start(
        *("run", f"film={source}", "--format", "jsonl", "--summary", "s.json", "--journal", "events.db"),
        *("--bind", f"ipc://{short_folder}", "--workers", 2, *more),
    )


def ledger(cli: Cli) -> dict[str, int]:
    return json.loads((cli.folder / "s.json").read_text())["cameras"]["film"]


# Faults of single processes: tests/faults


def test_children_end_when_their_supervisor_was_killed(cli: Cli, short_folder: Path, clip: Path) -> None:
    process = start_run(cli, short_folder, clip, "--loop")
    process.until_event("camera.online")
    assert len(process.children()) == 4
    process.popen.kill()
    process.popen.wait()
    wait_for(lambda: not process.children(), "the end of the children")


# Signals (at every moment of a run: tests/faults/test_terminate.py)


def test_each_role_ends_on_a_signal_whoever_is_missing(cli: Cli, short_folder: Path, clip: Path) -> None:
    alone = {
        "capture": cli.start("capture", clip, "--camera", "film", "--loop", "--connect", f"ipc://{short_folder}/a"),
        "worker": cli.start("worker", "--connect", f"ipc://{short_folder}/a"),
        "aggregator": cli.start("aggregator", "--bind", f"ipc://{short_folder}/b", "--journal", "b.db"),
        "subscribe": cli.start("subscribe", "--connect", f"ipc://{short_folder}/a"),
    }
    for name in ("worker", "aggregator"):
        alone[name].until_said("ready")
    address = f"ipc://{short_folder}/c"
    together = [
        cli.start("aggregator", "--bind", address, "--journal", "c.db"),
        cli.start("worker", "--connect", address),
        cli.start("capture", clip, "--camera", "film", "--loop", "--connect", address),
        cli.start("subscribe", "--connect", address, "--from", 0, "--format", "jsonl"),
    ]
    together[-1].until_event("camera.online")
    for process in (*together[1:], *alone.values(), together[0]):
        process.signal(random.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))
        assert process.end() == 0, process.err
        assert "Traceback" not in process.err
    stored = cli.run("subscribe", "--journal", "c.db", "--format", "jsonl").events
    assert gapless(stored)
    assert not unclosed(stored)


# Bad input: the error messages of `run` and of the single roles


def assert_failed(process: Process, code: int, *words: str) -> None:
    """Assert that the process ended with this exit code, and printed one error with these words and no warning."""
    assert process.popen.returncode == code, process.err
    assert len(process.errors) == 1, process.err
    for word in words:
        assert word in process.errors[0]
    assert "Traceback" not in process.err
    assert not [line for line in process.err.splitlines() if '"warning"' in line or '"error"' in line]


@pytest.mark.parametrize("command", ["run", "capture"])
@pytest.mark.parametrize("fault", ["missing", "text", "empty", "no camera there"])
def test_a_source_that_is_none(fault: str, command: str, cli: Cli, short_folder: Path) -> None:
    (cli.folder / "text.mp4").write_text("not a film at all\n" * 100)
    (cli.folder / "empty.mp4").touch()
    (cli.folder / "once.toml").write_text("[cameras.film]\nretry = false\n")
    source = {
        "missing": "nowhere.mp4",
        "text": "text.mp4",
        "empty": "empty.mp4",
        "no camera there": f"rtsp://user:secret@127.0.0.1:{free_port()}/film",
    }[fault]
    if command == "run":
        process = start_run(cli, short_folder, source, "--config", "once.toml")
        process.end()
    else:
        address = f"ipc://{short_folder}"
        process = cli.run("capture", source, "--camera", "film", "--connect", address, "--config", "once.toml")
    assert_failed(process, 1, "127.0.0.1" if fault == "no camera there" else source)
    assert "secret" not in process.err
    assert process.out == ""


@pytest.mark.parametrize("command", ["run", "capture"])
def test_an_unreachable_camera_is_tried_again_until_told_to_end(command: str, cli: Cli, short_folder: Path) -> None:
    source = f"rtsp://user:secret@127.0.0.1:{free_port()}/film"
    if command == "run":
        process = start_run(cli, short_folder, source)
    else:
        process = cli.start("capture", source, "--camera", "film", "--connect", f"ipc://{short_folder}")
    process.until(lambda: process.err.count("trying again") >= 2, "a second try")
    assert process.stop() == 0
    assert "secret" not in process.err
    assert not process.errors


def test_a_planned_end_is_silent_whatever_cameras_do(cli: Cli, short_folder: Path) -> None:
    """One camera sends pictures, one has stopped sending, and one has never answered."""
    patient = (
        "[dispatch]\noffline_after = 300.0\n[cameras.mute]\nread_timeout = 300.0\n[cameras.deaf]\nopen_timeout = 300.0"
    )
    (cli.folder / "patient.toml").write_text(patient)
    stall, good = threading.Event(), Camera([cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()])
    with Server(mjpeg(20, then_stall=stall)) as mute, socket.create_server(("127.0.0.1", 0)) as deaf:
        ports = {"good": good.port, "mute": mute.port, "deaf": deaf.getsockname()[1]}
        process = cli.start(
            *("run", *(f"{name}=http://127.0.0.1:{port}/" for name, port in ports.items()), "--config", "patient.toml"),
            *("--journal", "events.db", "--bind", f"ipc://{short_folder}", "--workers", 1, "--log-level", "warning"),
            *("--format", "jsonl"),
        )
        both = {"/cameras/good", "/cameras/mute"}
        process.until(
            lambda: {event["source"] for event in process.events if event["type"] == "camera.online"} == both,
            "both cameras online",
        )

        def captured() -> int:
            cameras = (standing(f"ipc://{short_folder}") or {"cameras": {}})["cameras"]
            return cameras["mute"]["ledger"]["captured"] if "mute" in cameras else 0

        process.until(lambda: captured() == 20, "all 20 pictures of the stalled camera")
        assert process.stop() == 0
        stall.set()
    good.vanish()
    lines_by_word = {line.partition(" ")[0]: line for line in process.err.splitlines()}
    assert set(lines_by_word) == {"ran", "good:", "mute:", "events:"}
    assert "20 frames captured = " in lines_by_word["mute:"]
    assert "lost" not in process.err
    lines = cli.run("subscribe", "--journal", "events.db", "--format", "jsonl").out.splitlines()
    events = [event for event in map(json.loads, lines) if event["type"] == "camera.offline"]
    assert {(event["source"], event["data"]["reason"]) for event in events} == {
        ("/cameras/good", "capture ended"),
        ("/cameras/mute", "capture ended"),
    }


def test_a_truncated_video_gives_its_events_and_then_fails(cli: Cli, short_folder: Path, clip: Path) -> None:
    whole = clip.read_bytes()
    (cli.folder / "cut.avi").write_bytes(whole[: len(whole) // 2])
    process = start_run(cli, short_folder, "cut.avi", "--policy", "wait")
    process.end()
    assert_failed(process, 1, "cut.avi", "truncated")
    assert "face.entered" in process.out
    assert process.events[-1]["data"]["reason"] == "source failed"
    assert gapless(process.events)
    assert not unclosed(process.events)
    assert 0 < ledger(cli)["done"] == ledger(cli)["captured"] < 60


def test_a_recording_that_a_server_has_is_not_played_again_where_it_breaks(
    cli: Cli, short_folder: Path, clip: Path
) -> None:
    whole = clip.read_bytes()
    (cli.folder / "cut.avi").write_bytes(whole[: len(whole) // 2])
    with Server(folder(cli.folder)) as server:
        process = start_run(cli, short_folder, f"http://127.0.0.1:{server.port}/cut.avi", "--policy", "wait")
        process.end()
    assert_failed(process, 1, "cut.avi")
    assert [event["type"] for event in process.events].count("camera.online") == 1


@pytest.mark.parametrize("command", ["run", "worker"])
def test_a_wrong_model_file(command: str, cli: Cli, short_folder: Path, clip: Path) -> None:
    (cli.folder / "wrong.onnx").write_text("no model")
    if command == "run":
        process = start_run(cli, short_folder, clip, "--model", "wrong.onnx")
        process.end()
    else:
        process = cli.run("worker", "--model", "wrong.onnx", "--connect", f"ipc://{short_folder}")
    assert_failed(process, 1, "wrong.onnx")


def start_role(command: str, cli: Cli, address: str, clip: Path, *more: object) -> Process:
    if command == "run":
        return cli.run("run", f"film={clip}", "--workers", 1, "--bind", address, *more)
    if "--labels" in more:  # the aggregator learns the labels from a worker's model
        cli.start("worker", "--connect", address)
    return cli.run("aggregator", "--bind", address, *more)


@pytest.mark.parametrize("command", ["run", "aggregator"])
@pytest.mark.parametrize("kind", ["ipc", "tcp", "metrics"])
def test_an_address_in_use(kind: str, command: str, cli: Cli, short_folder: Path, clip: Path) -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}" if kind == "tcp" else f"ipc://{short_folder}"
    with socket.socket() as taken:
        if kind == "ipc":
            cli.start("aggregator", "--bind", address, "--journal", "first.db").until_said("ready")
        else:
            taken.bind(("127.0.0.1", port))
            taken.listen()
        more = ("--metrics", f"127.0.0.1:{port}") if kind == "metrics" else ()
        process = start_role(command, cli, address, clip, "--journal", "second.db", *more)
    assert_failed(process, 1, f"127.0.0.1:{port}" if kind != "ipc" else address)


@pytest.mark.parametrize("command", ["run", "aggregator"])
@pytest.mark.parametrize("fault", ["folder", "newer", "foreign", "in use"])
def test_a_journal_that_cannot_be_used(fault: str, command: str, cli: Cli, short_folder: Path, clip: Path) -> None:
    path = cli.folder / "bad.db"
    if fault == "folder":
        path.mkdir()
    elif fault == "foreign":
        path.write_text("Dear diary, " * 100)
    else:
        first = cli.start("aggregator", "--bind", f"ipc://{short_folder}/first", "--journal", path)
        first.until_said("ready")
        if fault == "newer":
            first.stop()
            with closing(sqlite3.connect(path)) as db, db:
                db.execute("PRAGMA user_version = 99")
            db.close()
    process = start_role(command, cli, f"ipc://{short_folder}/second", clip, "--journal", path)
    assert_failed(process, 1, "bad.db", *(("99",) if fault == "newer" else ()))


@pytest.mark.parametrize("command", ["run", "aggregator"])
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--labels", "hapy,neutral"), ("hapy",)),
        (("--bind", "tcp://127.0.0.1"), ("tcp://127.0.0.1",)),
        (("--bind", f"ipc:///tmp/{'x' * 120}"), ("xxx",)),
        (("--config", "typo.toml"), ("polici", "typo.toml")),
    ],
    ids=["label", "tcp", "ipc", "toml"],
)
def test_wrong_use(
    more: tuple[str, ...], words: tuple[str, ...], command: str, cli: Cli, short_folder: Path, clip: Path
) -> None:
    (cli.folder / "typo.toml").write_text('polici = "wait"\n')
    process = start_role(command, cli, f"ipc://{short_folder}", clip, "--journal", "events.db", *more)
    assert_failed(process, 2, *words)


def test_one_bad_source_among_good_ones(cli: Cli, short_folder: Path, clip: Path) -> None:
    process = start_run(cli, short_folder, clip, "--policy", "wait", "bad=nowhere.mp4")
    process.end()
    assert_failed(process, 1, "nowhere.mp4")


def test_a_worker_whose_name_another_machine_s_has_too_is_not_replaced(tmp_path: Path) -> None:
    supervisor = Supervisor(tree.load({"cameras": {"door": {}}, "workers": 1}), tmp_path)
    (worker,) = supervisor.workers
    worker.process, supervisor.aggregator.process = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    both = {"1 at here": {"pid": worker.process.pid}, "1 at there": {"pid": 1}}
    supervisor.note({"pid": supervisor.aggregator.process.pid, "cameras": {}, "workers": both})
    assert worker.was_ready
    supervisor.close()


def test_the_settings_of_children_lie_in_no_file(tmp_path: Path) -> None:
    settings = tree.load({"cameras": {"door": {"source": "rtsp://user:secret@192.0.2.1/"}}})
    supervisor = Supervisor(settings, tmp_path)
    assert list(tmp_path.iterdir()) == []
    supervisor.close()


INHERITED = """
import os, signal, sys
{}
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_signals_that_the_parent_had_blocked_reach_a_run(cli: Cli) -> None:
    """A process inherits blocked signals, also those that only one thread of its parent has blocked."""
    blocking = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})"
    cli.under = (sys.executable, "-c", INHERITED.format(blocking))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        run = cli.start("run", "a=demo", "--workers", 1, "--format", "jsonl")
        run.until_event("camera.online")
        run.signal(number)
        if number == signal.SIGHUP:  # it reads the settings file again, and does not end
            run.until_said("there is no settings file to read again")
            run.signal(signal.SIGTERM)
        assert run.end() == 0
        assert not run.children()


def test_a_parent_that_ignored_sigchld_does_not_hide_what_failed(cli: Cli) -> None:
    """While SIGCHLD is ignored, the kernel drops exit codes, and Python reports them as 0."""
    (cli.folder / "broken.mp4").write_text("no film")
    cli.under = (sys.executable, "-c", INHERITED.format("signal.signal(signal.SIGCHLD, signal.SIG_IGN)"))
    run = cli.start("run", "a=broken.mp4", "--workers", 1)
    assert run.end() == 1
    assert run.errors == ["fer-stream: error: 'broken.mp4' is a text file, not a video"]


def test_files_that_may_not_become_long_enough(cli: Cli) -> None:
    cli.under = ("prlimit", "--fsize=40960:40960")
    run = cli.run("run", "a=demo", "--workers", 1, "--duration", 2)
    assert run.end() == 1
    assert len(run.errors) == 1
    assert "40960 bytes are allowed here; raise the limit (LimitFSIZE in a unit, ulimit -f)" in run.errors[0]


def test_a_soft_limit_of_the_size_of_files_is_raised(cli: Cli) -> None:
    cli.under = ("prlimit", "--fsize=40960:unlimited")
    assert cli.run("run", "a=demo", "--workers", 1, "--duration", 2).end() == 0


def test_a_run_whose_folder_was_deleted_says_so_where_it_fails(cli: Cli) -> None:
    """A cleanup script may delete the folder for the children's error messages. They are then printed on stderr."""
    run = cli.start("run", "a=demo", "--workers", 1, "--loop", "--format", "jsonl")
    run.until_event("camera.online")
    (folder,) = (path for path in cli.claims() if path.name.startswith("run-"))
    shutil.rmtree(folder)
    run.child("worker 1").kill()
    assert run.end() == 1
    assert any(f"{folder}" in line and "No such file or directory" in line for line in run.errors), run.errors
