"""The page about coders, followed word by word; the values are computed again from the events by other code."""

from __future__ import annotations

import csv
import json
import math
import shutil
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from documents import ROOT, blocks, commands

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli, Process

PAGE = ROOT / "docs/how-to/agreement.md"


def _seconds(time: str) -> float:
    assert time.startswith("1970-01-01T00:00:")
    return float(time[17:-1])


def _follow(cli: Cli, what: str) -> list[Process]:
    """Run the commands of the page's first block with this text."""
    block = next(block for block in blocks(PAGE) if block.language == "bash" and what in block.text)
    done = [cli.run(*words[1:]) for words in commands(block.text)]
    for each in done:
        assert each.popen.returncode == 0, each.err
    return done


def _events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "faces.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_is_followed(cli: Cli, clip: Path) -> None:
    shutil.copy(clip, cli.folder / "talk.mp4")
    table = next(block for block in blocks(PAGE) if block.language == "csv")
    (cli.folder / table.title).write_text(table.text)
    (done,) = _follow(cli, "anna.csv")[-1:]
    assert "fer-stream and anna, 1 film, " in done.out
    folder = cli.folder / "agreement"
    assert {path.name for path in folder.iterdir()} == {
        *("agreement.html", "agreement.csv", "table.md", "table.tex", "summary.json"),
    }
    with (folder / "agreement.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (agreed,) = (float(row["value"]) for row in rows if (row["scope"], row["measure"]) == ("all time", "agreement"))
    # Once more: moment by moment, on the longest track of the events.
    spans: dict[str, list[tuple[float, float, str]]] = {}
    for event in _events(cli.folder / "talk"):
        if event["type"] == "emotion.ended":
            data = event["data"]
            found = (_seconds(data["start_time"]), _seconds(data["end_time"]), data["label"])
            spans.setdefault(event["subject"], []).append(found)
    ours = max(spans.values(), key=lambda each: sum(end - start for start, end, _ in each))
    anna = [(0.2, 2.0, "happy"), (2.0, 3.9, "neutral")]

    def label(of: list[tuple[float, float, str]], at: float) -> str:
        return next((name for start, end, name in of if start <= at < end), "")

    times = [0.2 + (number + 0.5) * 0.001 for number in range(3700)]
    expected = sum(label(ours, at) == label(anna, at) for at in times) / len(times)
    assert agreed == pytest.approx(expected, abs=0.02)


def test_a_camera_is_calibrated(cli: Cli, clip: Path) -> None:
    """A coder mostly says "sad" of a face that the model calls happy: the corrected model says it, too."""
    days = ("monday", "tuesday", "wednesday", "thursday")
    (cli.folder / "anna").mkdir()
    for number, day in enumerate(days):
        change = 3.0 + 0.1 * number
        text = f"start,end,label\n0.0,{change},sad\n{change},4.0,neutral\n"
        (cli.folder / "anna" / f"{day}.csv").write_text(text)
    for name in (*days, "evening"):
        shutil.copy(clip, cli.folder / f"{name}.mp4")
    _, agreed = _follow(cli, "--calibrate")
    assert "The calibration helps on held-out films: the log-loss goes from " in agreed.out
    text = (cli.folder / "fitted/calibration.toml").read_text()
    fitted = tomllib.loads(text)["calibration"]["door"]
    shown = next(block for block in blocks(PAGE) if block.title == "calibration.toml")
    assert fitted.keys() == tomllib.loads(shown.text)["calibration"]["door"].keys()

    _follow(cli, "evening.mp4")
    before, after = cli.folder / "films/monday", cli.folder / "evening"
    used = {"temperature": fitted["temperature"]} | {f"bias.{key}": value for key, value in fitted["bias"].items()}
    assert _events(after)[0]["data"]["calibration"] == used
    assert "calibration" not in _events(before)[0]["data"]
    assert json.loads((after / "summary.json").read_text())["settings"]["calibration"] == {"door": fitted}
    scored = [[row[name] for name in row if name.startswith("scored_")] for row in _rows(before)]
    assert [[row[name] for name in row if name.startswith("scored_")] for row in _rows(after)] == scored
    labels = [{row["label"] for row in _rows(folder) if row["label"]} for folder in (before, after)]
    assert "happy" in labels[0]
    assert labels[1] == {"sad"}

    # The log-loss once more, of the films of the fit: the correction lowers it.
    names = [name.removeprefix("scored_") for name in _rows(before)[0] if name.startswith("scored_")]

    def loss(temperature: float, bias: dict[str, float]) -> float:
        found = []
        for row in _rows(before):
            if row["track"] == "1" and row[f"scored_{names[0]}"]:
                truth = "sad" if float(row["time"]) < 3.0 else "neutral"
                raised = {
                    name: max(float(row[f"scored_{name}"]), 1e-4) ** (1 / temperature) * math.exp(bias.get(name, 0))
                    for name in names
                }
                found.append(-math.log(raised[truth] / sum(raised.values())))
        return sum(found) / len(found)

    assert loss(fitted["temperature"], fitted["bias"]) < loss(1.0, {}) - 0.5
