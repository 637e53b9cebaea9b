"""What is exported: the spans in `events.jsonl`, and the path of the film."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fer_stream.analysis.exports import KINDS, Span, media_path, names, read_events, write
from fer_stream.analysis.exports.recording import Recording, rows

if TYPE_CHECKING:
    from pathlib import Path

START = 1_700_000_000_000_000_000  # 2023-11-14T22:13:20Z


def _event(kind: str, track: int, begin: str, end: str, **data: Any) -> dict[str, Any]:
    times = {"start_time": f"2023-11-14T22:13:{begin}Z", "end_time": f"2023-11-14T22:13:{end}Z"}
    return {"type": kind, "subject": f"tracks/{track}", "data": times | data}


def test_spans_are_the_ended_intervals_and_stays_in_the_film_s_clock(tmp_path: Path) -> None:
    scores = {"probabilities": {"happy": 0.8, "sad <&>": 0.2}}
    events = [
        _event("emotion.started", 1, "20.5", "20.5", label="happy"),
        _event("emotion.ended", 1, "20.5", "22.25", label="happy", probability={"mean": 0.8}, **scores),
        _event("valence.ended", 2, "20.04", "21", label="positive", probability={"mean": 0.6}),
        _event("zone.left", 2, "20", "30", zone="left"),
        _event("face.left", 2, "20", "30"),
        _event("face.left", 1, "20.5", "22.5"),
        _event("face.entered", 1, "20.5", "20.5"),
    ]
    (path := tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    spans, labels = read_events(path, START)
    assert spans == (
        Span(2, 0.0, 10.0),
        Span(2, 0.04, 1.0, "positive", 0.6),
        Span(1, 0.5, 2.5),
        Span(1, 0.5, 2.25, "happy", 0.8),
    )
    assert labels == ("happy", "sad <&>")
    path.write_text("")
    assert read_events(path, START) == ((), ())


def test_spans_of_a_row_follow_each_other_and_last(recording: Recording) -> None:
    found = {(track, labelled): spans for track, labelled, spans in rows(recording.spans)}
    assert [span[:2] for span in found[1, True]] == [
        (40, 10000), (10000, 20124), (20124, 20125), (20125, 30000), (3661001, 3725500),
    ]  # fmt: skip
    assert found[2, False] == [(5000, 5001, Span(2, 5.0, 5.0))]
    crowded = [Span(1, 0.0001 * at, 0.0001 * at, "a", 0.5) for at in range(5)]
    ((_, _, spans),) = rows(crowded)
    assert [span[:2] for span in spans] == [(at, at + 1) for at in range(5)]


def test_the_film_s_path_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    (out := tmp_path / "out/deep").mkdir(parents=True)
    (film := tmp_path / "films/a <&>.mp4").parent.mkdir()
    film.touch()
    assert media_path(str(film), film, out) == "../../films/a <&>.mp4"
    assert media_path("film.mp4", film, film.parent) == "a <&>.mp4"
    (link := tmp_path / "link").symlink_to(out)
    assert media_path(str(film), film, link) == "../../films/a <&>.mp4"


@pytest.mark.parametrize(
    ("source", "media"),
    [
        ("https://example.org/talk.mp4", "https://example.org/talk.mp4"),
        ("https://me:secret@example.org/talk.mp4", None),
        ("rtsp://192.0.2.1/door", None),
        ("demo", None),
    ],
)
def test_an_address_is_given_if_a_player_opens_it_and_it_has_no_password(
    source: str, media: str | None, tmp_path: Path
) -> None:
    assert media_path(source, tmp_path / source, tmp_path) == media


@pytest.mark.parametrize("name", ["talk", "sub-01_task-talk_video"])
def test_the_names_are_known_before_anything_is_written(name: str, tmp_path: Path) -> None:
    known = names(KINDS, name)
    assert write(KINDS, Recording(name, name, None, 0.0, 1, "1", "m", (), ()), tmp_path) == known
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(known)
