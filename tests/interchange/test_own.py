from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from fer_stream.analysis import Analysis, study
from fer_stream.errors import AnnotationError
from fer_stream.interchange.annotations import Annotation
from fer_stream.interchange.formats import read_annotations
from fer_stream.settings.tree import load

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def analysed(clip: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analysed") / "portraits"
    flags = {"classifier.model": str(tiny_model), "cameras.door.source": str(clip)}
    Analysis(load(flags | {"cameras.door.start_time": "2026-01-31T08:00:00Z"}), "door", folder).run(1, lambda *_: None)
    return folder


def _intervals(folder: Path) -> list[tuple[str, str, str, str]]:
    """Return the ended intervals in a folder's events, read here without any code of the package."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [
        (event["data"]["start_time"], event["data"]["end_time"], event["data"]["label"], event["subject"].split("/")[1])
        for event in events
        if event["type"] == "emotion.ended"
    ]


def _seconds(text: str) -> float:
    assert text.startswith("2026-01-31T08:00:")
    return float(text[17:-1])


def test_a_folder_of_analyze(analysed: Path) -> None:
    (found,) = read_annotations(analysed)
    expected = [(_seconds(start), _seconds(end), label, track) for start, end, label, track in _intervals(analysed)]
    assert expected
    assert [(one.start, one.end, one.label, one.track) for one in found.annotations] == [
        (pytest.approx(start, abs=1e-5), pytest.approx(end, abs=1e-5), label, track)
        for start, end, label, track in sorted(expected)
    ]
    duration = json.loads((analysed / "summary.json").read_text())["duration_s"]
    assert (found.film, found.coder, found.absolute, found.spans) == ("portraits", None, False, ((0.0, duration),))
    assert {"happy", "sad"} < found.labels
    assert found.origin == 1769846400.0


def test_events_that_begin_while_the_camera_is_online(analysed: Path, tmp_path: Path) -> None:
    lines = (analysed / "events.jsonl").read_text().splitlines(keepends=True)
    events = list(map(json.loads, lines))
    assert [event["type"] for event in (events[0], events[-1])] == ["camera.online", "camera.offline"]
    path = tmp_path / "later.jsonl"
    path.write_text("".join(lines[1:]))
    (found,) = read_annotations(path)
    ((start, end),) = found.spans
    assert start == min(one.start for one in found.annotations)
    assert end >= max(one.end for one in found.annotations)


def test_a_folder_of_several(analysed: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(analysed, tmp_path / name)
    assert [one.path.name for one in read_annotations(tmp_path)] == ["one", "two"]
    (tmp_path / "two" / "events.jsonl").write_text("")
    with pytest.raises(AnnotationError, match=r"events.jsonl is empty"):
        read_annotations(tmp_path)


def test_folders_that_are_incomplete(analysed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "film"
    shutil.copytree(analysed, folder)
    (folder / "summary.json").rename(tmp_path / "summary.json")
    with pytest.raises(AnnotationError, match=r"film has events, but no summary\.json: repeat fer-stream analyze"):
        read_annotations(folder)
    (tmp_path / "summary.json").rename(folder / "summary.json")
    (folder / "events.jsonl").unlink()
    with pytest.raises(AnnotationError, match=r"film has no events\.jsonl: unrelated pictures have no times"):
        read_annotations(folder)


def test_events_also_of_a_file_that_was_cut(analysed: Path, tmp_path: Path) -> None:
    lines = (analysed / "events.jsonl").read_text().splitlines()
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(lines))
    (whole,) = read_annotations(path)
    assert (whole.film, whole.absolute) == ("door", True)
    assert whole.spans[0][0] == whole.origin == 1769846400.0
    started = next(at for at, line in enumerate(lines) if '"emotion.started"' in line)
    path.write_text("\n".join([*lines[: started + 1], lines[started].replace("emotion.started", "emotion.updated")]))
    (cut,) = read_annotations(path)
    (left,) = cut.annotations
    assert left.start == whole.annotations[0].start
    assert left.end == cut.spans[-1][1]
    path.write_text("\n".join([*lines, '{"a":1}']))
    with pytest.raises(AnnotationError, match=rf"line {len(lines) + 1} is no event of fer-stream"):
        read_annotations(path)


def test_a_table_of_faces(analysed: Path, tmp_path: Path) -> None:
    (found,) = read_annotations(analysed / "faces.csv")
    (events,) = read_annotations(analysed)
    assert {one.label for one in found.annotations} == {one.label for one in events.annotations}
    assert found.labels == events.labels
    path = tmp_path / "faces.csv"
    path.write_text("frame,time,track,label\n1,0,1,\n2,1,1,happy\n3,2,1,happy\n4,3,1,sad\n5,9,1,sad\n6,10,1,sad\n")
    (found,) = read_annotations(path)
    assert found.annotations == (Annotation(1, 3, "happy", "1"), Annotation(9, 10, "sad", "1"))


def test_folders_without_annotations(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="has no analysis of fer-stream and no file with annotations"):
        read_annotations(tmp_path)
    (tmp_path / "a.csv").write_text("start,end,label,film\n0,1,happy,a\n")
    (tmp_path / "b.csv").write_text("start,end,label,film\n0,1,sad,b\n")
    (tmp_path / "notes.md").write_text("not read")
    assert [one.film for one in read_annotations(tmp_path)] == ["a", "b"]
    with pytest.raises(AnnotationError, match=r"missing\.csv cannot be read: no such file"):
        read_annotations(tmp_path / "missing.csv")


def test_a_table_of_events_has_the_labels_of_the_events(analysed: Path) -> None:
    (found,) = read_annotations(analysed / "events.csv")
    (events,) = read_annotations(analysed)
    assert found.annotations
    assert [(one.label, one.track) for one in found.annotations] == [
        (one.label, one.track) for one in events.annotations
    ]
    for mine, theirs in zip(found.annotations, events.annotations, strict=True):
        assert (mine.start, mine.end) == pytest.approx((theirs.start, theirs.end), abs=1e-3)
    assert (found.labels, found.absolute) == (events.labels, False)


def test_common_tables_have_each_film_by_itself(analysed: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(analysed, tmp_path / name)
    study.join(tmp_path, ["one", "two"], (), force=False)
    for table in ("events.csv", "faces.csv"):
        (alone,) = read_annotations(analysed / table)
        films = read_annotations(tmp_path / table)
        assert [each.film for each in films] == ["one", "two"]
        assert {(each.annotations, each.spans, each.labels) for each in films} == {
            (alone.annotations, alone.spans, alone.labels)
        }


def test_an_interval_without_an_end_lasts_until_its_last_row(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    rows = ["1,camera.online,0,,,,", "2,emotion.started,1.2,1,sad,1,", "3,emotion.updated,4,1,sad,1,"]
    rows += ["4,zone.entered,4.1,1,,1,", "5,camera.offline,5,,,,"]
    path.write_text("\n".join(["sequence,type,time,track,label,start,end", *rows]))
    (found,) = read_annotations(path)
    assert found.annotations == (Annotation(1, 4, "sad", "1"),)
    assert found.spans == ((0, 5),)


def test_films_with_one_name_are_told_apart_by_their_folders(analysed: Path, tmp_path: Path) -> None:
    for name in ("anna", "ben"):
        shutil.copytree(analysed, tmp_path / name)
    assert [one.film for one in read_annotations(tmp_path)] == ["anna", "ben"]
