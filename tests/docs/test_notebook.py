"""The notebook is executed, and its shares are counted again, moment by moment; its outputs are not committed."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import nbclient
import nbformat
import pytest
from documents import ROOT

import fer_stream

if TYPE_CHECKING:
    from pathlib import Path

NOTEBOOK = ROOT / "docs/examples/study.ipynb"
TRIALS = {"greeting": (0.0, 10.0), "task": (10.0, 25.0)}

STEP = 0.01
"""Seconds between moments."""


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_no_outputs_are_committed() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_it_is_executed(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_STREAM_CLASSIFIER__MODEL", str(tiny_model))
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    (tmp_path / "study_films.py").symlink_to(ROOT / "docs/examples/study_films.py")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "<svg" in (tmp_path / "shares.svg").read_text()
    told = _read(tmp_path / "by_film.csv")
    assert {(row["film"], row["trial"]) for row in told} == {
        (film, trial) for film in ("morning", "evening") for trial in TRIALS
    }
    for film in ("morning", "evening"):
        events = fer_stream.analyze(tmp_path / f"films/{film}.mp4").events.to_dicts()
        stays, labels = ([one for one in events if one["type"] == kind] for kind in ("face.left", "emotion.ended"))
        for trial, (begin, end) in TRIALS.items():
            moments = [begin + (number + 0.5) * STEP for number in range(round((end - begin) / STEP))]
            in_view = sum(one["start"] <= at < one["end"] for one in stays for at in moments)
            happy = sum(one["start"] <= at < one["end"] for one in labels for at in moments if one["label"] == "happy")
            here = next(row for row in told if (row["film"], row["trial"]) == (film, trial))
            assert float(here["happy"]) == pytest.approx(100 * happy / in_view, abs=0.2)
            assert sum(float(here[name]) for name in here if name not in ("film", "trial")) == pytest.approx(100)
    means = _read(tmp_path / "table.csv")
    assert [row["trial"] for row in means] == list(TRIALS)
    for row in means:
        films = [float(one["happy"]) for one in told if one["trial"] == row["trial"]]
        assert float(row["happy"]) == pytest.approx(sum(films) / len(films), abs=0.06)
