from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fer_stream.errors import AnnotationError
from fer_stream.interchange.markers import Marker, read_markers

if TYPE_CHECKING:
    from pathlib import Path


def _read(tmp_path: Path, text: str) -> list[Marker]:
    path = tmp_path / "trials.csv"
    path.write_text(text, encoding="utf-8")
    return read_markers(path)


def test_markers(tmp_path: Path) -> None:
    assert _read(tmp_path, "start,end,name\n0,10,rest\n10,1:30.5,talk\n") == [
        Marker("rest", 0, 10),
        Marker("talk", 10, 90.5),
    ]
    found = _read(tmp_path, "Film;Name;Start;End;note\none.mp4;rest;0,5;10,25;x\n;talk;1;2;\n")
    assert found == [Marker("rest", 0.5, 10.25, "one.mp4"), Marker("talk", 1, 2)]


def test_bids_events(tmp_path: Path) -> None:
    found = _read(tmp_path, "onset\tduration\ttrial_type\tresponse_time\n1.5\t2.5\tface\tn/a\n10\t1\thouse\t0.3\n")
    assert found == [Marker("face", 1.5, 4.0), Marker("house", 10, 11)]
    one, other = _read(tmp_path, "onset\tduration\ttrial_type\n0.1\t0.2\tface\n0.3\t1\thouse\n")
    assert one.end == other.start, "0.1 + 0.2 is more than 0.3 in floating point"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start,end,name\n", "has a heading, but no markers below it"),
        ("start,end\n1,2\n", "line 1: there is no column for the name, such as 'name'; the columns are start and end"),
        ("start,name\n1,a\n", "line 1: there is no column for the end"),
        ("onset\tduration\ttrial_type\n1\tn/a\ta\n", "line 2: the column duration is empty, but a marker needs an end"),
        ("onset\tduration\ttrial_type\n1\t0\ta\n", "line 2: the marker lasts 0 s"),
        ("start,end,name\n5,4,a\n", "line 2: the marker ends at 4 s, not after its start at 5 s"),
        ("start,end,name\n1,2,\n", "line 2: the column name is empty"),
        ("start,end,name\nsoon,2,a\n", "line 2, column start: 'soon' is not a time"),
        ("start,start,end,name\n1,1,2,a\n", "start and start could both be the start"),
    ],
)
def test_bad_markers(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=message):
        _read(tmp_path, text)
