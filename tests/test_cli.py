"""The command line at its boundary: real processes, their output, and their exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from fer_stream import __version__, config, models
from fer_stream.cli import COMMANDS, main, parser
from fer_stream.commands.pipeline import name_sources
from fer_stream.commands.reading import status_lines
from fer_stream.errors import ConfigError
from fer_stream.schema import event_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from processes import Cli

PLUGIN = Path(__file__).parent / "plugin"
PORTRAIT = Path(models.__file__).parent / "assets" / "grace_hopper.jpg"
TIMEOUT = 120

Environment = dict[str, str]


def clean(**more: str) -> Environment:
    return {key: value for key, value in os.environ.items() if not key.startswith("FER_STREAM_")} | more


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Processes with an empty home, and with the example plug-in: no model that was trained is needed here."""
    home = tmp_path_factory.mktemp("home")
    information = home / "site" / "example-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1\n")
    groups = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {where}" for name, where in entries.items()))
    ]
    (information / "entry_points.txt").write_text("\n".join(lines))
    path = os.pathsep.join([str(information.parent), str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])])
    return clean(HOME=str(home), PYTHONPATH=path, FER_STREAM_CLASSIFIER__NAME="brightness")


def start(arguments: list[str], environment: Environment, **how: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fer_stream", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


def fer_stream(*arguments: str, environment: Environment | None = None) -> tuple[int, str, str]:
    with start(list(arguments), environment or clean()) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    assert "Traceback" not in err
    return process.returncode, out, err


def until(process: subprocess.Popen[str], text: str) -> str:
    """Return the line of a process's log that has ``text`` in it."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"ended before it said {text!r}")


# Help and wrong use


def test_help_loads_nothing_heavy() -> None:
    heavy = ["numpy", "cv2", "onnxruntime", "pydantic", "pydantic_settings", "zmq", "sqlite3", "prometheus_client"]
    code = (
        "import sys; before = set(sys.modules); from fer_stream.cli import COMMANDS, main, parser; "
        "codes = [main(['--help']), *(main([command.name, '--help']) for command in COMMANDS)]; "
        f"sys.exit(any(codes) or ', '.join((sys.modules.keys() & {heavy}) - before) or None)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.count("usage: fer-stream") == 1 + len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_that_parses(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command.name, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert " ".join(f"example: {command.example}".split()) in text
    assert command.example.startswith(f"fer-stream {command.name}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["rnu"], "invalid choice: 'rnu'"),
        (["run", "--worker", "2"], "--worker"),
        (["run", "--duration", "0"], "above 0"),
        (["run", "--duration", "soon"], "soon"),
        (["run", "--format", "xml"], "xml"),
        (["run", "--workers", "0"], "flag --workers: workers = "),
        (["run", "--labels", "happy,happy"], "flag --labels: labels = "),
        (["run", "--policy", "waitt"], "'drop_oldest' or 'wait'"),
        (["run", "--rate", "0", "a.mp4"], "flag --rate: cameras.a.rate = "),
        (["run", "--sink", ":x"], "NAME:ARGUMENT"),
        (["run", "--sink", "nosuchsink:x"], "there is no sink 'nosuchsink'"),
        (["run", "--bind", "here"], "flag --bind: address = "),
        (["run", "--metrics", "9100"], "HOST:PORT"),
        (["run", "--min-face", "5"], "flag --min-face: detector.min_face = "),
        (["run", "--scan", "sometimes"], "'sometimes' is neither every-frame nor a number of seconds"),
        (["run", "--scan", "-1"], "above 0"),
        (["run", "--config", "missing.toml"], "no settings file missing.toml"),
        (["run", "--summary", "no/such/folder/s.json"], "no/such/folder"),
        (["run", "a b=0"], "'a b' cannot be a camera's name"),
        (["run", "a=0", "A=1"], "two cameras are called"),
        (["run", "a="], "camera a has no source"),
        (["capture"], "which camera?"),
        (["capture", "--camera", "x"], "camera x has no source"),
        (["capture", "0", "--camera", "x y"], "'x y' cannot be a camera's name"),
        (["recognize"], "IMAGE"),
        (["recognize", "a.jpg", "--detector", "nosuch"], "there is no detector 'nosuch'"),
        (["subscribe", "--from", "-1"], "cursor"),
        (["subscribe", "--from", "latest"], "cursor"),
        (["subscribe", "--type", "face.entred"], "did you mean face.entered?"),
        (["config", "--log-level", "loud"], "flag --log-level: log_level = "),
    ],
)
def test_wrong_use_is_told_in_a_sentence_and_exits_2(arguments: list[str], said: str) -> None:
    code, out, err = fer_stream(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len([line for line in err.splitlines() if "error: " in line]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["subscribe", "--journal", "missing.db"], "there is no journal at missing.db"),
        (["subscribe", "--journal", __file__], "test_cli.py"),
        (["status", "--connect", "ipc://nobody"], "no aggregator answers at ipc://nobody"),
        (["subscribe", "--until-now", "--connect", "ipc://nobody"], "no aggregator answers"),
        (["recognize", "a.jpg", "--model", "missing.onnx"], "missing.onnx"),
        (["run", "missing.mp4"], "missing.mp4"),
        (["run", __file__], "test_cli.py"),
    ],
)
def test_a_failure_is_told_in_a_sentence_and_exits_1(
    arguments: list[str], said: str, environment: Environment, tmp_path: Path
) -> None:
    if arguments[0] == "run":
        arguments = [*arguments, "--bind", f"ipc://{tmp_path}/a", "--journal", str(tmp_path / "events.db")]
    else:
        environment = clean()
    code, out, err = fer_stream(*arguments, environment=environment)
    assert (code, out) == (1, "")
    errors = [line for line in err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert said in errors[0]


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


def test_names_of_long_files_fit_and_stay_apart() -> None:
    sources = [f"{'x' * 100}{n}.mp4" for n in range(12)]
    named = name_sources(sources)
    assert list(named.values()) == sources
    settings = config.load({"cameras": {name: {"source": source} for name, source in named.items()}})
    assert list(settings.cameras) == list(named)


def test_a_file_with_an_equals_sign_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b.mp4").touch()
    assert name_sources(["a=b.mp4"]) == {"a-b": "a=b.mp4"}
    with pytest.raises(ConfigError):
        name_sources(["a b=c.mp4"])


# Commands about the installation


def test_config_shows_where_a_setting_came_from(tmp_path: Path) -> None:
    file = tmp_path / "cameras.toml"
    file.write_text("[cameras.door]\nsource = 'rtsp://u:secret@h/x'\npolicy = 'drop_oldest'\n")
    code, out, err = fer_stream(
        *("config", "--config", str(file), "--min-face", "20", "--policy", "wait"),
        environment=clean(FER_STREAM_DEPTH="7"),
    )
    assert (code, err) == (0, "")
    tree = tomllib.loads(out)
    assert tree["detector"]["min_face"] == 20
    assert tree["policy"] == tree["cameras"]["door"]["policy"] == "wait"
    lines = {line.split(" = ")[0]: line for line in out.splitlines()}
    assert lines["detector.min_face"].endswith("# flag --min-face")
    assert lines["depth"].endswith("# env FER_STREAM_DEPTH")
    assert lines["cameras.door.source"].endswith(f"# file {file}")
    assert lines["workers"].endswith("# default")
    assert "secret" not in out
    assert "rtsp://u:***@h/x" in out


@pytest.mark.parametrize(("given", "seconds"), [("every-frame", 0), ("0.5", 0.5)])
def test_scan_is_how_often_the_whole_picture_is_searched(
    given: str, seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "--scan", given]) == 0
    assert tomllib.loads(capsys.readouterr().out)["detector"]["scan_interval"] == seconds


def test_the_template_is_a_settings_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--template"]) == 0
    file = tmp_path / "cameras.toml"
    file.write_text(capsys.readouterr().out)
    assert config.load(file=file) == config.load()


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == event_schema()


def test_version_names_the_models_and_their_digests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"fer-stream {__version__}"
    assert len(lines) >= 3
    for line in lines:
        name, _, digest = line.partition("  sha256:")
        assert hashlib.sha256((models.folder() / name).read_bytes()).hexdigest() == digest


# Recognition


def test_recognize_goes_on_after_an_image_that_is_none(environment: Environment) -> None:
    code, out, err = fer_stream("recognize", "missing.jpg", __file__, str(PORTRAIT), environment=environment)
    assert code == 1
    assert len([line for line in err.splitlines() if line.startswith("fer-stream: error: ")]) == 2
    (line,) = [json.loads(line) for line in out.splitlines()]
    assert line["image"] == str(PORTRAIT)
    (face,) = line["faces"]
    x1, y1, x2, y2 = face["box"]
    assert x1 < x2
    assert y1 < y2
    assert face["score"] > 0.9
    assert set(face["probabilities"]) == {"dark", "bright"}
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-5)


# The pipeline


@pytest.fixture(scope="module")
def ran(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What `run` printed and left behind: settings for one camera in a file, another camera there not run."""
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


def test_subscribe_prints_a_line_an_event_for_people(ran: tuple[Path, str]) -> None:
    folder, out = ran
    code, text, err = fer_stream("subscribe", "--journal", str(folder / "events.db"))
    assert (code, err) == (0, "")
    assert len(text.splitlines()) == len(out.splitlines())
    assert "bright" in text


def test_a_reader_that_leaves_ends_subscribe_quietly(ran: tuple[Path, str]) -> None:
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
        assert (first["type"], first["cursor"]) == ("camera.online", 1)

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


# Status for people


def test_status_lines() -> None:
    ledger = {"captured": 100, "done": 97, "superseded": 2, "rejected": 0, "lost_link": 0, "in_flight": 1}
    tracks = [
        {"track": 4, "label": "happy", "scores": {"happy": 0.81}},
        {"track": 5, "label": None, "scores": {}},
    ]
    camera = {
        "state": "online",
        "policy": "wait",
        "rate": 24.5,
        "frame_age_s": 0.012,
        "ledger": ledger,
        "tracks": tracks,
    }
    worker = {"state": "busy", "frames": 97, "pid": 12, "model": "emotion 1.0", "detector": "mtcnn"}
    state = {"uptime_s": 61.4, "cursor": 9, "labels": ["happy"], "events": {"face.entered": 2}}
    text = "\n".join(status_lines(state | {"cameras": {"door": camera}, "workers": {"1": worker}}))
    assert "up 61 s, 2 events, cursor 9, labels: happy" in text
    assert "door    online  wait    24.5      12       100    97           2          1      2" in text
    assert "superseded" in text
    assert "lost link" not in text
    assert "1       busy       97   12  emotion 1.0  mtcnn" in text
    assert "door    #4    happy 81%" in text
    assert "door    #5    uncertain" in text
    empty = "\n".join(status_lines(state | {"labels": [], "cameras": {}, "workers": {}}))
    assert "no cameras" in empty
    assert "no workers" in empty


def test_arguments_may_stand_between_options() -> None:
    arguments = parser().parse_args(["run", "a.mp4", "--policy", "wait", "b=b.mp4", "--loop", "c.mp4"])
    assert (arguments.sources, arguments.policy, arguments.loop) == (["a.mp4", "b=b.mp4", "c.mp4"], "wait", True)
    assert parser().parse_args(["run", "--loop"]).sources == []
    assert parser().parse_args(["recognize", "--min-face", "20", "a.jpg", "b.jpg"]).images == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("command", ["version", "schema", "config"])
@pytest.mark.parametrize(
    ("redirect", "said"), [(">/dev/full", "cannot be written: No space left"), (">&-", "is closed")]
)
def test_standard_output_that_takes_nothing_is_told_in_a_sentence(command: str, redirect: str, said: str) -> None:
    shell = f"exec {sys.executable} -m fer_stream {command} {redirect}"
    done = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode == 1
    assert done.stderr.startswith(f"fer-stream: error: standard output {said}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--journal", ""], "must be a file"),
        (["run", "--journal", "/"], "must be a file"),
        (["run", "--summary", "."], "the summary . cannot be written: it is not a file"),
        (["run", "--summary", "pipe"], "the summary pipe cannot be written: it is not a file"),
        (["run", "--summary", "nowhere/s.json"], "there is no folder for it; make it"),
    ],
)
def test_a_file_that_cannot_be_written_later_is_told_before_anything_runs(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "fer_stream", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("aggregator", "--bind", "tcp://0.0.0.0:5550", "--keys", "none"), "holds no key: make one for each process"),
        (("worker", "--connect", "tcp://192.0.2.1:5550", "--keys", "x"), "unrecognized arguments"),
        (("capture", "demo", "--connect", "tcp://192.0.2.1:5550", "--key", "no.key"), "no.key cannot be read"),
        (("keys", "new", "--keys", "keys"), "which key? fer-stream keys new NAME"),
        (("keys", "new", "door", "--keys", "keys"), "what may door do? --role capture, worker or client"),
        (("keys", "new", "door", "--role", "boss", "--keys", "keys"), "there is no role 'boss'"),
        (("keys", "allow", "door", "--role", "capture", "--keys", "keys"), "which key is it? --public"),
        (("keys", "revoke", "door", "--keys", "keys"), "there is no key door: there are none"),
    ],
)
def test_wrong_use_of_keys_is_told(arguments: tuple[str, ...], sentence: str, cli: Cli) -> None:
    process = cli.run(*arguments)
    assert process.popen.returncode == 2
    assert sentence in process.err
    assert "Traceback" not in process.err


def test_old_events_are_purged(cli: Cli) -> None:
    assert cli.run("run", "--duration", 3, "--journal", "events.db", "--bind", f"ipc://{cli.temporary}/p").out
    kept = cli.run("purge", "--older-than", "1d", "--journal", "events.db")
    assert kept.out == "0 events deleted from events.db\n"
    gone = cli.run("purge", "--older-than", "0s", "--journal", "events.db")
    assert int(gone.out.split()[0]) > 0
    (gap,) = cli.run("subscribe", "--journal", "events.db", "--format", "jsonl").out.splitlines()
    assert json.loads(gap)["type"] == "stream.gap"
    wrong = cli.run("purge", "--older-than", "yesterday")
    assert wrong.popen.returncode == 2
    assert "'yesterday' is not an age" in wrong.err
