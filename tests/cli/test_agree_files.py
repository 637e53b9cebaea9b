"""Files of coders as strangers send them, read by the command agree: each is read, or gets one clear sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fer_stream.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Agree = Callable[[bytes], tuple[int, str, str]]

US = "film,start,end,label\ntalk,0,10,happy\ntalk,10,14,sad\n"
GOOD = "start,end,label,note\n0,10,happy,für\n10,14,sad,x\n"
HEAD = "start,end,label\n"

READ = {
    "a byte order mark": GOOD.encode("utf-8-sig"),
    "UTF-16": GOOD.encode("utf-16"),
    "UTF-16 without a mark": GOOD.encode("utf-16-le"),
    "Latin-1": GOOD.encode("latin-1"),
    "lines of Windows": GOOD.replace("\n", "\r\n").encode(),
    "lines of an old Mac": GOOD.replace("\n", "\r").encode(),
    "decimal commas": b"start;end;label\n0,0;10,0;happy\n10,0;14,0;sad\n",
    "decimal commas in quotes": b'start,end,label\n"0,0","10,0",happy\n"10,0","14,0",sad\n',
    "tabs": GOOD.replace(",", "\t").encode(),
    "clock times": b"start,end,label\n0:00:00.0,0:00:10.0,Happy\n00:10,00:14,SAD\n",
    "other names of columns": b"Begin Time;End Time;Annotation\n0;10;happy\n10;14;sad\n",
    "any order": b"label,end,start\nsad,14,10\nhappy,10,0\n",
    "a small overlap": b"start,end,label\n0,10.05,happy\n10,14,sad\n",
}

REMARKS = {
    b"start,end,label\n0,10,happy\n10,14,Trauer\n": "anna: Trauer is no label of ours",
    b"onset\tduration\ttrial_type\n0\t10\thappy\n10\t4\tsad\n12\tn/a\tblink\n": (
        "anna.csv: 1 annotation without a duration left out"
    ),
    b"start,end,label\n0,10000,happy\n10000,14000,sad\n": (
        "anna: much of the labelled time is left out, because us has none there: talk (0 to 14 s); are all times in "
        "seconds from the film's beginning?"
    ),
    b"film,start,end,label\ntalk.mp4,0,10,happy\nwalk.mp4,0,9,sad\n": ("anna.csv: walk left out: not among our films"),
}

REFUSED = {
    b"": "anna.csv is empty",
    b"\xef\xbb\xbf": "anna.csv is empty",
    b"\n\n  \n": "anna.csv is empty",
    HEAD.encode(): "anna.csv has no annotation with a duration: give another file",
    b"start,end,label\n0,10,happy\n10,1": "anna.csv, line 3 has 2 cells, but the heading has 3",
    b'start,end,label\n0,10,happy\n10,14,"sa': (
        "anna.csv, line 3: unexpected end of data; is a quotation mark not closed?"
    ),
    b"start,end,label\n0,0,10,0,happy\n": (
        "anna.csv, line 2 has 5 cells, but the heading has 3: a decimal comma needs another delimiter, or quotes"
    ),
    b"start,what\n0,happy\n": (
        "anna.csv, line 1: there is no column for the end, such as 'end'; the columns are start and what"
    ),
    b"0,10,happy\n10,14,sad\n": ("anna.csv has no heading with the names of the columns: add one as the first line"),
    b"start,end,label,label\n0,10,happy,x\n": (
        "anna.csv, line 1: label and label could both be the label: rename or remove one"
    ),
    b"start,end,label\n0,10,sehr froh\n": (
        "no label of anna is one of ours: there are sehr froh, ours are happy, sad; map them, such as --map "
        "'sehr froh=happy'"
    ),
    b"film,start,end,label\nwalk.mp4,0,10,happy\n": (
        "no film of anna.csv is one of ours: there it is walk, ours are talk; rename the files, or give the film in a "
        "column"
    ),
    b"start,end,label\n0,10,happy\n5,14,sad\n": (
        "anna.csv has two labels at 5 s, 'happy' and 'sad', on one track: only one can be compared; shorten one of them"
    ),
    b"start,end,label,track\n0,10,happy,l\n5,14,sad,r\n": (
        "anna.csv has two labels at 5 s, on the tracks 'l' and 'r': choose one of 'l', 'r' with --tier"
    ),
    b"start,end,label\n100,110,happy\n": (
        "us and anna have no time in common: in talk, us has 0 to 14 s and anna has 100 to 110 s; are both in seconds "
        "from the film's beginning?"
    ),
    b"start,end,label\n10,0,happy\n": "anna.csv, line 2 ends before it starts: correct it",
    b"start,end,label\n0,soon,happy\n": (
        "anna.csv, line 2, column end: 'soon' is not a time: give seconds, such as 83.5, or 1:23.5, or 0:01:23.5"
    ),
    b"start,end,label\n0,1e300,happy\n": (
        "anna.csv, line 2, column end: '1e300' is too far from the film's beginning: give seconds of the film's clock"
    ),
    b"start,end,label\n0,10,\n": "anna.csv, line 2: the column label is empty",
    b"onset\tduration\ttrial_type\n0\tn/a\thappy\n": "anna.csv has no annotation with a duration: give another file",
    b"camera,start,end,label,annotator\ntalk,2026-01-31T08:00:00Z,2026-01-31T08:00:10Z,happy,x\n": (
        "anna.csv has times of day, but the times of our film begin at 0: give our events or our analysis"
    ),
    b"PK\x03\x04" + bytes(60): "anna.csv is a spreadsheet or an archive: save the table as CSV, in UTF-8",
    b"\xd0\xcf\x11\xe0" + bytes(60): ("anna.csv is a spreadsheet of an old format: save the table as CSV, in UTF-8"),
    b"%PDF-1.4\n": "anna.csv is a PDF: save the table as CSV, in UTF-8",
    b"\x89PNG\r\n\x1a\n" + bytes(60): "anna.csv is not text: give a table as CSV or TSV, in UTF-8",
    b"start,end,label\n0,10,ha\0ppy\n": "anna.csv is not text: give a table as CSV or TSV, in UTF-8",
    b"WEBVTT\n\n00:00.000 --> 00:10.000\nhappy\n": (
        "anna.csv has subtitles, which are not read: give the annotations as EAF, CSV or TSV"
    ),
    b"<!DOCTYPE html><html></html>": "anna.csv is a web page, not annotations: download the file again",
    b"<svg></svg>": "anna.csv is XML, but not of ELAN: its first element is svg",
    b"<?xml version='1.0'?><ANNOTATION_DOCUMENT></ANNOTATION_DOCUMENT>": (
        "anna.csv has no annotation with a duration: give another file"
    ),
    b"<?xml version='1.0'?><ANNOTATION_DOCUMENT><TIME_ORDER>": (
        "anna.csv cannot be read as a file of ELAN: no element found: line 1, column 54; it may be incomplete"
    ),
    b'{"observations": {"a": {"events": [[1, 2]]}}, "behaviors_conf": {}}': (
        "anna.csv is not a complete project of BORIS 7 to 9: save it again with one of these versions"
    ),
    b'{"foo": 1}': "anna.csv is JSON, but neither a project of BORIS nor events of fer-stream: give another file",
    b"[1, 2]": "anna.csv is JSON, but neither a project of BORIS nor events of fer-stream: give another file",
    b"[" * 100_000: "anna.csv is nested too deeply to be a file of BORIS: give another file",
    b"Time,Subject,Behavior,Behavior type\n0,x,happy,START\n": (
        "anna.csv, line 2: 'happy' starts, but it never stops: add its stop in BORIS"
    ),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "us.csv").write_text(US)
    return tmp_path


@pytest.fixture
def agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> Agree:
    """Compare a file with this content, and return the exit code and what was printed."""

    def agree(content: bytes) -> tuple[int, str, str]:
        path = folder / "anna.csv"
        path.write_bytes(content)
        code = main(["agree", "us.csv", "anna.csv"])
        assert path.read_bytes() == content
        return code, *capsys.readouterr()

    return agree


@pytest.mark.parametrize("content", READ.values(), ids=READ)
def test_whatever_wrote_the_table(content: bytes, agree: Agree) -> None:
    code, out, err = agree(content)
    assert (code, err) == (0, "")
    assert "  Cohen's kappa    1.00\n" in out
    assert "note" not in out


@pytest.mark.parametrize(("content", "remark"), REMARKS.items(), ids=range(len(REMARKS)))
def test_a_remark_lists_what_is_left_out(content: bytes, remark: str, agree: Agree) -> None:
    code, out, err = agree(content)
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("note: ")] == [f"note: {remark}"]


@pytest.mark.parametrize(("content", "message"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_cannot_be_read_gets_one_sentence(content: bytes, message: str, agree: Agree) -> None:
    assert agree(content) == (1, "", f"fer-stream: error: {message}\n")


def test_in_a_folder_the_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "anna").mkdir()
    (folder / "anna/talk.csv").write_text(GOOD)
    (folder / "anna/walk.csv").write_bytes(b"")
    assert main(["agree", "us.csv", "anna"]) == 1
    assert capsys.readouterr().err == "fer-stream: error: anna/walk.csv is empty\n"
    (folder / "anna/walk.csv").unlink()
    assert main(["agree", "us.csv", "anna"]) == 0
