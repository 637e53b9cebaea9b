"""Annotations of the history page are compared face by face, though several faces are in view at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from journals import SECOND, event, since

from fer_stream.analysis.agreement.compare import compare
from fer_stream.analysis.agreement.films import Choices, gather
from fer_stream.errors import AnnotationError
from fer_stream.events.cloudevents import encode, to_rfc3339
from fer_stream.types import Nanoseconds

if TYPE_CHECKING:
    from pathlib import Path

ROWS = ((1, 10, 20, "happy"), (2, 12, 32, "happy"), (3, 40, 50, "wrong"))
"""Anna's annotations: track, start and end in seconds, label. All were shown as happy; the second one also for 12 s."""


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    made = [event("camera.online", frame=0)]
    for track, start, end, _ in ROWS:
        label = "sad" if track == 2 else "happy"
        made.append(since(start, event("emotion.ended", track=track, frame=end, label=label)))
    made.append(event("camera.offline", frame=60))
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(encode(each) for each in made))
    return path


def annotated(path: Path, rows: tuple[tuple[int, int, int, str], ...]) -> Path:
    lines = ["camera,track,start,end,label,previous,annotator,note,made"]
    for track, *times, label in rows:
        start, end = (to_rfc3339(Nanoseconds(time * SECOND)) for time in times)
        lines.append(f"door,{track},{start},{end},{label},happy,anna,,2026-01-31T08:00:00Z")
    path.write_text("\n".join(lines))
    return path


def test_each_face_is_compared_with_its_own_track(ours: Path, tmp_path: Path) -> None:
    material = gather(ours, [annotated(tmp_path / "annotations.csv", ROWS)], Choices())
    assert [film.name for film in material.films] == ["door, face 1", "door, face 2", "door, face 3"]
    (pair,) = compare(material).pairs
    confusion = pair.all_time.confusion.sum(axis=0)
    assert confusion.sum() == pytest.approx(40), "only the time that anna has annotated"
    assert confusion.trace() == pytest.approx(10)
    assert any("wrong is no label of ours" in remark for remark in material.remarks)


def test_one_track_may_still_be_chosen(ours: Path, tmp_path: Path) -> None:
    material = gather(ours, [annotated(tmp_path / "a.csv", ROWS)], Choices(tracks={"": "1"}, tier="1"))
    assert [film.name for film in material.films] == ["door"]


def test_annotations_with_only_wrong_cannot_be_compared(ours: Path, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="anna has only marked labels as wrong: to compare them, give right ones"):
        gather(ours, [annotated(tmp_path / "a.csv", ROWS[2:])], Choices())
