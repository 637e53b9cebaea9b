"""The command annotations: what is added is printed, and agree reads it."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest
from cli.command import fer_stream
from journals import event

from fer_stream.client.annotations import stored_annotations
from fer_stream.events.annotations import FIELDS
from fer_stream.interchange.formats import read_annotations
from fer_stream.journal.sqlite import Writer
from fer_stream.settings import tree
from fer_stream.types import AnnotationQuery

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli

ADD = ("--camera", "door", "--track", "1", "--label", "sad", "--annotator", "anna")
TIMES = ("--from", "2026-01-31T08:00:00Z", "--to", "2026-01-31T08:00:09.5Z")
NOTE = '=cmd|"x",\n<b>;'


@pytest.fixture
def journal(short_folder: Path) -> Path:
    path = short_folder / "events.db"
    with Writer(path) as writer:
        writer.append([event("camera.online", "door")])
    return path


def test_what_is_added_is_printed_and_agree_reads_it(cli: Cli, journal: Path, tmp_path: Path) -> None:
    address = f"ipc://{journal.parent}"
    running = cli.start("aggregator", "--bind", address, "--journal", journal)
    running.until_said("ready at")
    for label in ("neutral", "sad"):  # the later one counts
        more = ("--label", label, "--previous", "happy", "--note", NOTE)
        added = cli.run("annotations", "add", *ADD, *TIMES, *more, "--connect", address)
        assert (added.popen.returncode, "is stored" in added.err) == (0, True), added.err
    other = cli.run("annotations", "add", *ADD, *TIMES, "--track", "2", "--connect", address)
    assert "annotation 3 is stored" in other.err
    unknown = cli.run("annotations", "add", *ADD, *TIMES, "--camera", "gate", "--connect", address)
    assert unknown.popen.returncode == 2
    assert unknown.errors == [
        "fer-stream: error: the annotation is refused: there is no camera 'gate' in the journal; fer-stream status "
        "lists the cameras"
    ]
    running.stop()
    printed = cli.run("annotations", "list", "--journal", journal, "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert list(rows[0]) == list(FIELDS)
    assert [(row["track"], row["label"], row["previous"], row["note"]) for row in rows] == [
        ("1", "neutral", "happy", NOTE),
        ("1", "sad", "happy", NOTE),
        ("2", "sad", "", ""),
    ]
    path = tmp_path / "annotations.csv"
    path.write_text(printed)
    (coding,) = read_annotations(path)
    assert (coding.film, coding.coder, coding.absolute) == ("door", "anna", True)
    stored = list(stored_annotations(tree.load({"journal.path": journal}), AnnotationQuery()))
    read = [(one.start, one.end, one.label, one.track) for one in coding.annotations]
    assert sorted(read) == sorted((s.start / 1e9, s.end / 1e9, s.label, str(s.track)) for s in stored[1:])
    lines = cli.run("annotations", "list", "--journal", journal, "--format", "jsonl").out.splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["neutral", "sad", "sad"]
    table = cli.run("annotations", "list", "--journal", journal, "--from", "2026-01-31T08:00:09Z").out
    assert len(table.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("add", *TIMES), "an annotation needs --camera: give it"),
        (("add", *ADD), "an annotation needs --from: give it"),
        (("list", "--label", "sad"), "--label applies to add, not to list: leave it out"),
        (("list", "--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"), "the period is empty"),
        (("add", *ADD, "--from", TIMES[3], "--to", TIMES[1]), "its end must be after its start"),
        (("add", *ADD, *TIMES, "--note", "x" * 501), "the note has 501 characters, and may have 500"),
    ],
)
def test_wrong_use_gets_one_sentence(journal: Path, arguments: tuple[str, ...], sentence: str) -> None:
    code, out, err = fer_stream("annotations", *arguments, "--journal", str(journal))
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.splitlines()) == 1
