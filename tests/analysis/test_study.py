"""The tables of several films are joined: whose rows they are, which columns, and what is never replaced."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import polars
import pytest

from fer_stream.analysis import study
from fer_stream.analysis.columns import Column
from fer_stream.analysis.output import OutputFolder
from fer_stream.analysis.tables import PROVENANCE, TableFiles
from fer_stream.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [[0.0, 'say "a,b"\n<&> é', 0.25], [0.04, None, None], [0.08, "x", 1e-17]]


def _film(folder: Path, *labels: str, rows: list[list[Any]] = ROWS, **about: Any) -> None:
    """Write the analysis of a film with a model of these labels."""
    columns = {"time": Column(float, ""), "label": Column(str, ""), **{label: Column(float, "") for label in labels}}
    output = OutputFolder(folder, (), force=False)
    with output.replacing(["faces.csv", "faces.parquet"]) as part:
        files = TableFiles(part, {"faces": columns})
        for row in rows:
            files.write("faces", [*row[:2], *(row[2] for _ in labels)])
        files.finish({"model": f"of {labels}"})
        told = {"source": f"{folder.name}.mp4", "model": "tiny", "frames": 3, "duration_s": 0.08, "faces": len(rows)}
        output.finish(told | {"tracks": 1, "face_seconds": 0.08, "share": {labels[0]: 1.0}} | about)


def _join(folder: Path, *films: str, force: bool = False) -> dict[str, Any] | None:
    return study.join(folder, films, [], force=force)


def _read(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of both tables, which are the same."""
    table = polars.read_parquet(folder / "faces.parquet")
    with (folder / "faces.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == table.columns
    found = list(table.iter_rows(named=True))
    for row, other in zip(rows, found, strict=True):
        same = {name: None if cell == "" else cell for name, cell in row.items()}
        assert {name: None if cell is None else str(cell) for name, cell in other.items()} == same
    return found


def test_rows_say_of_which_film_they_are_and_columns_are_those_of_all(tmp_path: Path) -> None:
    _film(tmp_path / "one", "happy", "sad")
    _film(tmp_path / "two", "sad", 'cal "m", <&>')
    joined = _join(tmp_path, "two", "one")
    assert joined is not None
    assert [film["film"] for film in joined["films"]] == ["two", "one"]
    rows = _read(tmp_path)
    assert list(rows[0]) == ["film", "time", "label", "happy", "sad", 'cal "m", <&>']
    assert [row["film"] for row in rows] == ["two"] * 3 + ["one"] * 3
    assert [row["label"] for row in rows] == [row[1] for row in ROWS] * 2
    assert [row["happy"] for row in rows] == [None] * 3 + [0.25, None, 1e-17]
    about = json.loads(polars.read_parquet_metadata(tmp_path / "faces.parquet")[PROVENANCE])
    assert list(about["films"]) == ["two", "one"]
    assert about["films"]["one"]["model"] == "of ('happy', 'sad')"


def test_columns_keep_their_order_if_another_film_lacks_some(tmp_path: Path) -> None:
    _film(tmp_path / "one", "happy", "trial")
    _film(tmp_path / "two", "begin", "happy", "sad", "trial", "late")
    _join(tmp_path, "one", "two")
    assert list(_read(tmp_path)[0]) == ["film", "time", "label", "begin", "happy", "sad", "trial", "late"]


def test_the_cells_of_a_csv_file_are_copied_as_they_are(tmp_path: Path) -> None:
    _film(tmp_path / "one", "happy")
    _join(tmp_path, "one")
    lines = (tmp_path / "one/faces.csv").read_text(encoding="utf-8").replace("\n<&>", "<&>").splitlines()
    joined = (tmp_path / "faces.csv").read_text(encoding="utf-8").replace("\n<&>", "<&>").splitlines()
    assert joined == [f"film,{lines[0]}", *(f"one,{line}" for line in lines[1:])]


def test_a_film_without_rows_and_one_without_an_analysis(tmp_path: Path) -> None:
    _film(tmp_path / "one", "happy")
    _film(tmp_path / "empty", "happy", rows=[])
    joined = _join(tmp_path, "broken", "empty", "one")
    assert joined is not None
    assert joined["films"][0] == {"film": "broken", "error": "not analysed"}
    assert "digest" in joined["films"][1]
    assert {row["film"] for row in _read(tmp_path)} == {"one"}


def test_a_film_that_broke_off_is_there_with_its_error(tmp_path: Path) -> None:
    _film(tmp_path / "one", "happy", error="its end is missing")
    joined = _join(tmp_path, "one")
    assert joined is not None
    assert joined["films"][0]["error"] == "its end is missing"
    assert len(_read(tmp_path)) == 3


def test_nothing_is_written_without_any_analysis(tmp_path: Path) -> None:
    assert _join(tmp_path, "one", "two") is None
    assert list(tmp_path.iterdir()) == []


def test_tables_are_joined_again_if_an_analysis_has_changed(tmp_path: Path) -> None:
    _film(tmp_path / "one", "happy")
    _film(tmp_path / "two", "happy")
    assert _join(tmp_path, "one", "two")
    assert _join(tmp_path, "one", "two") is None
    assert _join(tmp_path, "one", "two", force=True)
    _film(tmp_path / "two", "sad", rows=ROWS[:1])
    assert _join(tmp_path, "one", "two")
    assert len(_read(tmp_path)) == 4
    assert _join(tmp_path, "one"), "a film that is left out has no rows"
    assert len(_read(tmp_path)) == 3


@pytest.mark.parametrize("film", ["faces.csv", "Zones.Parquet", "summary.json", "agreement"])
def test_a_film_is_not_called_like_what_the_folder_has(film: str) -> None:
    with pytest.raises(ConfigError, match=rf"cannot be called {film}, .*: give the film another name, such as"):
        study.check_names(["talk", film])
    study.check_names(["talk.csv.2", "agreements"])


def test_a_foreign_table_is_not_replaced(tmp_path: Path) -> None:
    _film(tmp_path / "one", "happy")
    (tmp_path / "faces.csv").write_text("years of work")
    with pytest.raises(ConfigError, match=r"faces\.csv' was not written by fer-stream analyze, or was changed since"):
        _join(tmp_path, "one")
    assert (tmp_path / "faces.csv").read_text() == "years of work"
    assert not (tmp_path / "faces.parquet").exists()
    assert _join(tmp_path, "one", force=True)
    assert len(_read(tmp_path)) == 3


def test_a_label_with_the_name_of_the_column_is_refused(tmp_path: Path) -> None:
    _film(tmp_path / "one", "happy")
    _film(tmp_path / "two", "film")
    with pytest.raises(ModelError, match="the model of two has a label or measure 'film', which is also the name of a"):
        _join(tmp_path, "one", "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
