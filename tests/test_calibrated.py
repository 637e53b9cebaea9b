"""A calibration in the settings file: the service and `analyze` give the same events, and say which one it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli

SETTINGS = """
[calibration.portraits]
temperature = 2.0
bias = {sad = 4.0}
"""


def test_the_service_and_analyze_calibrate_alike(cli: Cli, clip: Path) -> None:
    (cli.folder / "calibration.toml").write_text(SETTINGS)
    command = (str(clip), "--config", "calibration.toml")
    ran = cli.run("run", *command, "--policy", "wait", "--workers", "1", "--format", "jsonl", "--journal", "events.db")
    assert ran.popen.returncode == 0, ran.err
    assert cli.run("analyze", *command, "--output", "found").popen.returncode == 0
    lines = (cli.folder / "found/events.jsonl").read_text().splitlines()
    assert ran.out.splitlines() == lines
    events = [json.loads(line) for line in lines]
    assert {event["data"]["label"] for event in events if event["type"].startswith("emotion.")} == {"sad"}
    assert events[0]["data"]["calibration"] == {"temperature": 2.0, "bias.sad": 4.0}
    shown = cli.run("config", "--config", "calibration.toml").out
    assert "calibration.portraits.temperature = 2.0" in shown


def test_a_calibration_for_another_model_is_refused(cli: Cli, clip: Path) -> None:
    (cli.folder / "calibration.toml").write_text(SETTINGS.replace("sad", "joy"))
    message = "calibration.portraits.bias: the model has no label 'joy'; it has: "
    for command in (("run", str(clip)), ("analyze", str(clip), "--output", "found")):
        done = cli.run(*command, "--config", "calibration.toml")
        assert done.popen.returncode != 0
        assert message in done.err
    doctor = cli.run("doctor", "--config", "calibration.toml")
    assert doctor.popen.returncode == 1
    assert message in doctor.out
