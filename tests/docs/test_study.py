"""The tutorial for researchers, followed word by word; its results are computed again from the events by other code."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import pytest
from documents import ROOT, blocks, commands

PAGE = ROOT / "docs/how-to/study.md"

INSTALLATION = ("python3", ".venv/bin/pip", ".")
"""Commands of the page that are not run: the tests run in what they install."""

STEP = 0.01
"""Seconds between the moments at which labels are compared."""

Spans = list[tuple[float, float, str]]


class Followed(NamedTuple):
    """What the page's steps have left behind."""

    folder: Path
    told: dict[str, str]
    """What each command wrote to standard output."""

    def rows(self, name: str) -> list[dict[str, str]]:
        with (self.folder / name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """Follow the page in a folder that has the clone's documents, with the model that is installed."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "docs").symlink_to(ROOT / "docs")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FER_STREAM_")}
    programs = {"fer-stream": [sys.executable, "-m", "fer_stream"], "python": [sys.executable]}
    told = {}
    for block in blocks(PAGE):
        if block.title:
            (folder / block.title).write_text(block.text)
        for words in commands(block.text) if block.language == "bash" else ():
            if words[0] not in INSTALLATION:
                command = [*programs[words[0]], *words[1:]]
                environment = kept | {"HOME": str(folder)}
                done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
                assert done.returncode == 0 or words[1] == "doctor", f"{words}: {done.stdout}{done.stderr}"
                told[" ".join(words)] = done.stdout
    return Followed(folder, told)


def _overlap(spans: Spans, begin: float, end: float) -> Counter[str]:
    """Return the seconds of each name between two times."""
    found: Counter[str] = Counter()
    for start, stop, name in spans:
        found[name] += max(0.0, min(stop, end) - max(start, begin))  # type: ignore[assignment]
    return found


def _spans(rows: list[dict[str, str]], film: str, kind: str, track: str = "") -> Spans:
    return [
        (float(row["start"]), float(row["end"]), row["label"])
        for row in rows
        if row["film"] == film and row["type"] == kind and track in ("", row["track"])
    ]


def test_the_table_for_the_paper(followed: Followed) -> None:
    """Shares by trial and film, from the intervals of labels and the stays, cut by hand; then over films."""
    events, trials = followed.rows("study/events.csv"), followed.rows("trials.csv")
    shares: dict[str, list[dict[str, float]]] = {}
    for trial in trials:
        begin, end = float(trial["start"]), float(trial["end"])
        stays = _overlap(_spans(events, trial["film"], "face.left"), begin, end)[""]
        labels = _overlap(_spans(events, trial["film"], "emotion.ended"), begin, end)
        assert stays > 10, "there are faces in each trial"
        found = {label: 100 * part / stays for label, part in labels.items()}
        shares.setdefault(trial["name"], []).append(found | {"uncertain": 100 - sum(found.values())})
    table = followed.rows("table.csv")
    possible = json.loads((followed.folder / "study/morning/summary.json").read_text())["labels"]
    assert [row["trial"] for row in table] == sorted(shares) == ["greeting", "task"]
    for row in table:
        films = shares[row["trial"]]
        assert int(row["films"]) == len(films) == 2
        assert {"happy", "neutral", "uncertain"} <= {label for film in films for label in film}
        names = {name.rpartition(" ")[0] for name in row} - {""}
        assert names == {"uncertain", *possible}, "labels that were never given have shares of 0"
        for label in names:
            values = [film.get(label, 0.0) for film in films]
            assert float(row[f"{label} mean"]) == pytest.approx(mean(values), abs=0.1)
            assert float(row[f"{label} std"]) == pytest.approx(stdev(values), abs=0.1)


def test_the_agreement(followed: Followed) -> None:
    """Cohen's kappa, counted at moments, over what the coder has coded."""
    events, coded = followed.rows("study/events.csv"), followed.rows("anna.csv")
    pairs: Counter[tuple[str, str]] = Counter()

    def label(spans: Spans, at: float) -> str:
        return next((name for start, end, name in spans if start <= at < end), "")

    for film, track in (("morning", "1"), ("evening", "2")):
        anna = [(float(row["start"]), float(row["end"]), row["label"]) for row in coded if row["film"] == film]
        ours = _spans(events, film, "emotion.ended", track=track)
        for number in range(round((anna[-1][1] - anna[0][0]) / STEP)):
            at = anna[0][0] + (number + 0.5) * STEP
            pairs[label(ours, at), label(anna, at)] += 1
    whole = pairs.total()
    agreed = sum(count for (one, other), count in pairs.items() if one == other) / whole
    names = {name for pair in pairs for name in pair}
    chance = sum(
        sum(count for pair, count in pairs.items() if pair[0] == name)
        * sum(count for pair, count in pairs.items() if pair[1] == name)
        for name in names
    ) / (whole * whole)  # fmt: skip
    told = followed.rows("study/agreement/agreement.csv")
    value = {row["measure"]: row["value"] for row in told if row["scope"] == "all time" and not row["label"]}
    assert float(value["agreement"]) == pytest.approx(agreed, abs=0.01)
    assert float(value["kappa"]) == pytest.approx((agreed - chance) / (1 - chance), abs=0.03)
    assert agreed > 0.8, "the coder of the page describes what is to be seen"
    assert float(value["kappa"]) > 0.6


def test_the_facts_for_the_methods_section(followed: Followed) -> None:
    told = followed.told["python methods.py"]
    for name in ("morning", "evening"):
        film = json.loads((followed.folder / "study" / name / "summary.json").read_text())
        tracks = {row["track"] for row in followed.rows(f"study/{name}/faces.csv")} - {""}
        assert f"{name}.mp4 450 frames, 30 s, {len(tracks)} tracks" in told
        assert film["version"] in told
        assert film["model"] in told
        assert film["models"]["mtcnn-pnet.onnx"][:12] in told
        assert len(followed.rows(f"study/{name}/frames.csv")) == 450


def test_what_the_page_says_of_the_files(followed: Followed) -> None:
    """The tables are joined, exports are there, and no file has pixels."""
    study = followed.folder / "study"
    for table in ("faces", "events", "frames", "statistics"):
        rows = followed.rows(f"study/{table}.csv")
        assert {row["film"] for row in rows} == {"morning", "evening"}
        assert {row["trial"] for row in rows} >= {"greeting", "task"}
    assert {path.name for path in (study / "agreement").iterdir()} >= {"agreement.html", "table.md", "table.tex"}
    names = {path.name for path in study.rglob("*")}
    assert {"morning.eaf", "evening.eaf", "morning_events.tsv", "report.html"} <= names
    assert not {Path(name).suffix for name in names} & {".mp4", ".jpg", ".jpeg", ".png", ".webp"}
    assert "<image" not in (study / "morning/report.html").read_text()
    report = (study / "report.html").read_text()
    assert "<image" not in report
    assert all(f"<h2>{title}</h2>" in report for title in ("Films", "Trials", "Agreement with coders"))
    told = followed.told["fer-stream stats --events study --markers trials.csv --group track"]
    rows = [line.split() for line in told.splitlines()[1:]]
    assert {(row[0], row[4]) for row in rows} >= {("morning", "1"), ("evening", "2")}
