"""The files of the tables, and the data frames."""

from __future__ import annotations

import json
from pathlib import Path

import polars
import pytest

import fer_stream
from fer_stream.analysis import Analysis
from fer_stream.analysis.tables import sink
from fer_stream.events.cloudevents import from_rfc3339
from fer_stream.settings.tree import Settings


def test_the_rows_of_a_track_span_its_stay(clip: Path, tiny_model: Path, tmp_path: Path) -> None:
    """As given by the event face.left; the function and the files agree."""
    how = Settings(cameras={"film": {"source": str(clip)}}, classifier={"model": tiny_model})  # type: ignore[arg-type]
    summary = Analysis(how, "film", tmp_path).run(2, lambda done, total: None)
    table = polars.read_parquet(tmp_path / "faces.parquet")
    assert summary["faces"] == table["found"].sum()
    assert table.equals(fer_stream.analyze(clip, how).faces)
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        sink(polars.LazyFrame({"time": [0.0]}), Path("/dev/full"), None)
