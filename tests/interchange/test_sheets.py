from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fer_stream.errors import AnnotationError
from fer_stream.interchange import sheets
from fer_stream.interchange.sheets import parse_sheet, read_sheet, read_text, seconds

if TYPE_CHECKING:
    from pathlib import Path

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("delimiter", ["\t", ";", ","])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_whatever_the_encoding_delimiter_and_line_end(encoding: str, delimiter: str, end: str, tmp_path: Path) -> None:
    lines = [["Start", "End", "Name"], ["1.5", "2", "Übung"], [], ["3", "4.25", "café"]]
    path = tmp_path / "table"
    path.write_bytes(end.join(delimiter.join(line) for line in lines).encode(encoding))
    sheet = read_sheet(path)
    assert sheet.names == ("Start", "End", "Name")
    rows = list(sheet.rows())
    assert [row.line for row in rows] == [2, 4]
    assert [sheet.text(row, "name") for row in rows] == ["Übung", "café"]
    assert sheet.seconds(rows[1], "end") == 4.25


def test_decimal_commas_and_quotes(tmp_path: Path) -> None:
    sheet = parse_sheet(tmp_path, 'start;end;name\n1,5;2,25;"a;b"\n')
    (row,) = sheet.rows()
    assert (sheet.seconds(row, "start"), sheet.seconds(row, "end"), row.cells["name"]) == (1.5, 2.25, "a;b")
    sheet = parse_sheet(tmp_path, 'start,end,name\n"1,5","2,25","a\nb"\n3,4,c\n')
    first, second = sheet.rows()
    assert (sheet.seconds(first, "start"), first.line, second.line) == (1.5, 2, 4)
    with pytest.raises(AnnotationError, match="line 2 has 5 cells, but the heading has 3: a decimal comma needs"):
        list(parse_sheet(tmp_path, "start,end,name\n1,5,2,25,a\n").rows())
    with pytest.raises(AnnotationError, match=r"line 2 has 2 cells, but the heading has 3$"):
        list(parse_sheet(tmp_path, "start,end,name\n1,5").rows())


def test_a_line_for_excel_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\ufeffsep=;\r\nStart;End\r\n1,5;2\r\n", encoding="utf-8")
    sheet = read_sheet(path)
    assert sheet.names == ("Start", "End")
    assert [(row.line, sheet.seconds(row, "start")) for row in sheet.rows()] == [(3, 1.5)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", 12), ("12.5", 12.5), ("12,5", 12.5), ("-0.5", -0.5), ("1e2", 100), (".5", 0.5), ("1:23.5", 83.5),
        ("01:23,5", 83.5), ("90:00", 5400), ("1:01:23.5", 3683.5), ("00:00:00.040", 0.04),
    ],
)  # fmt: skip
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "one", "1.234,5", "1:60", "1:60:00", "nan", "inf", "1e999", "1:2:3:4", "9" * 50, "٣", "1 2", "12s"]
)
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time|is too far from"):
        seconds(text)


def test_a_heading_may_follow_other_lines(tmp_path: Path) -> None:
    text = "Observation id\tone, two\nMedia file(s)\n\nTime\tBehavior\tStatus\n1.0\tsmile\tSTART\n"
    sheet = parse_sheet(tmp_path, text, {"time", "behavior", "status"})
    assert sheet.names == ("Time", "Behavior", "Status")
    assert [row.line for row in sheet.rows()] == [5]
    with pytest.raises(AnnotationError, match="no heading with the columns behavior, subject, time"):
        parse_sheet(tmp_path, text, {"time", "behavior", "subject"})


def test_columns(tmp_path: Path) -> None:
    sheet = parse_sheet(tmp_path / "t.csv", "start,end,name,label\n")
    assert sheet.column("the start", "start") == "start"
    assert sheet.column("the film", "film", needed=False) == ""
    assert "end" in sheet
    assert "film" not in sheet
    with pytest.raises(AnnotationError, match="line 1: name and label could both be the name: rename or remove one"):
        sheet.column("the name", "name", "label")
    with pytest.raises(AnnotationError, match="no column for the film, such as 'film'; the columns are start, end, "):
        sheet.column("the film", "film")


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    with pytest.raises(AnnotationError, match=r"table\.csv cannot be read: no such file"):
        read_text(path)
    with pytest.raises(AnnotationError, match="is a folder, not a file"):
        read_text(tmp_path)
    path.write_bytes(b" \n")
    with pytest.raises(AnnotationError, match="is empty"):
        read_text(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0")
    with pytest.raises(AnnotationError, match="is not text"):
        read_text(path)
    path.write_bytes(b"1,2,3\n4,5,6\n")
    with pytest.raises(AnnotationError, match="has no heading with the names of the columns"):
        read_sheet(path)
    path.write_bytes(b'start,end,name\n1,2,"never closed\n')
    with pytest.raises(AnnotationError, match=r"line 2: .*is a quotation mark not closed"):
        read_sheet(path)
    monkeypatch.setattr(sheets, "MOST_BYTES", 4)
    with pytest.raises(AnnotationError, match="has 0 MiB, more than 0: split it"):
        read_text(path)


def test_an_empty_cell_is_named(tmp_path: Path) -> None:
    sheet = parse_sheet(tmp_path / "t.csv", "start,name\nx,n/a\n")
    (row,) = sheet.rows()
    with pytest.raises(AnnotationError, match=r"t\.csv, line 2: the column name is empty"):
        sheet.text(row, "name")
    with pytest.raises(AnnotationError, match=r"t\.csv, line 2, column start: 'x' is not a time"):
        sheet.seconds(row, "start")
