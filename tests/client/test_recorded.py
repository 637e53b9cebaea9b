"""Events in files: those of `analyze` and of the sink ``file``, and files that are something else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from journals import event

from fer_stream.client.recorded import Recording, recordings
from fer_stream.errors import ConfigError
from fer_stream.events.cloudevents import encode

if TYPE_CHECKING:
    from pathlib import Path

LINES = [encode(event("camera.online")), encode(event("face.entered", track=1)), encode(event("camera.offline"))]


def analysed(folder: Path, source: str = "talk.mp4", start: str = "1970-01-01T00:00:02.000000Z") -> Path:
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in LINES))
    (folder / "summary.json").write_text(json.dumps({"source": source, "start_time": start, "labels": ["happy"]}))
    return folder


def test_a_file_a_folder_and_a_folder_of_folders(tmp_path: Path) -> None:
    one, two = analysed(tmp_path / "all/one"), analysed(tmp_path / "all/two", "walk.mp4")
    (tmp_path / "all/notes").mkdir()
    sink = tmp_path / "sink.jsonl"
    sink.write_text("\n".join(LINES))
    assert recordings([sink, one, tmp_path / "all"]) == [
        Recording("sink.jsonl", 0, sink, "sink.jsonl"),
        Recording("talk.mp4", 2_000_000_000, one / "events.jsonl", "talk.mp4", ("happy",)),
        Recording("one", 2_000_000_000, one / "events.jsonl", "talk.mp4", ("happy",)),
        Recording("two", 2_000_000_000, two / "events.jsonl", "walk.mp4", ("happy",)),
    ]
    assert [each.film for each in recordings([one, two, analysed(tmp_path / "more/one", "walk.mp4")])] == [
        "talk.mp4", str(two), str(tmp_path / "more/one"),
    ]  # fmt: skip
    for found in recordings([sink, one]):
        assert [encode(each) for each in found.events()] == LINES


@pytest.mark.parametrize("summary", ["", "{", "[]", '{"source": 3, "start_time": "noon", "labels": [7]}'])
def test_a_summary_without_a_film_and_a_start(tmp_path: Path, summary: str) -> None:
    folder = analysed(tmp_path / "one")
    (folder / "summary.json").write_text(summary)
    assert recordings([folder]) == [Recording("events.jsonl", 0, folder / "events.jsonl", "events.jsonl")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (LINES[0].encode() + b"\n{}\n", "line 2: not an event of fer_stream"),
        (LINES[0].encode() + b"\n" + LINES[1][:40].encode(), "line 2: the file breaks off in it"),
        ("\n".join(LINES).encode("utf-16"), "is text in UTF-16: save it as UTF-8"),
        (b"time,type\n", "line 1: this is no event; give an events.jsonl, not a table"),
        (b"\xe4\n", "line 1: this is no event; give an events.jsonl, not a table"),
        (b" " * 500_000, None),
        (b"{" + b"x" * 500_000, "line 1: an event of 131072 bytes is longer than 65536"),
    ],
)
def test_what_is_wrong_gets_one_sentence(tmp_path: Path, content: bytes, sentence: str | None) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(content)
    (found,) = recordings([path])
    if sentence is None:
        assert list(found.events()) == []
        return
    with pytest.raises(ConfigError) as caught:
        list(found.events())
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bom_windows_ends_and_empty_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(LINES).encode())
    (found,) = recordings([path])
    assert [encode(each) for each in found.events()] == LINES


def test_paths_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none' cannot be read: no such file"):
        recordings([tmp_path / "none"])
    with pytest.raises(ConfigError, match=r"holds no events\.jsonl: give a folder that fer-stream analyze has written"):
        recordings([tmp_path])
