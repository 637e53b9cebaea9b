"""The page about exports, trials and several films, followed word by word; its values are computed again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pandas
import polars
import pytest
from documents import ROOT, blocks, commands

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli

PAGE = ROOT / "docs/how-to/exports.md"


def _seconds(time: str) -> float:
    assert time.startswith("1970-01-01T00:00:")
    return float(time[17:-1])


def test_the_page_is_followed(cli: Cli, clip: Path) -> None:
    shutil.copy(clip, cli.folder / "talk.mp4")
    (cli.folder / "films").mkdir()
    for name in ("one.mp4", "two.mp4"):
        shutil.copy(clip, cli.folder / "films" / name)
    told = []
    for block in blocks(PAGE):
        if block.language == "csv":
            (cli.folder / block.title).write_text(block.text)
        for words in commands(block.text) if block.language == "bash" else ():
            done = cli.run(*words[1:])
            assert done.popen.returncode == 0, done.err
            told.append(done.err)
        if block.language == "python":
            printed = subprocess.run(
                [sys.executable, "-W", "error", "-c", block.text],
                cwd=cli.folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert printed.returncode == 0, printed.stderr
            told.append(printed.stdout)
    first, elan, trials, by_trial, several, by_film = told
    exported = "talk.boris, talk.eaf, talk.vtt, talk_boris.xlsx, talk_events.json, talk_events.tsv"
    assert f"exported {exported}" in first
    assert "track 1 [(" in elan
    assert "track 1: happy" in elan
    assert "done already" in trials
    assert "2 trials in its tables" in trials
    assert "greeting" in by_trial
    assert "2 of 2 films in common tables" in several
    assert "one" in by_film
    assert "two" in by_film
    _intervals(cli.folder / "talk")
    _trials(cli.folder / "talk")
    assert {path.name for path in (cli.folder / "all").iterdir() if path.suffix == ".parquet"} == {
        *("faces.parquet", "events.parquet", "frames.parquet"),
    }
    assert (cli.folder / "all/one/one.eaf").is_file()


def _intervals(folder: Path) -> None:
    """Compare BIDS's rows with the events in `events.jsonl`."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    expected = []
    for event in events:
        if event["type"] in ("emotion.ended", "face.left"):
            data = event["data"]
            begin, end = _seconds(data["start_time"]), _seconds(data["end_time"])
            track = int(event["subject"].removeprefix("tracks/"))
            expected.append((round(begin, 3), round(end - begin, 3), data.get("label", "in view"), track))
    rows = pandas.read_csv(folder / "talk_events.tsv", sep="\t", na_values=["n/a"], keep_default_na=False)
    found = list(rows[["onset", "duration", "trial_type", "track"]].itertuples(index=False, name=None))
    assert len(found) >= 3
    for row, other in zip(sorted(found), sorted(expected), strict=True):
        assert row[2:] == other[2:]
        assert row[:2] == pytest.approx(other[:2], abs=0.0011)


def _trials(folder: Path) -> None:
    """Find the trial of each row again."""
    for name in ("faces", "events", "frames"):
        table = polars.read_parquet(folder / f"{name}.parquet")
        assert table.columns[-1] == "trial"
        for time, trial in table.select("time", "trial").iter_rows():
            assert trial == ("greeting" if time < 2 else "answer" if time < 3.5 else None)
        assert table.height == len(polars.read_csv(folder / f"{name}.csv"))
