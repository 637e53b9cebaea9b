"""The purpose of a deployment: required if other machines can reach it, refused if prohibited, and logged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from processes import free_port

from fer_stream.errors import ConfigError
from fer_stream.inference.recognizer import Recognizer
from fer_stream.settings import tree
from fer_stream.settings.deployment import PROHIBITED, beyond, check_purpose, check_reach, loopback
from fer_stream.transports import keys

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli

PORTRAIT = "fer_stream/assets/grace_hopper.jpg"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_loopback(host: str) -> None:
    assert loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.0.2.1", "camera.example", "", "*", "localhost.example", "127.example.org"]
)
def test_not_loopback(host: str) -> None:
    assert not loopback(host)
    assert beyond(f"tcp://{'[::]' if host == '::' else host}:5550")


def test_no_network_is_not_beyond() -> None:
    assert not beyond("ipc:///tmp/x")
    assert not beyond("memory://x")
    assert not beyond("tcp://[::1]:5550")
    assert beyond("tcp://[:5550"), "an address that cannot be parsed does not count as safe"


@pytest.mark.parametrize("purpose", PROHIBITED)
def test_what_the_law_prohibits_is_refused_unless_a_reason_is_stated(purpose: str) -> None:
    with pytest.raises(ConfigError, match=r"AI Act, Art. 5\(1\)\(f\)\), except for medical or safety reasons; if one"):
        check_purpose(tree.load({"deployment.purpose": purpose}))
    with pytest.raises(ConfigError, match="prohibited"):
        Recognizer.from_settings(tree.load({"deployment.purpose": purpose}))
    for reason in ("medical", "safety"):
        check_purpose(tree.load({"deployment.purpose": purpose, "deployment.exception": reason}))
    with pytest.raises(ConfigError):
        tree.load({"deployment.purpose": purpose, "deployment.exception": "productivity"})


def test_beyond_this_machine_a_purpose_must_be_set() -> None:
    with pytest.raises(
        ConfigError, match=r"may be reached from other machines: state what .* with --purpose .*, one of development"
    ):
        check_reach(tree.load({"address": "tcp://0.0.0.0:5550"}))
    check_reach(tree.load({"address": "tcp://0.0.0.0:5550", "deployment.purpose": "research"}))
    check_reach(tree.load({"address": "tcp://127.0.0.1:5550"}))
    check_purpose(tree.load())


def test_an_aggregator_asks_for_keys_then_for_its_purpose_and_logs_it(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    command = ("aggregator", "--bind", f"tcp://0.0.0.0:{free_port()}", "--keys", folder, "--journal", "e.db")
    without_keys = cli.run(*command)
    assert without_keys.popen.returncode == 2
    assert "holds no key" in without_keys.err
    keys.new(folder, "door", "capture")
    without_purpose = cli.run(*command)
    assert without_purpose.popen.returncode == 2
    assert "state what it is used for with --purpose (deployment.purpose)" in without_purpose.err
    with_purpose = cli.start(*command, "--purpose", "research")
    with_purpose.until_said("ready at")
    (line,) = [json.loads(line) for line in with_purpose.err.splitlines() if "ready at" in line]
    assert line["purpose"] == "research"
    assert with_purpose.stop() == 0


@pytest.mark.parametrize("command", [("run",), ("aggregator",), ("worker",), ("recognize", PORTRAIT)])
def test_nothing_starts_for_what_is_prohibited(command: tuple[str, ...], cli: Cli) -> None:
    process = cli.run(*command, FER_STREAM_DEPLOYMENT__PURPOSE="workplace")
    assert process.popen.returncode == 2
    (sentence,) = process.errors
    assert "deployment.purpose is workplace: inferring emotions of people at work" in sentence
    assert process.out == ""


def test_a_run_for_a_stated_reason_says_both(cli: Cli) -> None:
    environment = {"FER_STREAM_DEPLOYMENT__PURPOSE": "workplace", "FER_STREAM_DEPLOYMENT__EXCEPTION": "safety"}
    process = cli.run("run", "--duration", 1, "--workers", 1, "--bind", f"ipc://{cli.temporary}/r", **environment)
    assert process.popen.returncode == 0
    (line,) = [json.loads(line) for line in process.err.splitlines() if "ready at" in line]
    assert (line["purpose"], line["exception"]) == ("workplace", "safety")
