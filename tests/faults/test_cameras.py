"""Cameras are added and removed while the service is killed, told to do everything at once, or for a long time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import strangers
from faults.service import descriptors
from processes import wait_for
from running_cameras import Running, of

from fer_stream.operations.calls import call

if TYPE_CHECKING:
    from faults.conftest import Scale
    from faults.table import Tell
    from processes import Cli


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace kills the service in the middle of its write")
@pytest.mark.parametrize(
    ("moment", "fault", "stored"),
    [
        ("before its new file is on the disk", "fsync:signal=KILL:when=1", False),
        ("before its new file replaces the old one", "rename:signal=KILL:when=1", False),
        ("before it answers", "fsync:signal=KILL:when=2", True),
    ],
)
def test_a_service_that_is_killed_between_change_and_write(
    moment: str, fault: str, stored: bool, cli: Cli, tell: Tell
) -> None:
    it = Running(cli, "a=demo", "--loop")
    it.cameras("add", "b", "demo", "--loop")
    file = cli.folder / "events.db.cameras.json"
    before = file.read_bytes()
    what = fault.partition(":")[0]
    # Only this process's main thread, which writes the registry; the notes that it leaves are other paths.
    paths = [word for path in (f"{file.name}.new", f"{file}.new", file.parent) for word in ("-P", str(path))]
    how = ("-q", "-o", "/dev/null", "-e", f"trace={what}", "-e", f"inject={fault}")
    command = ["strace", "-p", str(it.run.pid), *how, *paths]
    it.run.children()  # from now on they are known, also when their parent has died
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        try:
            wait_for(lambda: _traced(it.run.pid), "the tracer", lambda: tracer.poll() is None)
            add = cli.start("cameras", "add", "c", "demo", "--loop")
            assert add.end() == 1
        finally:
            tracer.terminate()
    (sentence,) = add.errors
    assert "the service ended before it answered: see what it did once it runs again" in sentence
    assert it.run.end() == -signal.SIGKILL
    assert (file.read_bytes() == before) is not stored
    wait_for(lambda: not it.run.children(), "the end of its children")
    again = it.restart()
    assert again.listed().keys() == ({"a", "b", "c"} if stored else {"a", "b"})
    again.cameras("add", "d", "demo", "--loop")
    assert sorted(path.name for path in cli.folder.glob("events.db.cameras*")) == [file.name]
    again.end()
    happened = "the camera is there after the restart" if stored else "the registry is as before"
    tell(f"the service is killed while it stores a camera, {moment}", happened, "at once")


def _traced(pid: int) -> bool:
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        return "TracerPid:\t0\n" not in status.read()


def test_many_commands_at_once(cli: Cli, scale: Scale, tell: Tell) -> None:
    it = Running(cli, "a=demo", "--loop", FER_STREAM_MAX_CAMERAS="4")
    times = scale.of(1, 20)
    for _ in range(times):
        adds = [cli.start("cameras", "add", "b", "demo", "--loop") for _ in range(2)]
        assert sorted(add.end() for add in adds) == [0, 2], "one of two adds of the same camera"
        (loser,) = (add for add in adds if add.popen.returncode == 2)
        assert "there is a camera b already" in loser.errors[0]
        adds = [cli.start("cameras", "add", name, "demo", "--loop") for name in ("c", "d", "e")]
        assert sorted(add.end() for add in adds) == [0, 0, 2], "one too many"
        assert len(it.listed()) == 4
        assert json.loads((cli.folder / "events.db.cameras.json").read_text())[
            "cameras"
        ].keys() == it.listed().keys() - {"a"}
        mixed = [cli.start("cameras", action, "b", *more) for action, *more in (("remove",), ("change", "--rate", 5))]
        assert [process.end() for process in mixed] in ([0, 0], [0, 2]), "the change comes before or after the removal"
        for name in it.listed().keys() - {"a", "b"}:
            it.cameras("remove", name)
        assert it.listed().keys() == {"a"}
    ledgers, events = it.end()
    assert len(of(events, "a", "camera.online")) == 1
    assert ledgers.keys() >= {"a", "b"}
    happened = f"{times} times: one of each name, and none over the limit"
    tell("five cameras are added at once, two of them with one name", happened, "exact")


@pytest.mark.timeout(600)
def test_cameras_that_come_and_go_leave_nothing_behind(cli: Cli, clip: Path, scale: Scale, tell: Tell) -> None:
    it = Running(cli, f"a={clip}", "--policy", "wait", "--loop", "--metrics", "127.0.0.1:0")
    it.until("a", "online")
    times = scale.of(4, 300)

    (about,) = it.calls()
    path = Path(json.loads(about.read_text())["calls"])

    def state() -> str | None:
        cameras = call(path, {"do": "list"})["cameras"]
        return next((camera["state"] for camera in cameras if camera["camera"] == "b"), None)

    def once() -> None:
        call(path, {"do": "add", "camera": "b", "settings": {"source": str(clip), "loop": True}})
        it.run.until(lambda: state() == "online", "the camera")
        call(path, {"do": "remove", "camera": "b"})
        it.run.until(lambda: state() is None, "the end of the camera")

    def used() -> tuple[int, int, int]:
        family = [psutil.Process(it.run.pid), *it.run.children()]
        folder = next(cli.runtime.glob("fer_stream/run-*"))
        return len(family), descriptors(family), len([path for path in folder.rglob("*") if path.suffix != ".db"])

    once()  # makes the metrics files and the marker of a forgotten camera
    before, memory, begin = used(), _shared_memory(), time.monotonic()
    for _ in range(times - 1):
        once()
    took = time.monotonic() - begin
    wait_for(lambda: used() == before, f"what was used before: {before}", log=lambda: str(used()))
    wait_for(lambda: _shared_memory() <= memory, "the shared memory of before")
    ledgers, events = it.end()
    online = of(events, "b", "camera.online")
    assert len(online) == len(of(events, "b", "camera.offline")) == times
    assert [event["epoch"] for event in online] == list(range(1, times + 1))
    assert ledgers["a"]["captured"] == ledgers["a"]["done"], "the other camera has lost no frame"
    assert len(of(events, "a", "camera.online")) == 1
    happened = (
        f"{times} times: no process, descriptor, file or shared memory is left, and the other camera loses no frame"
    )
    tell("a camera is added and removed", happened, f"{took / times:.1f} s each time")


def _shared_memory() -> int:
    """Return the number of shared memory segments that processes of these tests have mapped."""
    total = 0
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            total += sum("fer_stream" in part.path for part in process.memory_maps(grouped=True))
        except psutil.Error:
            continue
    return total


def test_a_storm_of_sighup(cli: Cli, clip: Path, scale: Scale, tell: Tell) -> None:
    file = cli.folder / "settings.toml"
    text = f'[cameras.a]\nsource = "{clip}"\nloop = true\n'
    file.write_text(text)
    it = Running(cli, "--config", "settings.toml", "--policy", "wait")
    it.until("a", "online")
    count, stop = scale.of(2000, 100_000), threading.Event()

    def storm() -> None:
        for _ in range(count):
            it.run.signal(signal.SIGHUP)
            time.sleep(0.0005)
        stop.set()

    thread = threading.Thread(target=storm)
    thread.start()
    number = 0
    while not stop.is_set():
        number += 1  # the file is replaced as editors do it, so that each reading finds a complete one
        fresh = cli.folder / "fresh.toml"
        fresh.write_text(
            text + (f'[cameras.b]\nsource = "{clip}"\nloop = true\nrate = {number}\n' if number % 2 else "")
        )
        fresh.replace(file)
        time.sleep(0.3)
    thread.join()
    file.write_text(f'{text}[cameras.c]\nsource = "demo"\n')
    it.run.signal(signal.SIGHUP)
    it.run.until(lambda: it.listed().keys() == {"a", "c"}, "the cameras of the last file")
    assert "nothing has changed on SIGHUP" not in it.run.err
    ledgers, events = it.end()
    assert ledgers["a"]["captured"] == ledgers["a"]["done"]
    assert len(of(events, "a", "camera.online")) == 1
    happened = f"{count} signals: the last file counts, and the other camera loses no frame"
    tell("SIGHUP again and again while the settings file changes", happened, "exact")


def test_another_user_reads_nothing_and_changes_nothing(cli: Cli) -> None:
    it = Running(cli, "a=demo", "--loop")
    before = it.listed()
    with strangers.folder() as folder:
        for action in (("list",), ("add", "b", "demo"), ("remove", "a"), ("reload",)):
            done = strangers.Stranger(Path(folder)).run("cameras", *action, XDG_RUNTIME_DIR=str(cli.runtime))
            assert (done.returncode, done.stdout) == (1, "")
            assert "no service of yours runs on this machine" in done.stderr
    assert it.listed().keys() == before.keys()
    it.end()
