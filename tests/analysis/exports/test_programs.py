"""BORIS itself and the validator of BIDS read what is written for them, in an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from boris_spans import SPANS, paired

from fer_stream.analysis import exports

if TYPE_CHECKING:
    from fer_stream.analysis.exports import Recording

PROGRAMS = ("boris-behav-obs==8.27.4", "bids-validator-deno==3.0.2")
"""The latest BORIS that runs on Python 3.11 (8.27 and 9.15 import by the same code), and the validator."""

READER = Path(__file__).with_name("boris_reader.py")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs' commands."""
    home = tmp_path_factory.mktemp("programs") / "venv"
    uv = Path(sys.executable).with_name("uv")
    for words in (("venv", "--python", sys.executable, str(home)), ("pip", "install", *PROGRAMS)):
        environment = os.environ | {"VIRTUAL_ENV": str(home)}
        done = subprocess.run([uv, *words], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return home / "bin"


def _boris(programs: Path, folder: Path, name: str) -> dict[str, Any]:
    words = [programs / "python", READER, folder / f"{name}.boris", folder / f"{name}_boris.xlsx"]
    done = subprocess.run(
        words, env=os.environ | {"QT_QPA_PLATFORM": "offscreen"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(900)
def test_boris_opens_the_project_and_imports_the_spreadsheet(
    recording: Recording, programs: Path, tmp_path: Path
) -> None:
    (tmp_path / "films").mkdir()
    (film := tmp_path / "films" / recording.title).touch()
    (folder := tmp_path / "out").mkdir()
    assert exports.media_path(str(film), film, folder) == recording.media
    exports.write(["boris"], recording, folder)
    found = _boris(programs, folder, "talk")
    assert (found["error"], found["message"], found["changed"]) == (None, "", False), "it needs no conversion"
    assert not found["problems"].replace("<br>", "")
    assert found["film"] == [recording.title], "the film is found from the project's folder"
    assert found["observed"] == [0.0, recording.duration]
    assert paired(found["project"]) == SPANS
    assert found["said"] == ["Observations imported successfully", "changed"]
    assert paired(found["spreadsheet"]) == SPANS


@pytest.mark.timeout(900)
def test_boris_opens_a_project_without_a_film_or_a_face(empty: Recording, programs: Path, tmp_path: Path) -> None:
    exports.write(["boris"], empty, tmp_path)
    found = _boris(programs, tmp_path, "door")
    assert (found["error"], found["message"], found["changed"]) == (None, "", False)
    assert not found["problems"].replace("<br>", "")
    assert found["project"] == found["spreadsheet"] == []


@pytest.mark.timeout(900)
def test_the_validator_of_bids_accepts_events_and_sidecar(
    recording: Recording, empty: Recording, programs: Path, tmp_path: Path
) -> None:
    about = {"Name": "talk", "BIDSVersion": "1.10.0", "License": "CC0", "Authors": ["A. Author", "B. Author"]}
    (tmp_path / "dataset_description.json").write_text(json.dumps(about))
    (tmp_path / "README.md").write_text("A data set with the events of one recording.\n" * 5)
    for each, task in ((recording, "talk"), (empty, "door")):
        (folder := tmp_path / "sub-01/beh").mkdir(parents=True, exist_ok=True)
        exports.write(["bids"], replace(each, name=f"sub-01_task-{task}_video"), folder)
    files = tmp_path / "sub-01/beh"
    issues = _validate(programs, tmp_path)
    assert not [each for each in issues if each["severity"] == "error"]
    ours = [each for each in issues if "SIDECAR_KEY" not in each["code"] and "sub-01" in each.get("location", "")]
    assert ours == []
    broken = files / "sub-01_task-talk_events.tsv"
    broken.write_text(broken.read_text(encoding="utf-8").replace("onset", "start"), encoding="utf-8")
    assert [each for each in _validate(programs, tmp_path) if each["severity"] == "error"], "it looks at the files"


def _validate(programs: Path, folder: Path) -> list[dict[str, Any]]:
    words = [programs / "bids-validator-deno", "--format", "json", "--max-rows", "-1", folder]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout)["issues"]["issues"]
    return found
