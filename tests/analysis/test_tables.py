"""Rows of a face begin where it was first seen, not where the tracker was sure of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars
import pytest

import fer_stream
from fer_stream.analysis import Analysis
from fer_stream.analysis.observe import Observation
from fer_stream.analysis.tables import TRACK, Rows, columns, whole
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
    """A frame that shows faces, by their numbers or keys, each told by where it begins; the first is at 1 s."""

    def face(x: float) -> Face:
        return Face(Box(x, 0, x + 10, 10), 1.0)

    frame = Frame("film", number, Nanoseconds(number * 10**9), None)  # type: ignore[arg-type]
    found = tuple(Track(key, face(x), Nanoseconds(0), Nanoseconds(0)) for key, x in (tracks or {}).items())
    early = {key: face(x) for key, x in (candidates or {}).items()}
    return Observation(frame, found, {}, [], candidates=early, **how)


def end() -> Observation:
    return Observation(None, (), {}, [])


def short(rows: list[Row]) -> list[tuple[Any, ...]]:
    """Frame, track and place of each row."""
    return [(row[0], row[TRACK], row[TRACK + 1]) for row in rows]


def test_a_face_that_becomes_a_track_has_rows_from_the_first_on() -> None:
    rows = Rows(0, (), ())
    assert rows.of(seen(1, candidates={7: 10.0}, fates={7: 0})) == []
    assert rows.of(seen(2, fates={7: 0})) == []
    assert rows.of(seen(3, candidates={7: 30.0}, fates={7: 0})) == []
    found = rows.of(seen(4, {2: 40.0}, fates={7: 2}))
    assert short(found) == [(1, 2, 10.0), (3, 2, 30.0), (4, 2, 40.0)]
    assert [row[1] for row in found] == [1, 3, 4]
    assert short(rows.of(seen(5, {2: 50.0}, fates={7: 2}))) == [(5, 2, 50.0)]
    assert rows.of(end()) == []


def test_a_face_that_never_becomes_one_has_none_and_holds_nobody_up_for_good() -> None:
    rows = Rows(0, (), ())
    assert short(rows.of(seen(1, {1: 5.0}, fates={1: 1}))) == [(1, 1, 5.0)]
    assert rows.of(seen(2, {1: 5.0}, {2: 90.0}, fates={1: 1, 2: 0})) == []
    assert rows.of(seen(3, {1: 5.0}, fates={1: 1, 2: 0})) == []
    assert short(rows.of(seen(4, {1: 5.0}, fates={1: 1}))) == [(2, 1, 5.0), (3, 1, 5.0), (4, 1, 5.0)]
    assert rows.of(seen(5, {1: 5.0}, {3: 90.0}, fates={1: 1, 3: 0})) == []
    assert short(rows.of(end())) == [(5, 1, 5.0)], "at the end it is no track yet"


def test_a_frame_that_could_not_be_looked_at_tells_nothing_of_any_face() -> None:
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


def test_a_label_is_not_called_as_another_column() -> None:
    assert list(columns(["happy"], ["happy"]))[-2:] == ["quality", "scored_happy"]
    with pytest.raises(ModelError, match="'frame' is called as a column"):
        columns(["frame"], [])
    assert whole({"a": int}, {"b": str}) == {"a": int, "b": str}


def test_rows_begin_and_end_with_their_face_s_stay(clip: Path, tiny_model: Path, tmp_path: Path) -> None:
    """As events tell it; in Python and in the files alike."""
    how = Settings(cameras={"film": {"source": str(clip)}}, classifier={"model": tiny_model})  # type: ignore[arg-type]
    told = Analysis(how, "film", tmp_path).run(2, lambda done, total: None)
    table = polars.read_parquet(tmp_path / "faces.parquet")
    assert told["faces"] == len(table)
    assert table.equals(fer_stream.analyze(clip, how))
    assert table["frame"].is_sorted()
    assert table["frame"][0] == 1, "one is there from the first frame on"
    events = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    stays = {event["subject"].split("/")[-1]: event["data"] for event in events if event["type"] == "face.left"}
    assert len(stays) == 2
    for track, stay in stays.items():
        times = table.filter(polars.col("track") == int(track))["time"]
        begin, last = (from_rfc3339(stay[key]) / 1e9 for key in ("start_time", "end_time"))
        assert (times.min(), times.max()) == (pytest.approx(begin, abs=1e-5), pytest.approx(last, abs=1e-5))
    early = table.filter(polars.col("time") < 0.2)
    assert early["label"].null_count() == len(early) > 0
    assert early["scored_happy"].drop_nulls().len() > 0, "what the model says of it is there from the start"
