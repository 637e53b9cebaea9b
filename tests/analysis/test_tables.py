"""Rows of a face begin in the frame where it was first seen, not where the tracker confirmed it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars
import pytest

import fer_stream
from fer_stream.analysis import Analysis
from fer_stream.analysis.observe import Observation
from fer_stream.analysis.tables import TRACK, Rows, columns, join
from fer_stream.errors import ModelError
from fer_stream.events.cloudevents import from_rfc3339
from fer_stream.settings.tree import Settings
from fer_stream.types import Box, Face, Frame, Nanoseconds, Track

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.analysis.tables import Row


def seen(
    number: int, tracks: dict[int, float] | None = None, candidates: dict[int, float] | None = None, **how: Any
) -> Observation:
    """Return frame ``number``, at ``number`` seconds: the left edge of each face, by track number or key."""

    def face(x: float) -> Face:
        return Face(Box(x, 0, x + 10, 10), 1.0)

    frame = Frame("film", number, Nanoseconds(number * 10**9), None)  # type: ignore[arg-type]
    found = tuple(Track(key, face(x), Nanoseconds(0), Nanoseconds(0)) for key, x in (tracks or {}).items())
    early = {key: face(x) for key, x in (candidates or {}).items()}
    return Observation(frame, found, {}, [], candidates=early, **how)


def end() -> Observation:
    return Observation(None, (), {}, [])


def short(rows: list[Row]) -> list[tuple[Any, ...]]:
    """Return frame, track and left edge of each row."""
    return [(row[0], row[TRACK], row[TRACK + 1]) for row in rows]


def test_a_face_that_becomes_a_track_has_rows_from_its_first_frame() -> None:
    rows = Rows(0, (), ())
    assert rows.of(seen(1, candidates={7: 10.0}, fates={7: 0})) == []
    assert rows.of(seen(2, fates={7: 0})) == []
    assert rows.of(seen(3, candidates={7: 30.0}, fates={7: 0})) == []
    found = rows.of(seen(4, {2: 40.0}, fates={7: 2}))
    assert short(found) == [(1, 2, 10.0), (3, 2, 30.0), (4, 2, 40.0)]
    assert [row[1] for row in found] == [1, 3, 4]
    assert short(rows.of(seen(5, {2: 50.0}, fates={7: 2}))) == [(5, 2, 50.0)]
    assert rows.of(end()) == []


def test_a_face_that_never_becomes_a_track_has_no_rows_and_delays_others_only_until_given_up() -> None:
    rows = Rows(0, (), ())
    assert short(rows.of(seen(1, {1: 5.0}, fates={1: 1}))) == [(1, 1, 5.0)]
    assert rows.of(seen(2, {1: 5.0}, {2: 90.0}, fates={1: 1, 2: 0})) == []
    assert rows.of(seen(3, {1: 5.0}, fates={1: 1, 2: 0})) == []
    assert short(rows.of(seen(4, {1: 5.0}, fates={1: 1}))) == [(2, 1, 5.0), (3, 1, 5.0), (4, 1, 5.0)]
    assert rows.of(seen(5, {1: 5.0}, {3: 90.0}, fates={1: 1, 3: 0})) == []
    assert short(rows.of(end())) == [(5, 1, 5.0)], "face 3 is not a track at the end"


def test_a_frame_that_could_not_be_analysed_decides_about_no_face() -> None:
    rows = Rows(0, (), ())
    assert rows.of(seen(1, candidates={1: 1.0}, fates={1: 0})) == []
    assert rows.of(seen(2, looked_at=False)) == []
    assert short(rows.of(seen(3, {1: 3.0}, fates={1: 1}))) == [(1, 1, 1.0), (3, 1, 3.0)]


def test_rows_of_a_frame_are_in_the_order_of_their_tracks() -> None:
    rows = Rows(0, (), ())
    rows.of(seen(1, {3: 3.0}, {8: 8.0, 5: 5.0}, fates={0: 3, 8: 0, 5: 0}))
    rows.of(seen(2, {3: 3.0, 4: 8.0}, {5: 5.0}, fates={0: 3, 8: 4, 5: 0}))
    found = rows.of(seen(3, {3: 3.0, 4: 8.0, 5: 5.0}, fates={0: 3, 8: 4, 5: 5}))
    assert [row[TRACK] for row in found] == [3, 4, 5] * 3


def test_a_label_with_the_name_of_a_column_is_refused() -> None:
    assert list(columns(["happy"], ["happy"]))[-2:] == ["quality", "scored_happy"]
    with pytest.raises(ModelError, match="'frame' is also the name of a column"):
        columns(["frame"], [])
    assert join({"a": int}, {"b": str}) == {"a": int, "b": str}


def test_the_rows_of_a_track_span_its_stay(clip: Path, tiny_model: Path, tmp_path: Path) -> None:
    """As given by the event face.left; the function and the files agree."""
    how = Settings(cameras={"film": {"source": str(clip)}}, classifier={"model": tiny_model})  # type: ignore[arg-type]
    summary = Analysis(how, "film", tmp_path).run(2, lambda done, total: None)
    table = polars.read_parquet(tmp_path / "faces.parquet")
    assert summary["faces"] == len(table)
    assert table.equals(fer_stream.analyze(clip, how))
    assert table["frame"].is_sorted()
    assert table["frame"][0] == 1, "one face is in view from the first frame"
    events = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    stays = {event["subject"].split("/")[-1]: event["data"] for event in events if event["type"] == "face.left"}
    assert len(stays) == 2
    for track, stay in stays.items():
        times = table.filter(polars.col("track") == int(track))["time"]
        begin, last = (from_rfc3339(stay[key]) / 1e9 for key in ("start_time", "end_time"))
        assert (times.min(), times.max()) == (pytest.approx(begin, abs=1e-5), pytest.approx(last, abs=1e-5))
    early = table.filter(polars.col("time") < 0.2)
    assert early["label"].null_count() == len(early) > 0
    assert early["scored_happy"].drop_nulls().len() > 0, "the model's own probabilities are there from the start"
