"""The page about coders, followed word by word; the values are computed again from the events by other code."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING

import pytest
from documents import ROOT, blocks, commands

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli

PAGE = ROOT / "docs/how-to/agreement.md"


def _seconds(time: str) -> float:
    assert time.startswith("1970-01-01T00:00:")
    return float(time[17:-1])


def test_the_page_is_followed(cli: Cli, clip: Path) -> None:
    shutil.copy(clip, cli.folder / "talk.mp4")
    first = {block.language: block for block in reversed(list(blocks(PAGE)))}
    table = first["csv"]
    (cli.folder / table.title).write_text(table.text)
    for words in commands(first["bash"].text):
        done = cli.run(*words[1:])
        assert done.popen.returncode == 0, done.err
    assert "fer-stream and anna, 1 film, " in done.out
    folder = cli.folder / "agreement"
    assert {path.name for path in folder.iterdir()} == {
        *("agreement.html", "agreement.csv", "table.md", "table.tex", "summary.json"),
    }
    with (folder / "agreement.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (agreed,) = (float(row["value"]) for row in rows if (row["scope"], row["measure"]) == ("all time", "agreement"))
    # Once more: moment by moment, on the longest track of the events.
    events = [json.loads(line) for line in (cli.folder / "talk/events.jsonl").read_text().splitlines()]
    spans: dict[str, list[tuple[float, float, str]]] = {}
    for event in events:
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
