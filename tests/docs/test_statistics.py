"""The page about zones and statistics, followed word by word; the values are counted again from the events."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from documents import ROOT, blocks, commands

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli

PAGE = ROOT / "docs/how-to/statistics.md"
STEP = 0.001


def _seconds(time: str) -> float:
    assert time.startswith("1970-01-01T00:00:")
    return float(time[17:-1])


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _spans(events: list[dict[str, Any]], family: str) -> list[tuple[float, float, str, str]]:
    """Return begin, end, name and track of all intervals, visits or stays, which have all ended."""
    return [
        (
            _seconds(event["data"]["start_time"]),
            _seconds(event["data"]["end_time"]),
            event["data"].get("label") or event["data"].get("zone", ""),
            event["subject"],
        )
        for event in events
        if event["type"] in (f"{family}.ended", f"{family}.left")
    ]


def test_the_page_is_followed(cli: Cli, clip: Path) -> None:
    shutil.copy(clip, cli.folder / "talk.mp4")
    found = list(blocks(PAGE))
    for block in found:
        if block.language in ("toml", "csv"):
            (cli.folder / block.title).write_text(block.text)
    told = []
    for block in found:
        if block.language == "bash" and "talk" in block.text:
            for words in commands(block.text):
                done = cli.run(*words[1:])
                assert done.popen.returncode == 0, done.err
                told.append(done.out)
    folder = cli.folder / "talk"
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    visits, labels, stays = (_spans(events, family) for family in ("zone", "emotion", "face"))
    trials = {"greeting": (0.0, 2.0), "answer": (2.0, 3.5)}
    zones = _read(folder / "zones.csv")
    assert {(row["trial"], row["zone"]) for row in zones} == {(t, z) for t in trials for z in ("left", "right")}
    assert {row["zone"] for row in zones if float(row["in_view_s"])} == {"left", "right"}
    for row in zones:
        begin, end = trials[row["trial"]]
        here = [visit for visit in visits if visit[2] == row["zone"]]
        in_view = happy = 0.0
        for number in range(round((end - begin) / STEP)):
            now = begin + (number + 0.5) * STEP
            there = {track for start, stop, _, track in here if start <= now < stop}
            in_view += STEP * len(there)
            happy += STEP * sum(
                start <= now < stop and label == "happy" and track in there for start, stop, label, track in labels
            )
        assert float(row["in_view_s"]) == pytest.approx(in_view, abs=0.01)
        assert float(row.get("happy_s", 0)) == pytest.approx(happy, abs=0.01)
        inside = [visit for visit in here if visit[0] < end and visit[1] > begin]
        assert int(row["visits"]) == len(inside)
    for row in _read(folder / "statistics.csv"):
        begin, end = trials[row["trial"]]
        in_view = sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop, _, _ in stays)
        assert float(row["in_view_s"]) == pytest.approx(in_view, abs=0.002)
    crossed = [event for event in events if event["type"] == "line.crossed"]
    for row in _read(folder / "lines.csv"):
        begin, end = trials[row["trial"]]
        ours = [e for e in crossed if e["data"]["direction"] == row["direction"] and begin <= _seconds(e["time"]) < end]
        assert int(row["crossings"]) == len(ours)
    as_csv = list(csv.DictReader(told[-1].splitlines()))
    assert [{k: v for k, v in row.items() if k != "film"} for row in as_csv] == zones, "stats prints the same table"
