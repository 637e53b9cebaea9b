"""R, pandas, Polars and DuckDB read all tables, and agree about every value."""

from __future__ import annotations

import json
import random
import subprocess
from typing import TYPE_CHECKING, Any

import duckdb
import pandas
import polars
import pytest

import fer_stream
from fer_stream.analysis import Analysis
from fer_stream.analysis.columns import Layout, PictureLayout
from fer_stream.analysis.tables import OPENFACE, RecordingFiles, TableFiles, frame
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_stream.analysis.columns import Columns
    from fer_stream.analysis.rows import Row

LABELS = ("very happy", 'sad, "tired"', "naïve", "NA", "none of them", "50%;x'y", "TRUE")
"""Labels with what a reader of CSV may take for something else."""

Table = dict[str, list[Any]]

R = """
table <- read.csv(commandArgs(trailingOnly = TRUE), na.strings = "", check.names = FALSE, encoding = "UTF-8")
for (name in names(table)) {
  column <- table[[name]]
  text <- if (is.numeric(column)) sprintf("%.17g", column) else enc2utf8(as.character(column))
  writeLines(enc2utf8(c(paste0("name=", name), class(column))), useBytes = TRUE)
  writeLines(ifelse(is.na(column), "missing", paste0("value=", text)), useBytes = TRUE)
}
"""

IN_R: dict[str, Callable[[str], Any]] = {
    "integer": int, "numeric": float, "character": str, "logical": lambda text: text == "TRUE",
}  # fmt: skip


def in_r(path: Path) -> Table:
    """Return the table as base R reads it."""
    environment = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["Rscript", "--vanilla", "-e", R, path], capture_output=True, check=True, env=environment)
    found: Table = {}
    lines = iter(done.stdout.decode().splitlines())
    for line in lines:
        if line.startswith("name="):
            values = found[line.removeprefix("name=")] = []
            convert = IN_R[next(lines)]
        else:
            values.append(None if line == "missing" else convert(line.removeprefix("value=")))
    return found


def in_pandas(path: Path) -> Table:
    table = pandas.read_csv(path, keep_default_na=False, na_values=[""])
    return {name: [None if pandas.isna(value) else value for value in table[name]] for name in table}


def in_duckdb(path: Path) -> Table:
    """Return a CSV or Parquet table as DuckDB reads it, with the types that it finds."""
    table = duckdb.sql(f"SELECT * FROM '{path}'")
    return dict(zip(table.columns, map(list, zip(*table.fetchall(), strict=True)), strict=True))


def in_polars(path: Path) -> Table:
    if path.suffix == ".parquet":
        return polars.read_parquet(path).to_dict(as_series=False)
    table = polars.read_csv(path).to_dict(as_series=False)
    return {
        name.replace('""', '"'): values for name, values in table.items()
    }  # it does not undo the doubling of quotes


def expect(path: Path, columns: Columns, rows: list[Row]) -> None:
    """Check that every program reads these rows from a CSV file, and from the Parquet file beside it, if any."""
    assert rows
    wanted = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
    paths = [path, *([beside] if (beside := path.with_suffix(".parquet")).exists() else [])]
    found = {"R": in_r(path), "pandas": in_pandas(path)}
    found |= {f"DuckDB {one.suffix}": in_duckdb(one) for one in paths}
    found |= {f"Polars {one.suffix}": in_polars(one) for one in paths}
    for program, table in found.items():
        assert list(table) == list(wanted), program
        for name, values in wanted.items():
            same = values if columns[name].kind is not float else pytest.approx(values, abs=1e-9)
            assert table[name] == same, (program, path.name, name)
            if columns[name].kind is bool:
                assert all(value is None or isinstance(value, int) for value in table[name]), (program, name)


def invented(columns: Columns, count: int = 40) -> list[Row]:
    """Return rows of a table, among them some without any value that may be missing."""
    chance = random.Random(4)
    kinds: dict[type, Callable[[], bool | int | float | str]] = {
        bool: lambda: chance.random() < 0.5,
        int: lambda: chance.randrange(1, 10**6),
        float: lambda: round(chance.uniform(-1000, 1000), chance.choice((1, 4, 6))),
        str: lambda: chance.choice(LABELS),
    }
    return [
        [kinds[kind]() if at % 4 == 0 or chance.random() < 0.7 else None for kind, _ in columns.values()]
        for at in range(count)
    ]


def test_labels_of_any_spelling_and_missing_values_are_read(tmp_path: Path) -> None:
    layout = Layout(LABELS, LABELS, ("valence",))
    tables = {name: getattr(layout, name) for name in RecordingFiles.TABLES}
    files = TableFiles(tmp_path, tables)
    rows = {name: invented(columns) for name, columns in tables.items()}
    for name, found in rows.items():
        for row in found:
            files.write(name, row)
    files.finish({"version": "ü"})
    for name, columns in tables.items():
        expect(tmp_path / f"{name}.csv", columns, rows[name])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(TableFiles.names(tables))
    assert not (tmp_path / f"{OPENFACE}.parquet").exists()
    assert json.loads(polars.read_parquet_metadata(tmp_path / "faces.parquet")["fer_stream"]) == {"version": "ü"}


def test_the_tables_of_a_film_are_read(clip: Path, tiny_model: Path, tmp_path: Path) -> None:
    how = Settings(cameras={"film": {"source": str(clip)}}, classifier={"model": tiny_model})  # type: ignore[arg-type]
    summary = Analysis(how, "film", tmp_path).run(2, lambda done, total: None)
    film = fer_stream.analyze(clip, how)
    layout = Layout(film.faces.columns[14:21], film.faces.columns[14:21])
    for name in ("faces", "events", "frames"):
        table = getattr(film, name)
        expect(tmp_path / f"{name}.csv", getattr(layout, name), [list(row) for row in table.iter_rows()])
    openface = polars.read_csv(tmp_path / "openface.csv")
    expect(tmp_path / "openface.csv", layout.openface, [list(row) for row in openface.iter_rows()])
    # Every file has its provenance, and so has the result of the function.
    for name in ("faces", "events", "frames"):
        about = json.loads(polars.read_parquet_metadata(tmp_path / f"{name}.parquet")["fer_stream"])
        assert about == film.provenance
        found = duckdb.sql(f"SELECT decode(value) FROM parquet_kv_metadata('{tmp_path}/{name}.parquet') "
                           "WHERE decode(key) = 'fer_stream'")  # fmt: skip
        assert json.loads(found.fetchall()[0][0]) == about
    assert {key: about[key] for key in ("version", "model", "models", "settings")}.items() <= summary.items()
    done = subprocess.run(["sha256sum", clip], capture_output=True, text=True, check=True)
    assert about["source"] == {"name": clip.name, "sha256": done.stdout.split()[0]}
    assert str(tmp_path.parent) not in json.dumps(about), "it contains no path of this machine"


def test_the_tables_agree_with_each_other(clip: Path, tiny_model: Path, tmp_path: Path) -> None:
    how = Settings(cameras={"film": {"source": str(clip)}}, classifier={"model": tiny_model})  # type: ignore[arg-type]
    Analysis(how, "film", tmp_path).run(2, lambda done, total: None)
    faces, frames, theirs, events = (
        pandas.read_csv(tmp_path / f"{name}.csv") for name in ("faces", "frames", "openface", "events")
    )
    assert frames["frame"].tolist() == list(range(1, 61))
    counted = faces[faces["found"]].groupby("frame").size().reindex(frames["frame"], fill_value=0)
    assert counted.tolist() == frames["faces"].tolist()
    assert set(frames["searched"]) == {"whole", "part", "known"}
    assert (frames["width"].unique(), frames["height"].unique()) == ([640], [480])
    assert (faces["frame"] == theirs["frame"]).all()
    assert (faces["found"] == (theirs["success"] == 1)).all()
    assert 0 < (~faces["found"]).sum() < 5
    nose = theirs[["x_30", "y_30"]].to_numpy() - faces[["x", "y"]].to_numpy()
    inside = (nose > 0) & (nose < faces[["width", "height"]].to_numpy())
    marked = theirs["x_30"].notna()
    assert marked.sum() > 30
    assert inside[marked].all()
    assert (marked == theirs["pose_Ry"].notna()).all()
    assert (marked == faces["approx_pitch"].notna()).all()
    assert theirs.loc[~faces["found"], ["x_30", "pose_Rx", "confidence"]].isna().all(axis=None)
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events["type"].tolist() == [event["type"] for event in told]
    assert events["sequence"].tolist() == [int(event["sequence"]) for event in told]
    durations = [event["data"].get("duration_ms", float("nan")) / 1000 for event in told]
    assert events["duration"].tolist() == pytest.approx(durations, nan_ok=True)
    entered = events[events["type"] == "face.entered"]
    for _, event in entered.iterrows():
        early = faces[(faces["track"] == event["track"]) & (faces["frame"] < event["frame"])]
        assert len(early)
        assert early["provisional"].all()
        assert early["label"].isna().all()
        assert early["time"].min() == pytest.approx(event["start"])


@pytest.mark.parametrize("count", [1, 3])
def test_a_film_that_ends_before_a_face_is_a_track_has_the_face(count: int, tiny_model: Path, tmp_path: Path) -> None:
    import shutil  # noqa: PLC0415

    portrait = f"{fer_stream.__path__[0]}/assets/grace_hopper.jpg"
    for number in range(count):
        shutil.copy(portrait, tmp_path / f"{number}.jpg")
    how = Settings(classifier={"model": tiny_model})  # type: ignore[arg-type]
    film = fer_stream.analyze(tmp_path, how)
    assert film.faces["frame"].to_list() == list(range(1, count + 1))
    assert film.faces["provisional"].all()
    assert film.faces["track"].null_count() == count
    assert film.faces["scored_happy"][0] > 0.7
    assert not film.events["type"].str.starts_with("face").any()
    assert film.provenance["source"] == {"name": tmp_path.name, "sha256": None}


def test_pandas_gets_the_same_values(clip: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)  # it cannot be imported
    film = fer_stream.analyze(clip, Settings(classifier={"model": tiny_model}))  # type: ignore[arg-type]
    theirs = film.to_pandas()
    assert theirs.provenance == film.provenance
    for name in ("faces", "events", "frames"):
        table, ours = getattr(theirs, name), getattr(film, name)
        assert isinstance(table, pandas.DataFrame)
        values = {column: [None if pandas.isna(v) else v for v in table[column]] for column in table}
        assert values == ours.to_dict(as_series=False)
    assert [str(theirs.faces[name].dtype) for name in ("track", "x", "found", "label")] == [
        "Int64", "float64", "boolean", "string",
    ]  # fmt: skip


def test_pictures_have_a_row_for_each_picture_and_each_face(tmp_path: Path) -> None:
    layout = PictureLayout(LABELS, ("valence",))
    files = TableFiles(tmp_path, {"faces": layout.faces, "frames": layout.frames})
    rows = {"faces": invented(layout.faces), "frames": invented(layout.frames)}
    for name, found in rows.items():
        for row in found:
            files.write(name, row)
    files.finish({})
    files.close()
    expect(tmp_path / "faces.csv", layout.faces, rows["faces"])
    expect(tmp_path / "frames.csv", layout.frames, rows["frames"])
    assert frame(rows["faces"], layout.faces).equals(polars.read_parquet(tmp_path / "faces.parquet"))
