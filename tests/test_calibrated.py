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


def test_other_cameras_are_as_before(cli: Cli, clip: Path) -> None:
    """Byte for byte: no event and no table changes, and what was analysed is not analysed again."""
    (cli.folder / "calibration.toml").write_text(SETTINGS.replace("portraits", "hall"))
    assert cli.run("analyze", clip, "--output", "before").popen.returncode == 0
    command = ("analyze", clip, "--config", "calibration.toml", "--output")
    assert cli.run(*command, "after").popen.returncode == 0
    for name in ("events.jsonl", "events.csv", "faces.csv", "frames.csv"):
        assert (cli.folder / "after" / name).read_bytes() == (cli.folder / "before" / name).read_bytes()
    summaries = [json.loads((cli.folder / name / "summary.json").read_text()) for name in ("before", "after")]
    assert [each["settings"]["calibration"] for each in summaries] == [{}, {}]
    assert summaries[0]["identity"] == summaries[1]["identity"]
    assert cli.run(*command, "before").popen.returncode == 0
    again = json.loads((cli.folder / "before/summary.json").read_text())
    assert again["pace"] == summaries[0]["pace"], "it was not analysed again"
    (cli.folder / "calibration.toml").write_text(SETTINGS)
    assert cli.run(*command, "before").popen.returncode == 0
    changed = json.loads((cli.folder / "before/summary.json").read_text())
    assert changed["identity"] != summaries[0]["identity"]
    assert changed["settings"]["calibration"] == {"portraits": {"temperature": 2.0, "bias": {"sad": 4.0}}}


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
    (cli.folder / "calibration.toml").write_text(SETTINGS)
    assert "calibration of portraits" in cli.run("doctor", "--config", "calibration.toml").out
