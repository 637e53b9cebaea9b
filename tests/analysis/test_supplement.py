"""Exports and trials of a finished analysis: what is added, what stays, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars
import pytest

from fer_stream.analysis import Analysis, trials
from fer_stream.analysis.exports import KINDS
from fer_stream.errors import AnnotationError, ConfigError
from fer_stream.interchange.markers import Marker
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    Open = Callable[..., Analysis]

EXPORTED = {
    *("film.eaf", "film.boris", "film_boris.xlsx", "film.vtt", "film_events.tsv", "film_events.json"),
}

ONE, OTHER = [Marker("a", 0.0, 2.0), Marker("b", 2.0, 3.0)], [Marker("c", 1.0, 3.5)]


@pytest.fixture(scope="module")
def finished(clip: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    """A folder with an analysis, and its settings."""
    folder = tmp_path_factory.mktemp("finished")
    settings = Settings(cameras={"film": {"source": str(clip)}}, classifier={"model": tiny_model})  # type: ignore[arg-type, dict-item]
    Analysis(settings, "film", folder / "out").run(2, lambda done, total: None)
    return folder / "out", settings


@pytest.fixture
def opened(finished: tuple[Path, Settings], tmp_path: Path) -> tuple[Open, Path]:
    """A function that opens a copy of the analysis, and its folder."""
    folder, settings = finished
    shutil.copytree(folder, tmp_path / "out")

    def open_it(**how: Any) -> Analysis:
        return Analysis(settings, "film", tmp_path / "out", **how)

    return open_it, tmp_path / "out"


def _add(open_it: Open, kinds: list[str] | None = None, wanted: list[Marker] | None = None) -> dict[str, Any]:
    """Add to the analysis, which must be there already."""
    summary = open_it().finished()
    assert summary is not None, "it would be analysed again"
    return open_it().supplement(summary, kinds or [], wanted)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_exports_are_added_and_nothing_else_changes(opened: tuple[Open, Path]) -> None:
    open_it, folder = opened
    before = _contents(folder)
    assert set(_add(open_it, ["eaf", "vtt"])["exports"]) == {"eaf", "vtt"}
    first = _contents(folder)
    assert set(_add(open_it, list(KINDS))["exports"]) == set(KINDS)
    after = _contents(folder)
    assert after.keys() - before.keys() == EXPORTED
    assert {name for name in before if after[name] != before[name]} == {"summary.json"}
    assert after["film.eaf"] == first["film.eaf"], "what is there is not written again"
    assert open_it().supplement(open_it().finished() or {}, list(KINDS)) == json.loads(after["summary.json"])
    assert _contents(folder) == after


def test_an_edited_export_stays(opened: tuple[Open, Path]) -> None:
    open_it, folder = opened
    _add(open_it, ["eaf"])
    (folder / "film.eaf").write_text("corrected by a coder")
    _add(open_it, ["eaf", "vtt"], ONE)
    _add(open_it, ["eaf"], OTHER)
    assert (folder / "film.eaf").read_text() == "corrected by a coder"


def test_an_export_may_be_moved_away(opened: tuple[Open, Path], tmp_path: Path) -> None:
    open_it, folder = opened
    _add(open_it, ["bids", "eaf"])
    (folder / "film_events.tsv").rename(tmp_path / "film_events.tsv")
    (folder / "film.eaf").rename(tmp_path / "film.eaf")
    summary = _add(open_it, ["vtt"])
    assert set(summary["exports"]) == {"vtt"}
    assert not (folder / "film_events.tsv").exists()
    assert (folder / "film_events.json").exists()
    assert set(_add(open_it, ["bids"])["exports"]) == {"bids", "vtt"}
    assert (folder / "film_events.tsv").read_bytes() == (tmp_path / "film_events.tsv").read_bytes()
    (folder / "faces.csv").unlink()
    assert open_it().finished() is None, "a table is no export"


@pytest.mark.parametrize("name", ["film.eaf", "film_events.json"])
def test_a_foreign_file_is_never_replaced(name: str, opened: tuple[Open, Path]) -> None:
    open_it, folder = opened
    (folder / name).write_text("years of work")
    before = _contents(folder)
    with pytest.raises(ConfigError, match=f"{name}' was not written by fer-stream analyze, or was changed since"):
        _add(open_it, list(KINDS), ONE)
    assert _contents(folder) == before


def test_a_changed_table_is_not_replaced_by_one_with_trials(opened: tuple[Open, Path]) -> None:
    open_it, folder = opened
    with (folder / "faces.csv").open("a") as table:
        table.write("my own row\n")
    before = _contents(folder)
    with pytest.raises(ConfigError, match=r"faces\.csv' was not written by fer-stream analyze, or was changed since"):
        _add(open_it, [], ONE)
    assert _contents(folder) == before


def _names(folder: Path) -> list[str | None]:
    found = polars.read_parquet(folder / "faces.parquet")["trial"].to_list()
    with (folder / "faces.csv").open(newline="") as file:
        assert [row["trial"] or None for row in csv.DictReader(file)] == found
    return found


def test_trials_stay_without_new_ones_and_are_replaced_by_others(opened: tuple[Open, Path]) -> None:
    open_it, folder = opened
    before = _contents(folder)
    assert _add(open_it, [], ONE)["trials"][0] == {"name": "a", "start": 0.0, "end": 2.0}
    first = _contents(folder)
    assert set(_names(folder)) == {"a", "b", None}
    changed = {name for name in before if first[name] != before[name]}
    assert changed == {
        *("faces.csv", "faces.parquet", "events.csv", "events.parquet", "frames.csv", "frames.parquet"),
        *("statistics.csv", "report.html", "summary.json"),
    }
    _add(open_it)
    assert _contents(folder) == first
    _add(open_it, ["vtt"])
    assert _names(folder)
    _add(open_it, [], ONE)
    _add(open_it, [], OTHER)
    assert set(_names(folder)) == {"c", None}
    with (folder / "statistics.csv").open(newline="") as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["c"]
    _add(open_it, [], [])
    assert set(_names(folder)) == {None}
    _add(open_it, [], ONE)
    again = _contents(folder)
    assert {name for name in first if again[name] != first[name]} == {"summary.json"}, "as in one step"


def test_a_trial_after_the_film_is_refused_but_exports_are_made(opened: tuple[Open, Path]) -> None:
    open_it, folder = opened
    before = (folder / "faces.csv").read_bytes()
    with pytest.raises(
        AnnotationError, match=r"the trial 'late' starts at 60 s, but the last frame of portraits\.avi is"
    ):
        _add(open_it, ["vtt"], [Marker("late", 60, 61)])
    assert (folder / "film.vtt").exists()
    assert (folder / "faces.csv").read_bytes() == before
    assert "trials" not in (open_it().finished() or {})


def test_an_interruption_leaves_what_was_there(opened: tuple[Open, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    open_it, folder = opened
    before, real, copied = _contents(folder), trials.Marking.copy, []

    def copy(self: trials.Marking, source: Path, target: Path) -> None:
        real(self, source, target)
        copied.append(target)
        if len(copied) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(trials.Marking, "copy", copy)
    with pytest.raises(KeyboardInterrupt):
        _add(open_it, [], ONE)
    assert _contents(folder) == before
    monkeypatch.undo()
    _add(open_it, [], ONE)
    assert set(_names(folder)) == {"a", "b", None}


def test_pictures_have_no_times(tiny_model: Path, tmp_path: Path) -> None:
    picture = Path(__file__).parents[2] / "fer_stream/assets/grace_hopper.jpg"
    settings = Settings(cameras={"film": {"source": str(picture)}}, classifier={"model": tiny_model})  # type: ignore[arg-type, dict-item]
    analysis = Analysis(settings, "film", tmp_path / "out")
    summary = analysis.run(1, lambda done, total: None)
    for kinds, wanted in ((["vtt"], None), ([], ONE)):
        with pytest.raises(
            AnnotationError, match=r"grace_hopper\.jpg: pictures have no times, so there are no exports"
        ):
            analysis.supplement(summary, kinds, wanted)
    assert analysis.supplement(summary, [], []) == summary, "the trials are those of films beside it"
