from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fer_stream.errors import AnnotationError
from fer_stream.interchange.annotations import Annotation, film_name
from fer_stream.interchange.formats import read_annotations

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.interchange.annotations import Coding


def _read(tmp_path: Path, text: str) -> list[Coding]:
    path = tmp_path / "anna.csv"
    path.write_text(text, encoding="utf-8")
    return read_annotations(path)


def test_a_plain_table(tmp_path: Path) -> None:
    (found,) = _read(tmp_path, "start,end,label\n0:05,0:10,happy\n0,1,sad\n3,3,point\n")
    assert (found.film, found.coder, found.absolute, found.kind) == (None, None, False, "table")
    assert found.annotations == (Annotation(0, 1, "sad"), Annotation(5, 10, "happy"))


def test_films_coders_and_tracks(tmp_path: Path) -> None:
    text = "Film;Coder;Track;Start;End;Label\nC:\\f\\a.mp4;Anna;1;0,5;1;sad\na.mp4;Ben;1;0;1;sad\nb;Ben;n/a;0;1;sad\n"
    found = _read(tmp_path, text)
    assert [(one.film, one.coder, one.tracks) for one in found] == [
        ("a", "Anna", ("1",)), ("a", "Ben", ("1",)), ("b", "Ben", ("",)),
    ]  # fmt: skip
    assert found[0].annotations[0].start == 0.5


def test_bids(tmp_path: Path) -> None:
    (found,) = _read(tmp_path, "onset\tduration\ttrial_type\tstim_file\n1\t2.5\thappy\ttalk.mp4\n9\tn/a\tx\ttalk.mp4\n")
    assert (found.kind, found.film) == ("BIDS", "talk")
    assert found.annotations == (Annotation(1, 3.5, "happy"),)


def test_the_last_of_repeated_spans_of_the_history_page_counts(tmp_path: Path) -> None:
    rows = [
        "door,2026-01-31T08:00:00Z,2026-01-31T08:00:10Z,sad,Anna,1",
        "door,2026-01-31T08:00:00Z,2026-01-31T08:00:10Z,happy,Ben,1",
        "door,2026-01-31T09:00:00+01:00,2026-01-31T08:00:11Z,angry,Anna,1",  # meanwhile the interval has ended
    ]
    anna, ben = _read(tmp_path, "\n".join(["camera,start,end,label,annotator,track", *rows]))
    assert anna.absolute
    assert anna.sparse
    assert (anna.film, anna.coder, ben.coder) == ("door", "Anna", "Ben")
    assert anna.annotations == (Annotation(1769846400.0, 1769846411.0, "angry", "1"),)
    with pytest.raises(AnnotationError, match="line 2, column start: '2026-01-31T08:00:00' has no time zone"):
        _read(tmp_path, "camera,start,end,label,annotator\n" + rows[0].replace("00Z", "00", 1)[:-2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start,end\n1,2\n", "there is no column for the label, such as 'label'"),
        ("start,end,label\n2,1,a\n", "line 2 ends before it starts"),
        ("start,end,label\n1,2,\n", "line 2: the column label is empty"),
        ("onset\tduration\ttrial_type\n1\t-2\ta\n", "line 2 ends before it starts"),
        ("start,end,label\n1,1,a\n", "has no annotation with a duration"),
        ("hello\nworld\n", "there is no column for the start"),
        ("start,end,label,code\n1,2,a,b\n", "label and code could both be the label"),
    ],
)
def test_damaged_tables(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=message):
        _read(tmp_path, text)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("talk.mp4", "talk"), ("/a/b.c/talk.MOV", "talk"), ("C:\\films\\talk.avi", "talk"), ("talk", "talk"),
        ("file:///C:/films/a%20talk.mp4", "a talk"), ("talk.2", "talk.2"), ("", ""), (".mp4", ".mp4"),
        ("Dr. No talks", "Dr. No talks"),
    ],
)  # fmt: skip
def test_names_of_films(address: str, name: str) -> None:
    assert film_name(address) == name


def test_names_of_films_in_a_table_may_have_dots(tmp_path: Path) -> None:
    rows = "talk.pre,0,1,sad\ntalk.post.MP4,0,1,sad\nfilms/dr.no.avi,0,1,sad\n"
    found = _read(tmp_path, f"film,start,end,label\n{rows}")
    assert [one.film for one in found] == ["talk.pre", "talk.post", "dr.no"]
