"""BORIS's files are read as JSON, by openpyxl, and by our own reader; `test_programs` has BORIS itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import openpyxl
import pytest
from boris_spans import SPANS, paired

from fer_stream.analysis import exports
from fer_stream.interchange.annotations import Annotation
from fer_stream.interchange.formats import read_annotations

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.analysis.exports import Recording


@pytest.fixture
def folder(recording: Recording, tmp_path: Path) -> Path:
    assert exports.write(["boris"], recording, tmp_path) == ["talk.boris", "talk_boris.xlsx"]
    return tmp_path


def test_the_project_has_the_film_the_ethogram_and_all_spans(folder: Path) -> None:
    project = json.loads((folder / "talk.boris").read_text(encoding="utf-8"))
    assert project["project_format_version"] == "7.0"
    (observation,) = project["observations"].values()
    assert paired((time, subject, code) for time, subject, code, *_ in observation["events"]) == SPANS
    assert [subject["name"] for subject in project["subjects_conf"].values()] == ["track 1", "track 2", "track 3"]
    codes = [behaviour["code"] for behaviour in project["behaviors_conf"].values()]
    assert codes == ["in view", "happy", 'sad <&"> tired', "a; b / c", "naïve 😀", "x --> y", "two lines"]
    assert {behaviour["type"] for behaviour in project["behaviors_conf"].values()} == {"State event"}
    film = '../films/talk <&"> é.mp4'
    assert observation["file"]["1"] == [film]
    assert observation["media_info"]["length"] == {film: 3725.5}
    assert observation["media_info"]["fps"] == {film: pytest.approx(25, abs=0.001)}
    comments = {(code, comment) for _, _, code, _, comment, _ in observation["events"]}
    assert ("happy", "mean probability 0.7500") in comments


def test_openpyxl_reads_the_same_events(folder: Path) -> None:
    (sheet,) = openpyxl.load_workbook(folder / "talk_boris.xlsx").worksheets
    heading, *rows = sheet.iter_rows(values_only=True)
    assert heading == ("time", "subject", "code", "modifier", "comment")
    assert paired((time, subject, code) for time, subject, code, _, _ in rows) == SPANS


def test_agree_reads_the_project(folder: Path) -> None:
    (coding,) = read_annotations(folder / "talk.boris")
    expected = [Annotation(start, end, code, subject) for start, end, subject, code in SPANS if code != "in view"]
    assert len(coding.annotations) == len(expected)
    assert set(coding.annotations) == set(expected)


def test_a_label_is_not_taken_for_the_stay(recording: Recording, tmp_path: Path) -> None:
    spans = (exports.Span(1, 0, 9), exports.Span(1, 1, 2, "in view", 0.5))
    exports.write(["boris", "bids"], replace(recording, labels=("in view",), spans=spans), tmp_path)
    for name in ("talk.boris", "talk_events.tsv"):
        (coding,) = read_annotations(tmp_path / name)
        ((label, start, end),) = [(one.label, one.start, one.end) for one in coding.annotations]
        assert (label, start, end) == ("'in view'", 1.0, 2.0)


def test_a_recording_without_a_face_is_a_live_observation(empty: Recording, tmp_path: Path) -> None:
    exports.write(["boris"], empty, tmp_path)
    project = json.loads((tmp_path / "door.boris").read_text(encoding="utf-8"))
    (observation,) = project["observations"].values()
    assert (observation["type"], observation["file"], observation["events"]) == ("LIVE", {}, [])
    (sheet,) = openpyxl.load_workbook(tmp_path / "door_boris.xlsx").worksheets
    assert sheet.max_row == 1


def test_a_formula_or_an_address_is_a_text(recording: Recording, tmp_path: Path) -> None:
    labels = ("=1+1", "https://example.org", "+a", "@b")
    spans = tuple(exports.Span(1, at, at + 1, label, 0.5) for at, label in enumerate(labels))
    exports.write(["boris"], replace(recording, labels=labels, spans=spans), tmp_path)
    (sheet,) = openpyxl.load_workbook(tmp_path / "talk_boris.xlsx").worksheets
    cells = [row[2] for row in sheet.iter_rows(min_row=2)]
    assert {cell.value for cell in cells} == set(labels)
    assert {cell.data_type for cell in cells} == {"s"}
    assert not any(cell.hyperlink for cell in cells)
