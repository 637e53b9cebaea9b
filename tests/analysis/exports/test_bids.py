"""BIDS events are read back by pandas and our own reader; `test_programs` has the validator of BIDS."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas
import pytest

from fer_stream.analysis import exports
from fer_stream.interchange.annotations import Annotation
from fer_stream.interchange.formats import read_annotations
from fer_stream.interchange.markers import Marker, read_markers

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.analysis.exports import Recording

STAY = "in view"


def test_pandas_reads_all_spans(recording: Recording, tmp_path: Path) -> None:
    assert exports.write(["bids"], recording, tmp_path) == ["talk_events.tsv", "talk_events.json"]
    found = pandas.read_csv(tmp_path / "talk_events.tsv", sep="\t", na_values=["n/a"], keep_default_na=False)
    assert list(found.columns) == ["onset", "duration", "trial_type", "track", "probability"]
    assert found["onset"].is_monotonic_increasing
    labels = found[found["trial_type"] != STAY]
    assert list(labels.itertuples(index=False, name=None)) == [
        (0.04, 9.96, "happy", 1, 0.75),
        (5.0, 0.0, "x --> y", 2, 0.5),
        (10.0, pytest.approx(10.124), 'sad <&"> tired', 1, 0.8),
        (20.124, 0.0, "a, b | c", 1, 0.6),
        (20.124, pytest.approx(9.876), "naïve 😀", 1, 0.7),
        (3661.001, pytest.approx(64.499), "two lines", 1, 0.9),
    ]
    stays = found[found["trial_type"] == STAY]
    assert list(stays["track"]) == [1, 2, 3]
    assert stays["probability"].isna().all()


def test_the_sidecar_describes_each_column_and_label(recording: Recording, tmp_path: Path) -> None:
    exports.write(["bids"], recording, tmp_path)
    columns = pandas.read_csv(tmp_path / "talk_events.tsv", sep="\t").columns
    sidecar = json.loads((tmp_path / "talk_events.json").read_text(encoding="utf-8"))
    assert list(sidecar) == list(columns)
    assert all(about["Description"] for about in sidecar.values())
    levels = [STAY, "happy", 'sad <&"> tired', "a, b | c", "naïve 😀", "x --> y", "two lines"]
    assert list(sidecar["trial_type"]["Levels"]) == levels
    assert (sidecar["onset"]["Units"], sidecar["duration"]["Units"]) == ("s", "s")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("sub-01_task-talk_video", "sub-01_task-talk_events.tsv"),
        ("sub-01_ses-2_task-talk_run-1_beh", "sub-01_ses-2_task-talk_run-1_events.tsv"),
        ("sub-01_task-talk", "sub-01_task-talk_events.tsv"),
        ("talk_video", "talk_video_events.tsv"),
    ],
)
def test_events_takes_the_place_of_a_suffix_of_bids(name: str, file: str, recording: Recording, tmp_path: Path) -> None:
    assert exports.write(["bids"], replace(recording, name=name), tmp_path)[0] == file


def test_a_recording_without_a_face_has_a_heading_only(empty: Recording, tmp_path: Path) -> None:
    exports.write(["bids"], empty, tmp_path)
    assert (tmp_path / "door_events.tsv").read_text() == "onset\tduration\ttrial_type\ttrack\tprobability\n"


def test_agree_and_markers_read_it(recording: Recording, tmp_path: Path) -> None:
    exports.write(["bids"], recording, tmp_path)
    (coding,) = read_annotations(tmp_path / "talk_events.tsv")
    assert Annotation(0.04, 10.0, "happy", "1") in coding.annotations
    spans = tuple(span for span in recording.spans if span.end > span.start + 0.001)  # a trial lasts
    exports.write(["bids"], replace(recording, spans=spans), tmp_path)
    assert Marker("happy", 0.04, 10.0) in read_markers(tmp_path / "talk_events.tsv")
