"""Trials: to which film each belongs, which are refused, and how a table gets their names."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import polars
import pytest

from fer_stream.analysis import trials
from fer_stream.analysis.columns import Column
from fer_stream.analysis.tables import PROVENANCE, TableFiles
from fer_stream.analysis.trials import Marking, by_film, check
from fer_stream.errors import AnnotationError, ModelError
from fer_stream.events.spans import Trial
from fer_stream.interchange.markers import Marker

if TYPE_CHECKING:
    from pathlib import Path

FILMS = {"talk": "talk.mp4", "talk-2": "talk.mp4", "walk": "walk.mov", "door": "door"}


# Whose trials they are


def test_a_trial_without_a_film_belongs_to_each() -> None:
    found = by_film([Marker("b", 5, 9), Marker("a", 0, 5), Marker("c", 9, 10, "walk.mov")], FILMS)
    assert [trial.name for trial in found["talk"]] == ["a", "b"]
    assert [trial.name for trial in found["walk"]] == ["a", "b", "c"]
    assert list(found) == list(FILMS)


@pytest.mark.parametrize(
    "name", ["walk", "walk.mov", "films/walk.mov", "/somewhere/else/walk.mov", r"D:\films\walk.mov"]
)
def test_a_film_is_named_by_its_file_or_its_camera(name: str) -> None:
    found = by_film([Marker("a", 0, 1, name)], FILMS)
    assert {film for film, its in found.items() if its} == {"walk"}


def test_the_camera_s_name_tells_two_films_of_one_name_apart() -> None:
    found = by_film([Marker("a", 0, 1, "talk-2")], FILMS)
    assert {film for film, its in found.items() if its} == {"talk-2"}
    with pytest.raises(AnnotationError, match=r"a trial's film 'talk\.mp4' may be talk or talk-2: name it by one of"):
        by_film([Marker("a", 0, 1, "talk.mp4")], FILMS)


@pytest.mark.parametrize(
    ("markers", "message"),
    [
        ([("a", 0, 1, "run.mp4")], r"a trial's film 'run\.mp4' is none of those to analyse \(talk\.mp4, "),
        ([("a", -0.5, 1)], r"the trial 'a' of talk\.mp4 starts at -0\.5 s, before the film"),
        ([("a", 0, 5), ("b", 4.9, 8)], r"the trials 'a' and 'b' of talk\.mp4 overlap: one ends at 5 s, the other st"),
        ([("a", 0, 9, "walk"), ("b", 3, 4)], r"the trials 'a' and 'b' of walk\.mov overlap"),
    ],
)
def test_trials_that_fit_no_film_are_refused(markers: list[Any], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        by_film([Marker(*each) for each in markers], FILMS)


def test_a_trial_after_the_film_is_refused_and_one_that_ends_later_gives_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check([Marker("a", 0, 10.5)], "talk.mp4", 10.0)
    assert not caplog.records
    check([Marker("a", 0, 12)], "talk.mp4", 10.0)
    assert "the trial 'a' ends at 12 s, but the film at 10 s" in caplog.text
    with pytest.raises(AnnotationError, match=r"'b' starts at 11 s, but the last frame of talk\.mp4 is at 10 s: no tr"):
        check([Marker("a", 0, 5), Marker("b", 11, 12)], "talk.mp4", 10.0)


def test_spans_are_in_nanoseconds_since_1970() -> None:
    start = 1_700_000_000_000_000_000
    assert trials.spans([Marker("a", 0.001, 2.5)], start) == [Trial("a", start + 1_000_000, start + 2_500_000_000)]


# Tables

HOSTILE = 'a,"b"\nc <&"> =1+1 é'

TRIALS = [Marker("first", 0.5, 1.0), Marker(HOSTILE, 1.0, 1.5), Marker("first", 2.0, 3.0)]

COLUMNS = {"time": Column(float, ""), "label": Column(str, ""), "found": Column(bool, ""), "p": Column(float, "")}

ROWS: list[list[Any]] = [
    [0.0, "happy", True, 0.1],
    [0.5, 'say "cheese", please', True, 1e-17],
    [0.9999999, "two\nlines", False, None],
    [1.0, None, True, 0.30000000000000004],
    [1.5, "\r", True, 123456789.125],
    [2.9, "NA", None, 5e-324],
    [3.0, " x ", True, 1.0],
]

EXPECTED = [None, "first", "first", HOSTILE, None, "first", None]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    files = TableFiles(tmp_path, {"faces": COLUMNS})
    for row in ROWS:
        files.write("faces", row)
    files.finish({"version": "1"})
    return tmp_path


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_has_the_trial_of_its_time_and_the_rest_stays(tables: Path) -> None:
    marking = Marking(TRIALS, marked=False)
    for kind in ("csv", "parquet"):
        marking.copy(tables / f"faces.{kind}", tables / f"new.{kind}")
    rows = _read(tables / "new.csv")
    assert [row["trial"] or None for row in rows] == EXPECTED
    before, after = (polars.read_parquet(tables / f"{name}.parquet") for name in ("faces", "new"))
    assert after["trial"].to_list() == EXPECTED
    assert after.columns[-1] == "trial"
    assert after.drop("trial").equals(before)
    assert json.loads(polars.read_parquet_metadata(tables / "new.parquet")[PROVENANCE]) == {"version": "1"}


def test_the_text_of_all_other_cells_is_the_same_byte_for_byte(tables: Path) -> None:
    Marking([Marker("in", 0.5, 1.5)], marked=False).copy(tables / "faces.csv", tables / "new.csv")
    found = csv_lines(tables / "new.csv")
    assert [line.rsplit(b",", 1)[0] for line in found] == csv_lines(tables / "faces.csv")
    assert [line.rsplit(b",", 1)[1] for line in found] == [b"trial", b"", b"in", b"in", b"in", b"", b"", b""]


def csv_lines(path: Path) -> list[bytes]:
    """Return the records of a CSV file as they are written, split at line ends outside quotes."""
    records, quoted, begin = [], False, 0
    content = path.read_bytes()
    for at, byte in enumerate(content):
        quoted ^= byte == ord('"')
        if byte == ord("\n") and not quoted:
            records.append(content[begin:at])
            begin = at + 1
    return records


def test_other_trials_replace_the_first_ones(tables: Path) -> None:
    for kind in ("csv", "parquet"):
        Marking(TRIALS, marked=False).copy(tables / f"faces.{kind}", tables / f"one.{kind}")
        other = [Marker("all", 0, 10)]
        Marking(other, marked=True).copy(tables / f"one.{kind}", tables / f"two.{kind}")
        Marking(other, marked=False).copy(tables / f"faces.{kind}", tables / f"direct.{kind}")
    assert (tables / "two.csv").read_bytes() == (tables / "direct.csv").read_bytes()
    assert polars.read_parquet(tables / "two.parquet").equals(polars.read_parquet(tables / "direct.parquet"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_label_with_the_column_s_name_is_not_overwritten(kind: str, tmp_path: Path) -> None:
    files = TableFiles(tmp_path, {"faces": {"time": Column(float, ""), "trial": Column(float, "")}})
    files.write("faces", [0.0, 0.5])
    files.finish({})
    with pytest.raises(ModelError, match="the model has a label or measure 'trial', which is also the name of the col"):
        Marking(TRIALS, marked=False).copy(tmp_path / f"faces.{kind}", tmp_path / f"new.{kind}")


def test_a_table_without_rows_gets_the_column(tmp_path: Path) -> None:
    TableFiles(tmp_path, {"faces": COLUMNS}).finish({})
    for kind in ("csv", "parquet"):
        Marking(TRIALS, marked=False).copy(tmp_path / f"faces.{kind}", tmp_path / f"new.{kind}")
    assert (tmp_path / "new.csv").read_text() == "time,label,found,p,trial\n"
    assert polars.read_parquet(tmp_path / "new.parquet").schema["trial"] == polars.String
