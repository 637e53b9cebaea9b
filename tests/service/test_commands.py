"""Cameras that are added, changed and removed while the service runs, in real processes."""

from __future__ import annotations

import json
import signal
import stat
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from camera_servers import Camera
from processes import Cli, free_port
from running_cameras import Running, of, page
from served import Browser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def camera() -> Iterator[Camera]:
    """A network camera, which is off."""
    made = Camera([cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()])
    made.vanish()
    yield made
    made.vanish()


def test_other_cameras_go_on_undisturbed(cli: Cli, clip: Path) -> None:
    it = Running(cli, f"film={clip}", "--policy", "wait", "--loop")
    it.run.until_event("camera.online")
    pid = it.status()["cameras"]["film"]["pid"]
    assert it.cameras("add", "b", clip, "--loop").out == ("camera b is added, and online\n")
    first = it.status()["cameras"]["b"]
    assert it.cameras("change", "b", "--rate", 5).out == "camera b is changed, and online\n"
    second = it.status()["cameras"]["b"]
    assert (second["epoch"], second["pid"]) != (first["epoch"], first["pid"])
    assert second["ledger"]["captured"] > first["ledger"]["captured"] - 1, "the ledger goes on"
    assert it.cameras("change", "b", "--rate", 5.0).out == "camera b stays as it is: nothing is different\n"
    assert it.status()["cameras"]["b"]["pid"] == second["pid"]
    assert it.cameras("change", "b", "--unset", "rate", "--encoding", "raw").out.startswith("camera b is changed")
    assert it.listed()["b"]["settings"] == {"loop": True, "encoding": "raw"}
    assert it.cameras("remove", "b").out == "camera b is removed\n"
    assert it.status()["cameras"].keys() == it.listed().keys() == {"film"}
    film = it.status()["cameras"]["film"]
    assert (film["pid"], film["epoch"]) == (pid, 1)
    ledgers, events = it.end()
    assert ledgers["film"]["captured"] == ledgers["film"]["done"] > 0, "no frame was lost"
    assert len(of(events, "film", "camera.online")) == len(of(events, "film", "camera.offline")) == 1
    reasons = [event["data"]["reason"] for event in of(events, "b", "camera.offline")]
    assert reasons == ["capture ended", "capture ended", "camera removed"]
    assert [event["epoch"] for event in of(events, "b", "camera.online")] == [1, 2, 3]
    assert ledgers["b"]["captured"] > 0


def test_added_cameras_are_there_after_a_restart_however_the_service_ended(cli: Cli) -> None:
    it = Running(cli, "a=demo", "--loop")
    it.cameras("add", "b", "demo", "--rate", 5, "--loop")
    it.cameras("add", "c", "demo", "--loop")
    it.cameras("remove", "c")
    file = cli.folder / "events.db.cameras.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["cameras"] == {"b": {"source": "demo", "rate": 5.0, "loop": True}}
    it.run.kill()
    it = it.restart()
    it.run.until_said("added at run time, earlier: b")
    assert {name: camera["from"] for name, camera in it.listed().items()} == {"a": "command line", "b": "run time"}
    it.until("b", "online")
    ledgers, _ = it.end()
    assert ledgers.keys() == {"a", "b"}


def test_a_camera_that_is_off_is_added_and_comes_when_it_is_switched_on(cli: Cli, camera: Camera) -> None:
    it = Running(cli, "a=demo", "--loop")
    password = cli.folder / "door.password"
    source = f"http://user:file:{password}@127.0.0.1:{camera.port}/"
    added = it.cameras("add", "door", source, "--timeout", 60)
    assert added.out == "camera door is added\n"
    assert added.err.startswith("fer-stream: warning: camera door gives no pictures: the password file ")
    assert "cannot be read: No such file or directory" in added.err
    password.write_text("s3cret\n")
    password.chmod(0o600)
    it.run.until(lambda: "refused" in it.listed()["door"]["reason"], "another reason")
    entry = it.listed()["door"]
    assert (entry["state"], entry["source"], entry["from"]) == ("failing", source, "run time")
    camera.serve()
    online = it.until("door", "online")
    assert online["reason"] == ""
    assert online["since"] > entry["since"]
    camera.vanish()
    assert "refused" in it.until("door", "offline")["reason"]
    for written in (it.run.err, it.run.out, (cli.folder / "events.db.cameras.json").read_text()):
        assert "s3cret" not in written
    it.end()


def test_a_source_that_never_works_ends_nothing(cli: Cli) -> None:
    (cli.folder / "text.mp4").write_text("no film")
    it = Running(cli, "a=demo", "--loop")
    it.cameras("add", "nowhere", "nowhere.mp4")
    it.cameras("add", "text", "text.mp4")
    it.cameras("add", "plug", "x", "--plugin", "nonsense")
    it.run.until(lambda: it.run.err.count("capture text is started again") >= 3, "further attempts")
    states = it.listed()
    assert {name: states[name]["state"] for name in ("nowhere", "text", "plug")} == dict.fromkeys(
        ("nowhere", "text", "plug"), "failing"
    )
    assert "text.mp4' is a text file, not a video" in states["text"]["reason"]
    assert "nonsense" in states["plug"]["reason"]
    assert states["text"]["source"] == str(cli.folder / "text.mp4"), "complete: the service may run elsewhere"
    assert it.run.popen.poll() is None
    again = it.restart() if it.end() else it
    again.until("text", "failing")
    for name in ("nowhere", "text", "plug"):
        again.cameras("remove", name)
    assert again.listed().keys() == {"a"}
    again.end()


def test_removed_cameras_vanish_from_the_metrics_and_stay_in_the_totals(cli: Cli, clip: Path) -> None:
    port = free_port()
    it = Running(cli, f"film={clip}", "--loop", "--metrics", f"127.0.0.1:{port}")
    captured = 0
    for _ in range(2):
        it.cameras("add", "b", clip, "--policy", "wait")
        it.run.until(lambda: it.ledger("b")["done"] == 60, "the end of the recording")
        it.run.until(lambda: 'fer_stream_frames_total{camera="b",outcome="done",reason=""}' in page(port), "series")
        captured += 60
        it.cameras("remove", "b")
        assert "b" not in it.status()["cameras"]
        it.run.until(lambda: 'camera="b"' not in page(port), "no series of the camera")
    it.cameras("add", "off", "http://127.0.0.1:9/", "--timeout", 20)
    it.run.until(lambda: 'fer_stream_source_failures_total{camera="off"}' in page(port), "its failures")
    it.cameras("remove", "off")
    it.run.until(lambda: 'camera="off"' not in page(port), "no series of a camera that never came")
    assert 'camera="film"' in page(port)
    ledgers, _ = it.end()
    assert ledgers["b"] == dict.fromkeys(ledgers["b"], 0) | {"captured": captured, "done": captured}


def test_a_capture_that_hangs_is_removed_too(cli: Cli, clip: Path) -> None:
    it = Running(cli, f"film={clip}", "--loop")
    it.cameras("add", "b", clip, "--loop")
    it.run.until(lambda: it.ledger("b")["done"] > 20, "frames")
    it.run.child("capture b").suspend()
    assert it.cameras("remove", "b", "--timeout", 60).out == "camera b is removed\n"
    assert "capture b did not end in time and is killed" in it.run.err
    ledgers, events = it.end()
    (reason,) = (event["data"]["reason"] for event in of(events, "b", "camera.offline"))
    assert reason in ("camera removed", "capture silent"), "whichever is noticed first"
    assert ledgers["b"]["captured"] >= ledgers["b"]["done"] > 20


def test_without_any_camera_the_service_goes_on(cli: Cli) -> None:
    it = Running(cli)
    assert it.until("demo", "online")["from"] == "command line"
    gone = it.cameras("remove", "demo")
    assert "this change lasts until the service ends" in gone.err
    assert it.cameras("list").out == "no cameras\n"
    it.cameras("add", "b", "demo", "--loop")
    it.cameras("remove", "b")
    it.end()
    again = Running(cli)
    again.run.until_said("there is no camera yet: add one with `fer-stream cameras add NAME SOURCE`")
    assert again.listed() == {}, "cameras have been managed, so the demo does not come back"
    assert again.cameras("add", "b", "demo").out == "camera b is added, and online\n"
    again.end()


# The settings file


TWO = '[cameras.a]\nsource = "{clip}"\nloop = true\n[cameras.b]\nsource = "{clip}"\nloop = true\n'


@pytest.mark.parametrize("how", ["command", "signal"])
def test_the_settings_file_is_read_again(how: str, cli: Cli, clip: Path) -> None:
    file = cli.folder / "settings.toml"
    file.write_text(TWO.format(clip=clip))
    it = Running(cli, "--config", "settings.toml", "--policy", "wait")
    for name in "ab":
        it.until(name, "online")
    a = it.status()["cameras"]["a"]

    def again(words: str, code: int = 0) -> str:
        said = it.run.err.count(words)
        if how == "command":
            return it.cameras("reload", code=code).err
        it.run.signal(signal.SIGHUP)
        it.run.until(lambda: it.run.err.count(words) > said, words)
        return it.run.err

    again("no camera has changed")
    file.write_text(TWO.format(clip=clip).replace("cameras.b", "cameras.c") + "[tracker]\npatience = 2\n")
    assert "tracker.patience changed in the settings file, which needs a restart" in again("needs a restart")
    it.until("c", "online")
    it.run.until(lambda: it.listed().keys() == it.status()["cameras"].keys() == {"a", "c"}, "the end of b")
    file.write_text(TWO.format(clip=clip) + "polici = 1")
    problem = again("nothing has changed on SIGHUP" if how == "signal" else "polici", code=2)
    assert "there is no setting cameras.b.polici; did you mean cameras.b.policy?" in problem
    assert it.listed().keys() == {"a", "c"}
    now = it.status()["cameras"]["a"]
    assert (now["pid"], now["epoch"]) == (a["pid"], a["epoch"])
    ledgers, events = it.end()
    assert ledgers["a"]["captured"] == ledgers["a"]["done"]
    assert [event["data"]["reason"] for event in of(events, "b", "camera.offline")] == ["camera removed"]


def test_sighup_without_a_settings_file_is_told_and_ends_nothing(cli: Cli) -> None:
    it = Running(cli, "a=demo", "--loop")
    it.run.signal(signal.SIGHUP)
    it.run.until_said("there is no settings file to read again: the service was started without --config")
    assert "started without --config" in it.cameras("reload", code=2).errors[0]
    it.until("a", "online")
    it.end()


def test_a_run_of_named_cameras_reads_only_theirs_again(cli: Cli, clip: Path) -> None:
    file = cli.folder / "settings.toml"
    file.write_text(TWO.format(clip=clip))
    it = Running(cli, f"a={clip}", "--config", "settings.toml")
    it.until("a", "online")
    file.write_text(TWO.format(clip=clip).replace("loop = true", "loop = true\nrate = 5"))
    assert it.cameras("reload").out == "changed: a\n"
    assert it.listed()["a"]["settings"] == {"loop": True, "rate": 5.0}
    it.end()


# The live page, and what the run prints


def test_the_live_page_follows(cli: Cli, clip: Path) -> None:
    it = Running(cli, f"a={clip}", "--loop", "--live", "--page", "127.0.0.1:0")
    it.run.until_said("the live page is at ")
    url = next(word for word in it.run.err.replace('"', " ").split() if word.startswith("http://127"))
    with Browser(url) as browser:
        browser.until("state", lambda state: state["status"].get("cameras", {}).keys() == {"a"})
        it.cameras("add", "b", clip, "--loop")
        browser.until("state", lambda state: state["status"].get("cameras", {}).keys() == {"a", "b"})
        browser.say(watch={"b": 320})
        browser.until("picture", lambda picture: picture["camera"] == "b")
        it.cameras("remove", "b")
        browser.until("state", lambda state: state["status"].get("cameras", {}).keys() == {"a"})
    it.end()


def test_what_the_run_prints_for_people_follows(cli: Cli) -> None:
    run = cli.start("run", "a=demo", "--loop", "--workers", 1, "--journal", "events.db")
    run.until(lambda: "camera online" in run.out, "the first camera")
    cli.run("cameras", "add", "b", "demo", "--loop")
    cli.run("cameras", "remove", "b")
    run.until(lambda: "camera removed" in run.out, "the end of the camera")
    assert run.stop() == 0
    lines = [line.split() for line in run.out.splitlines() if "  b  " in line]
    assert lines[0][1:] == ["b", "camera", "online", "first", "frame,", "640x480"]
    assert lines[-1][1:] == ["b", "camera", "offline", "camera", "removed,", "640x480"]
    assert "\nb: " in run.err, "it is in the summary"
