"""The command line from outside: real processes, their output, and their exit codes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cli.command import TIMEOUT, fer_stream

from fer_stream.cli.commands import COMMANDS
from fer_stream.cli.main import main, parser

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli


def test_help_loads_nothing_heavy() -> None:
    heavy = ["numpy", "cv2", "onnxruntime", "pydantic", "pydantic_settings", "zmq", "sqlite3", "prometheus_client"]
    code = (
        "import sys; before = set(sys.modules); from fer_stream.cli.commands import COMMANDS; "
        "from fer_stream.cli.main import main; "
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
    program, *arguments = shlex.split(command.example.partition(" > ")[0])
    assert (program, parser().parse_args(arguments).command) == ("fer-stream", command)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required: COMMAND"),
        (["rnu"], "invalid choice: 'rnu'"),
        (["run", "--worker", "2"], "unrecognized arguments: --worker"),
        (["run", "--duration", "0"], "above 0"),
        (["run", "--duration", "soon"], "'soon' is not a time: give seconds above 0"),
        (["run", "--config", "x" * 300], "cannot be read: File name too long"),
        (["run", "--format", "xml"], "invalid choice: 'xml'"),
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
        (["recognize"], "arguments are required: IMAGE"),
        (["recognize", "a.jpg", "--detector", "nosuch"], "there is no detector 'nosuch'"),
        (["subscribe", "--from", "-1"], "cursor"),
        (["subscribe", "--from", "latest"], "cursor"),
        (["subscribe", "--timeout", "0"], "argument --timeout: '0' is not a time"),
        (["status", "--timeout", "nan"], "argument --timeout: 'nan' is not a time"),
        (["subscribe", "--type", "face.entred"], "did you mean face.entered?"),
        (["config", "--log-level", "loud"], "flag --log-level: log_level = "),
    ],
)
def test_wrong_use_is_reported_in_one_line_and_exits_2(arguments: list[str], message: str) -> None:
    code, out, err = fer_stream(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len([line for line in err.splitlines() if "error: " in line]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["subscribe", "--journal", "missing.db"], "there is no journal at missing.db"),
        (["subscribe", "--journal", __file__], "test_main.py"),
        (["status", "--connect", "ipc://nobody"], "no aggregator answers at ipc://nobody within 3 s: nothing listens"),
        (["status", "--timeout", "0.1", "--connect", "ipc://nobody"], "answers at ipc://nobody within 0.1 s"),
        (["subscribe", "--until-now", "--timeout", "0.1", "--connect", "ipc://nobody"], "nothing listens there"),
        (["subscribe", "--timeout", "0.1", "--connect", "tcp://127.0.0.1:9"], "at tcp://127.0.0.1:9 within"),
        (["recognize", "a.jpg", "--model", "missing.onnx"], "missing.onnx"),
        (["run", "missing.mp4"], "missing.mp4"),
        (["run", __file__], "test_main.py"),
    ],
)
def test_a_failure_is_reported_in_one_line_and_exits_1(
    arguments: list[str], message: str, cli: Cli, tmp_path: Path
) -> None:
    if arguments[0] == "run":
        arguments = [*arguments, "--bind", f"ipc://{tmp_path}/a", "--journal", str(tmp_path / "events.db")]
    process = cli.run(*arguments)
    assert (process.popen.returncode, process.out) == (1, "")
    errors = [line for line in process.err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert message in errors[0]


def test_arguments_may_stand_between_options() -> None:
    arguments = parser().parse_args(["run", "a.mp4", "--policy", "wait", "b=b.mp4", "--loop", "c.mp4"])
    assert (arguments.sources, arguments.policy, arguments.loop) == (["a.mp4", "b=b.mp4", "c.mp4"], "wait", True)
    assert parser().parse_args(["run", "--loop"]).sources == []
    assert parser().parse_args(["recognize", "--min-face", "20", "a.jpg", "b.jpg"]).images == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("command", ["version", "schema", "config"])
@pytest.mark.parametrize(
    ("redirect", "message"), [(">/dev/full", "cannot be written: No space left"), (">&-", "is closed")]
)
def test_standard_output_that_cannot_be_written_is_reported_in_one_line(
    command: str, redirect: str, message: str
) -> None:
    shell = f"exec {shlex.quote(sys.executable)} -m fer_stream {command} {redirect}"
    done = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode == 1
    assert done.stderr.startswith(f"fer-stream: error: standard output {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--journal", ""], "must be a file"),
        (["run", "--journal", "/"], "must be a file"),
        (["run", "--summary", "."], "the summary . cannot be written: it is not a file"),
        (["run", "--summary", "pipe"], "the summary pipe cannot be written: it is not a file"),
        (["run", "--summary", "nowhere/s.json"], "its folder does not exist; make it"),
    ],
)
def test_a_file_that_could_not_be_written_later_is_reported_before_the_run(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "fer_stream", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
