"""`fer-stream doctor` finds problems, says what to do about them, and changes nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from processes import free_port
from webhook_receiver import Receiver

from fer_stream import sources
from fer_stream.cli.doctor import Finding, Level, examine
from fer_stream.inference import models
from fer_stream.journal.sqlite import Writer
from fer_stream.operations.http import Answer, Server
from fer_stream.settings import tree
from fer_stream.transports import keys

if TYPE_CHECKING:
    from collections.abc import Callable

    Examine = Callable[..., list[Finding]]

PORTRAIT = Path(models.__file__).parents[1] / "assets" / "grace_hopper.jpg"


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """``check(**flags)`` examines these settings; all others are valid and use the test's folder."""
    for name in [name for name in os.environ if name.startswith("FER_STREAM_")]:
        monkeypatch.delenv(name)
    base: dict[str, Any] = {
        "address": f"ipc://{tmp_path}/aggregator",
        "journal.path": str(tmp_path / "state" / "events.db"),
        "workers": 1,
    }

    def run(**flags: Any) -> list[Finding]:
        return list(examine(tree.load(base | {key.replace("__", "."): value for key, value in flags.items()})))

    return run


def about(findings: list[Finding], word: str) -> Finding:
    """Return the only finding that contains a word."""
    (found,) = [finding for finding in findings if word in finding.text]
    return found


def test_an_installation_without_problems(check: Examine, tmp_path: Path) -> None:
    findings = check(cameras={"desk": {"source": str(PORTRAIT)}}, metrics="127.0.0.1:0")
    assert about(findings, "numpy ").level is Level.OK
    assert about(findings, "providers of onnxruntime: cpu").level is Level.OK
    assert about(findings, "detector mtcnn").level is Level.OK
    assert len([finding for finding in findings if finding.text.startswith("model file ")]) >= 3
    assert about(findings, "camera desk").level is Level.OK
    assert about(findings, "address ").level is Level.OK
    assert about(findings, "journal ").level is Level.OK
    assert about(findings, "metrics port").level is Level.OK
    assert about(findings, "CPU cores for 1").level is Level.OK
    assert not (tmp_path / "state").exists()


def test_two_builds_of_onnxruntime(check: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their packages have the same folder; only what pip notes about the second one is made here."""
    noted = tmp_path / "site" / "onnxruntime_gpu-1.31.1.dist-info"
    noted.mkdir(parents=True)
    (noted / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
    (noted / "top_level.txt").write_text("onnxruntime\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    finding = about(check(), "overwrite")
    assert finding.level is Level.FAIL
    assert "run pip uninstall --yes onnxruntime onnxruntime-gpu, then pip install " in finding.text


def test_a_package_beyond_its_limits(check: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = tmp_path / "site" / "fer_stream-1.dist-info"
    noted.mkdir(parents=True)
    limits = ("numpy<2,>=1", "onnxruntime>=999", "av<999,>=1")
    lines = "".join(f"Requires-Dist: {limit}\n" for limit in limits)
    (noted / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fer-stream\nVersion: 1\n{lines}")
    monkeypatch.syspath_prepend(tmp_path / "site")
    findings = check()
    assert "is too new, it must be below 2: run pip install 'numpy<2,>=1'" in about(findings, "numpy ").text
    assert "is older than 999: run pip install 'onnxruntime>=999'" in about(findings, "older").text
    assert about(findings, "av ").level is Level.OK


def test_a_provider_that_is_not_installed(check: Examine) -> None:
    finding = about(check(classifier__provider="directml"), "not installed")
    assert finding.level is Level.FAIL
    assert "run pip uninstall --yes onnxruntime, then pip install onnxruntime-directml" in finding.text


def test_a_finding_is_a_line() -> None:
    assert str(Finding(Level.OK, "fine")) == "ok    fine"
    assert str(Finding(Level.FAIL, "broken: mend it")) == "fail  broken: mend it"


def test_a_missing_source(check: Examine) -> None:
    findings = check(cameras={"desk": {"source": "missing.mp4"}, "door": {"source": "rtsp://u:secret@127.0.0.1:9/x"}})
    assert about(findings, "camera desk").level is Level.FAIL
    assert about(findings, "camera door").level is Level.FAIL
    assert "secret" not in "".join(map(str, findings))


def test_a_model_file_that_is_no_model(check: Examine, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.onnx"
    wrong.write_text("no model")
    assert about(check(classifier__model=str(wrong)), "wrong.onnx").level is Level.FAIL


def test_plug_ins_that_are_not_installed(check: Examine) -> None:
    findings = check(detector__name="nosuch", transport="nosuch")
    assert about(findings, "there is no detector").level is Level.FAIL
    assert about(findings, "there is no transport").level is Level.FAIL


def test_an_address_in_use(check: Examine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        findings = check(address=f"tcp://127.0.0.1:{port}", metrics=f"127.0.0.1:{port}")
    assert about(findings, "tcp://").level is Level.FAIL
    assert about(findings, "metrics cannot be served").level is Level.FAIL


def test_settings_that_a_role_would_refuse_fail_a_check(check: Examine, tmp_path: Path) -> None:
    keys.new(tmp_path / "keys", "door", "capture")
    address = f"tcp://0.0.0.0:{free_port()}"
    findings = check(address=address, keys=str(tmp_path / "keys"), metrics="0.0.0.0:0")
    assert about(findings, address).level is Level.FAIL
    assert "--purpose" in about(findings, address).text
    assert about(findings, "set metrics_token").level is Level.FAIL
    assert about(check(deployment__purpose="workplace"), "deployment.exception").level is Level.FAIL
    too_long = tmp_path / ("x" * 300) / "events.db"
    assert about(check(journal__path=str(too_long)), "name too long").level is Level.FAIL


def test_a_source_that_raises_an_unexpected_exception(check: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("no width")

    monkeypatch.setattr(sources, "open_source", broken)
    found = about(check(cameras={"desk": {"source": "0"}}), "camera desk")
    assert (found.level, found.text) == (Level.FAIL, "camera desk: its source failed: ZeroDivisionError: no width")


def test_a_metrics_port_that_another_fer_stream_process_serves(check: Examine) -> None:
    server = Server("127.0.0.1:0", {"/healthz": lambda _: Answer(200, "", b'{"status":"alive"}')}, None)
    try:
        assert about(check(metrics=f"127.0.0.1:{server.port}"), "a fer-stream process serves it").level is Level.OK
    finally:
        server.close()


def test_a_journal_that_exists(check: Examine, tmp_path: Path) -> None:
    journal = Writer(tmp_path / "events.db")
    journal.close()
    assert about(check(journal__path=str(tmp_path / "events.db")), "0 events so far").level is Level.OK


def test_a_file_that_is_no_journal(check: Examine) -> None:
    assert about(check(journal__path=__file__), "test_doctor.py").level is Level.FAIL


def test_a_journal_that_cannot_be_made(check: Examine) -> None:
    finding = about(check(journal__path=f"{__file__}/events.db"), "cannot be made")
    assert finding.level is Level.FAIL
    assert "--journal" in finding.text


def test_sinks(check: Examine, tmp_path: Path) -> None:
    receiver = Receiver(tmp_path).start()
    hook = f"webhook:{receiver.address}"
    tables = {
        "archive": {"sink": f"file:{tmp_path}/events.jsonl"},
        "lost": {"sink": f"file:{tmp_path}/missing/events.jsonl"},
        "hook": {"sink": hook},
        "unsigned": {"sink": hook, "options": {"secret": f"file:{tmp_path}/missing"}},
        "unset": {"sink": hook, "options": {"token": "env:NO_SUCH_VARIABLE"}},
        "down": {"sink": f"webhook:http://fer:secret@127.0.0.1:{free_port()}/hook"},
        "odd": {"sink": hook, "options": {"colour": "red"}},
        "typo": {"sink": "webhok:http://127.0.0.1/"},
    }
    try:
        findings = check(deliver=tables, sinks=[hook])
    finally:
        receiver.kill()
    for name, level, said in [
        ("archive", Level.OK, "is ready"),
        ("lost", Level.FAIL, "missing/events.jsonl': No such file"),
        ("hook", Level.OK, f"{hook} is ready"),
        (hook, Level.OK, "is ready"),
        ("unsigned", Level.WARN, "missing cannot be read"),
        ("unset", Level.FAIL, "NO_SUCH_VARIABLE, which is not set"),
        ("down", Level.WARN, "cannot be reached: Connection refused"),
        ("odd", Level.FAIL, "colour"),
        ("typo", Level.FAIL, "there is no sink 'webhok'; installed are: file, kafka, "),
    ]:
        found = about(findings, f"sink {name}: ")
        assert (found.level, said in found.text) == (level, True), found
    assert "secret" not in about(findings, "sink down").text
    assert not (tmp_path / "events.jsonl").exists()
    assert all(request["method"] == "OPTIONS" for request in receiver.requests())


def test_a_sink_that_raises_an_unexpected_exception(check: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(argument: str, settings: object) -> None:
        raise ZeroDivisionError("no width")

    monkeypatch.setattr("fer_stream.sinks.file.open_sink", broken)
    found = about(check(deliver={"archive": {"sink": "file:x"}}), "sink archive")
    assert (found.level, found.text) == (Level.FAIL, "sink archive: it failed: ZeroDivisionError: no width")


def test_more_workers_than_cores(check: Examine) -> None:
    assert about(check(workers=256), "256 workers share").level is Level.WARN


def test_the_command_fails_if_a_check_fails(tmp_path: Path) -> None:
    command = [
        "doctor",
        "--bind",
        f"ipc://{tmp_path}/a",
        "--journal",
        str(tmp_path / "events.db"),
        "--model",
        "no.onnx",
    ]
    found = subprocess.run(
        [sys.executable, "-m", "fer_stream", *command], capture_output=True, text=True, check=False, timeout=120
    )
    assert found.returncode == 1
    assert found.stderr == ""
    levels = {line.split()[0] for line in found.stdout.splitlines()}
    assert {"ok", "fail"} <= levels <= {"ok", "warn", "fail"}
    assert [line for line in found.stdout.splitlines() if line.startswith("fail") and "no.onnx" in line]
