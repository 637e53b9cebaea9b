"""Names of cameras; and the output of `run` and of the single roles as real processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest
from cli.command import TIMEOUT, Environment, clean, fer_stream, start, until
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from fer_stream.cli.pipeline import name_sources
from fer_stream.errors import ConfigError
from fer_stream.events.schema import event_schema
from fer_stream.settings import tree

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator


# Names of cameras


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], {}),
        (["film.mp4"], {"film": "film.mp4"}),
        (["a/film one.mp4", "b/film one.gif"], {"film-one": "a/film one.mp4", "film-one-2": "b/film one.gif"}),
        (["0", "rtsp://h/x?a=b"], {"camera-1": "0", "camera-2": "rtsp://h/x?a=b"}),
        (["door=rtsp://h/x?a=b", "/dev/video1"], {"door": "rtsp://h/x?a=b", "camera-2": "/dev/video1"}),
        (["film.mp4", "film=other.mp4"], {"film-2": "film.mp4", "film": "other.mp4"}),
        (["demo"], {"demo": "demo"}),
        (["./a=b.mp4"], {"a-b": "./a=b.mp4"}),
        (["--(x).mp4", "日本.mp4"], {"x": "--(x).mp4", "camera-2": "日本.mp4"}),
    ],
)
def test_sources_get_names(arguments: list[str], named: dict[str, str]) -> None:
    assert name_sources(arguments) == named


def test_long_file_names_give_valid_and_unique_names() -> None:
    sources = [f"{'x' * 100}{n}.mp4" for n in range(12)]
    named = name_sources(sources)
    assert list(named.values()) == sources
    settings = tree.load({"cameras": {name: {"source": source} for name, source in named.items()}})
    assert list(settings.cameras) == list(named)


def test_a_file_name_with_an_equals_sign_is_not_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b.mp4").touch()
    assert name_sources(["a=b.mp4"]) == {"a-b": "a=b.mp4"}
    with pytest.raises(ConfigError):
        name_sources(["a b=c.mp4"])


# The pipeline


@pytest.fixture(scope="module")
def ran(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a `run` of one camera; the settings file has another camera, which does not run."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "cameras.toml").write_text("[cameras.front]\nrate = 25\n[cameras.unused]\nsource = 'missing.mp4'\n")
    code, out, err = fer_stream(
        *("run", "front=sway:60", "--config", str(folder / "cameras.toml"), "--policy", "wait", "--workers", "1"),
        *("--labels", "bright,dark", "--format", "jsonl", "--bind", f"ipc://{folder}/run"),
        *("--journal", str(folder / "events.db"), "--summary", str(folder / "summary.json")),
        *("--sink", f"file:{folder}/events.jsonl"),
        environment=environment,
    )
    assert code == 0, err
    return folder, out


def test_run_prints_events_that_keep_the_schema(ran: tuple[Path, str]) -> None:
    folder, out = ran
    events = [json.loads(line) for line in out.splitlines()]
    validator = Draft202012Validator(event_schema())
    for event in events:
        validator.validate(event)
    assert {event["source"] for event in events} == {"/cameras/front"}
    assert {"camera.online", "face.entered", "emotion.started", "face.left"} <= {event["type"] for event in events}
    assert (folder / "events.jsonl").read_text() == out


def test_run_writes_a_summary(ran: tuple[Path, str]) -> None:
    folder, out = ran
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["cameras"]["front"] | {"captured": 60, "done": 60} == summary["cameras"]["front"]
    assert sum(summary["events"].values()) == len(out.splitlines())


def test_subscribe_reads_the_same_bytes_from_the_journal(ran: tuple[Path, str]) -> None:
    folder, out = ran
    journal = str(folder / "events.db")
    lines = out.splitlines(keepends=True)
    assert fer_stream("subscribe", "--journal", journal, "--from", "0", "--until-now", "--format", "jsonl") == (
        0,
        out,
        "",
    )
    assert fer_stream("subscribe", "--journal", journal, "--from", "2", "--format", "jsonl")[1] == "".join(lines[2:])
    faces = [line for line in lines if json.loads(line)["type"] in ("face.entered", "face.left", "camera.online")]
    command = ("subscribe", "--journal", journal, "--format", "jsonl")
    assert fer_stream(*command, "--type", "face", "--type", "camera.online")[1] == "".join(faces)
    assert fer_stream(*command, "--camera", "back")[1] == ""


def test_subscribe_prints_one_line_per_event(ran: tuple[Path, str]) -> None:
    folder, out = ran
    code, text, err = fer_stream("subscribe", "--journal", str(folder / "events.db"))
    assert (code, err) == (0, "")
    assert len(text.splitlines()) == len(out.splitlines())
    assert "bright" in text


def test_subscribe_ends_without_an_error_when_its_pipe_is_closed(ran: tuple[Path, str]) -> None:
    process = start(["subscribe", "--journal", str(ran[0] / "events.db")], clean(), bufsize=1)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == ""


@pytest.fixture
def aggregator(tmp_path: Path, environment: Environment) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running aggregator, and its address."""
    address = f"ipc://{tmp_path}/agg"
    command = ["aggregator", "--bind", address, "--journal", str(tmp_path / "events.db")]
    with start(command, environment) as process:
        until(process, "ready")
        yield process, address
        process.kill()


def test_the_roles_as_single_commands(aggregator: tuple[subprocess.Popen[str], str], environment: Environment) -> None:
    process, address = aggregator
    command = ["capture", "sway:40", "--camera", "front", "--policy", "wait", "--rate", "25", "--connect", address]
    with (
        start(["worker", "--name", "7", "--connect", address], environment) as worker,
        start(command, environment) as capture,
        start(["subscribe", "--from", "0", "--format", "jsonl", "--connect", address], environment) as subscriber,
    ):
        assert subscriber.stdout is not None
        until(process, "worker 7 is here")
        assert psutil.Process(worker.pid).cmdline()[0] == "fer-stream: worker 7"
        assert psutil.Process(process.pid).cmdline()[0] == "fer-stream: aggregator"
        assert capture.wait(TIMEOUT) == 0
        first = json.loads(subscriber.stdout.readline())
        assert (first["type"], int(first["cursor"])) == ("camera.online", 1)

        code, out, err = fer_stream("status", "--format", "jsonl", "--connect", address)
        assert (code, err) == (0, "")
        assert json.loads(out)["cameras"]["front"]["ledger"]["done"] == 40
        code, out, err = fer_stream("status", "--connect", address)
        assert (code, err) == (0, "")
        assert "worker  state" in out
        _, out, _ = fer_stream("doctor", "--bind", address)
        assert f"ok    address {address}: an aggregator runs there" in out
        code, out, _ = fer_stream("subscribe", "--from", "0", "--until-now", "--connect", address)
        assert code == 0
        assert "camera online" in out

        for role, number in ((subscriber, signal.SIGINT), (worker, signal.SIGINT), (process, signal.SIGTERM)):
            role.send_signal(number)
            assert role.wait(TIMEOUT) == 0


def test_capture_takes_the_only_camera_of_a_file(
    aggregator: tuple[subprocess.Popen[str], str], environment: Environment, tmp_path: Path
) -> None:
    process, address = aggregator
    file = tmp_path / "cameras.toml"
    file.write_text("[cameras.porch]\nsource = 'sway:1000'\nrate = 25\n")
    with start(["capture", "--config", str(file), "--connect", address], environment) as capture:
        assert "camera porch is here" in until(process, "is here")
        assert psutil.Process(capture.pid).cmdline()[0].startswith("fer-stream: capture")
        capture.terminate()
        assert capture.wait(TIMEOUT) == 0
