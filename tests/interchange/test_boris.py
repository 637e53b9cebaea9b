from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from annotation_files import BORIS_7, BORIS_9, BORIS_AGGREGATED, BORIS_PROJECT

from fer_stream.errors import AnnotationError
from fer_stream.interchange.annotations import Annotation
from fer_stream.interchange.formats import read_annotations

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.interchange.annotations import Coding


def _read(tmp_path: Path, text: str) -> list[Coding]:
    path = tmp_path / "anna.tsv"
    path.write_text(text, encoding="utf-8")
    return read_annotations(path)


@pytest.mark.parametrize("text", [BORIS_7, BORIS_9, BORIS_9.replace("\t", ","), BORIS_AGGREGATED, BORIS_PROJECT])
def test_every_version(text: str, tmp_path: Path) -> None:
    (found,) = _read(tmp_path, text)
    assert (found.kind, found.film, found.coder) == ("BORIS", "talk", None)
    assert found.annotations == (Annotation(3.3, 7.75, "happy", "anna"), Annotation(9.9, 16.2, "sad", ""))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("7.750\tC:\\films\\talk.mp4", "7.750\tother.mp4", "shows several films, C:.* and other.mp4"),
        ("\tSTOP\n9.000", "\tSTART\n9.000", "line 11: 'happy' starts again before it stops"),
        ("\tSTART\n7.750", "\tSTOP\n7.750", "line 10: 'happy' stops, but it has not started"),
        ("7.750", "1.0", "line 11: 'happy' stops before it starts"),
        ("POINT", "MAYBE", "line 12: 'MAYBE' is neither START, STOP nor POINT"),
        ("16.200", "soon", "line 14, column time: 'soon' is not a time"),
    ],
)
def test_damaged_events(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in BORIS_7
    with pytest.raises(AnnotationError, match=message):
        _read(tmp_path, BORIS_7.replace(old, new, 1))


def test_an_event_that_never_stops(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="line 13: 'sad' starts, but it never stops: add its stop in BORIS"):
        _read(tmp_path, "\n".join(BORIS_7.splitlines()[:-1]))


def test_damaged_aggregated_events_and_projects(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="line 2: the event stops before it starts"):
        _read(tmp_path, BORIS_AGGREGATED.replace("7.750", "1"))
    with pytest.raises(AnnotationError, match=r"the observation 'one' shows several films, films/talk.mp4 and b.mp4"):
        _read(tmp_path, BORIS_PROJECT.replace('"2": []', '"2": ["b.mp4"]'))
    with pytest.raises(AnnotationError, match="is not a complete project of BORIS 7 to 9: save it again"):
        _read(tmp_path, BORIS_PROJECT.replace('"events"', '"evening"'))
    with pytest.raises(AnnotationError, match="is JSON, but neither a project of BORIS nor events of fer-stream"):
        _read(tmp_path, '{"a": 1}')
