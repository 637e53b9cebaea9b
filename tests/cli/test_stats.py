"""The command stats, on a journal that a service has written."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest
from cli.command import fer_stream
from journals import event

from fer_stream.journal.sqlite import Writer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The journal of two cameras: at the door one face is happy from 0 s to 30 s and leaves at 40 s."""
    path = tmp_path / "events.db"
    with Writer(path) as writer:
        writer.append(
            [
                event("camera.online", frame=0),
                event("face.entered", track=1, frame=1),
                event("emotion.started", track=1, frame=2),
                event("emotion.ended", track=1, frame=30),
                event("face.left", track=1, frame=40),
                event("camera.online", "hall", frame=10),
                event("camera.offline", frame=60),
            ]
        )
    return path


def test_as_a_table(journal: Path) -> None:
    code, out, err = fer_stream("stats", "--journal", str(journal), "--every", "40s", "--to", "1970-01-01T00:01:20Z")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        [
            *("camera", "from", "online", "s", "offline", "s", "unknown", "s", "unseen", "s", "faces", "in", "view"),
            *("s", "uncertain", "%", "happy", "%"),
        ],
        ["door", "1970-01-01", "00:00:00", "40.0", "0.0", "0.0", "0.0", "1", "40.0", "25.0", "75.0"],
        ["door", "1970-01-01", "00:00:40", "20.0", "20.0", "0.0", "20.0", "0", "0.0", "-", "-"],
        ["hall", "1970-01-01", "00:00:00", "0.0", "0.0", "40.0", "0.0", "0", "0.0", "-", "-"],
        ["hall", "1970-01-01", "00:00:40", "0.0", "0.0", "40.0", "0.0", "0", "0.0", "-", "-"],
    ]


def test_as_csv_and_json_lines(journal: Path) -> None:
    period = ("--journal", str(journal), "--from", "1970-01-01T00:00:00Z", "--to", "1970-01-01T01:00:10+01:00")
    code, out, _ = fer_stream("stats", *period, "--by", "valence", "--camera", "door", "--format", "csv")
    assert code == 0
    (row,) = csv.DictReader(io.StringIO(out))
    assert row == {
        "camera": "door",
        "start": "1970-01-01T00:00:00.000000Z",
        "end": "1970-01-01T00:00:10.000000Z",
        "online_s": "10.0",
        "offline_s": "0.0",
        "unknown_s": "0.0",
        "withheld": "0",
        "faces": "1",
        "unseen_s": "0.0",
        "in_view_s": "10.0",
        "uncertain_s": "0.0",
        "positive_s": "10.0",
    }
    code, out, _ = fer_stream("stats", *period, "--least-faces", "2", "--format", "jsonl")
    assert code == 0
    door, hall = map(json.loads, out.splitlines())
    assert (door["withheld"], hall["withheld"]) == (True, False)
    assert "labels_s" not in door
    code, out, _ = fer_stream("stats", *period, "--least-faces", "2", "--format", "csv")
    assert out.splitlines()[1].endswith(",1,,,,")


def test_what_is_wrong_gets_one_sentence(journal: Path) -> None:
    for arguments, sentence in (
        (("--from", "yesterday"), "'yesterday' is not a time: give one with a time zone"),
        (("--from", "1970-01-01T00:00:00"), "is not a time: give one with a time zone"),
        (("--every", "5"), "'5' is not a time: give days, hours, minutes or seconds, such as 5m"),
        (("--every", "0m"), "'0m' is not a time"),
        (("--from", "99999999999h"), "'99999999999h' is too long: give at most 36500d"),
        (("--every", "36501d"), "'36501d' is too long: give at most 36500d"),
        (("--camera", "gate"), "the journal holds no event of the camera gate"),
        (("--to", "1970-01-01T00:00:00Z"), "the period is empty"),
        (("--every", "1s", "--to", "1980-01-01T00:00:00Z"), "choose a shorter period or longer parts"),
        (("--least-faces", "0"), "least_faces"),
    ):
        code, out, err = fer_stream("stats", "--journal", str(journal), *arguments)
        assert (code, out) == (2, ""), err
        assert sentence in err
    code, _, err = fer_stream("stats", "--journal", str(journal.with_name("none.db")))
    assert code == 1
    assert "none.db" in err
