"""The command stats, on a journal that a service has written."""

from __future__ import annotations

import csv
import io
import json
import signal
from typing import TYPE_CHECKING

import pytest
from cli.command import TIMEOUT, clean, fer_stream, start
from journals import event

from fer_stream.events.cloudevents import encode
from fer_stream.journal.sqlite import Writer
from fer_stream.operations.process import INTERRUPTED

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
        "negative_s": "0.0",
        "neutral_s": "0.0",
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
        (("--from", "2026-01-31T08:00:00Z"), "the period is empty: the latest event is of 1970-01-01T00:0"),
        (("--every", "1s", "--to", "1980-01-01T00:00:00Z"), "choose a shorter period or longer parts"),
        (("--least-faces", "0"), "least_faces"),
    ):
        code, out, err = fer_stream("stats", "--journal", str(journal), *arguments)
        assert (code, out) == (2, ""), err
        assert sentence in err
    code, _, err = fer_stream("stats", "--journal", str(journal.with_name("none.db")))
    assert code == 1
    assert "none.db" in err


# Zones, lines, trials and recordings


@pytest.fixture
def zoned(tmp_path: Path) -> Path:
    """The journal of a camera with a zone and a line: a face is at the till from 0 s to 20 s, and crosses the line."""
    path = tmp_path / "zones.db"
    with Writer(path) as writer:
        writer.append(
            [
                event("camera.online", frame=0),
                event("face.entered", track=1, frame=1),
                event("zone.entered", track=1, frame=1),
                event("emotion.started", track=1, frame=2),
                event("line.crossed", track=1, frame=15),
                event("zone.left", track=1, frame=20),
                event("emotion.ended", track=1, frame=30),
                event("face.left", track=1, frame=40),
                event("camera.offline", frame=60),
            ]
        )
    return path


MARKERS = "start,end,name\n0,10,before\n10,30,at the till\n"


def rows(*arguments: str) -> list[dict[str, str]]:
    code, out, err = fer_stream("stats", *arguments, "--format", "csv")
    assert (code, err) == (0, "")
    return list(csv.DictReader(io.StringIO(out)))


def test_by_zone_line_and_track(zoned: Path) -> None:
    whole = ("--journal", str(zoned), "--from", "1970-01-01T00:00:00Z")
    (till,) = rows(*whole, "--group", "zone")
    assert (till["zone"], till["in_view_s"], till["happy_s"], till["visits"]) == ("till", "20.0", "20.0", "1")
    (crossed,) = rows(*whole, "--group", "line")
    assert (crossed["line"], crossed["direction"], crossed["crossings"], crossed["faces"]) == ("door", "in", "1", "1")
    (track,) = rows(*whole, "--group", "track")
    assert (track["epoch"], track["track"], track["in_view_s"]) == ("1", "1", "40.0")
    for group in ("zone", "line", "track"):
        (hidden,) = rows(*whole, "--group", group, "--least-faces", "2")
        assert (hidden["withheld"], hidden["faces"]) == ("1", ""), group


def test_by_trial_of_a_journal(zoned: Path, tmp_path: Path) -> None:
    markers = tmp_path / "trials.csv"
    markers.write_text(MARKERS)
    whole = ("--journal", str(zoned), "--from", "1970-01-01T00:00:05Z", "--markers", str(markers))
    found = rows(*whole, "--group", "zone")
    assert [(row["trial"], row["start"][17:19], row["in_view_s"]) for row in found] == [
        ("before", "05", "10.0"),
        ("at the till", "15", "5.0"),
    ]


def test_recordings(zoned: Path, tmp_path: Path) -> None:
    """Their rows are those of the journal with the same events."""
    del zoned
    for name in ("one", "two"):
        folder = tmp_path / "films" / name
        folder.mkdir(parents=True)
        made = [
            event("camera.online", frame=2),
            event("face.entered", track=1, frame=3),
            event("camera.offline", frame=9),
        ]
        (folder / "events.jsonl").write_text("".join(f"{encode(each)}\n" for each in made))
        about = {"source": f"{name}.mp4", "start_time": "1970-01-01T00:00:02.000000Z"}
        (folder / "summary.json").write_text(json.dumps(about))
    markers = tmp_path / "trials.csv"
    markers.write_text("start,end,name,film\n1,3,first,one.mp4\n2,4,first,two\n")
    found = rows("--events", str(tmp_path / "films"), "--markers", str(markers))
    assert [(row["film"], row["trial"], row["start"][17:19], row["end"][17:19]) for row in found] == [
        ("one", "first", "03", "05"),
        ("two", "first", "04", "06"),
    ]
    code, out, _ = fer_stream("stats", "--events", str(tmp_path / "films"), "--format", "jsonl")
    assert code == 0
    assert [json.loads(line)["film"] for line in out.splitlines()] == ["one", "two"]
    code, out, _ = fer_stream("stats", "--events", str(tmp_path / "films"))
    assert [line.split()[0] for line in out.splitlines()] == ["film", "one", "two"]


def test_options_that_do_not_go_together(zoned: Path, tmp_path: Path) -> None:
    markers = tmp_path / "trials.csv"
    markers.write_text(MARKERS)
    films = tmp_path / "events.jsonl"
    films.write_text(encode(event("camera.online")))
    journal, recorded = ("--journal", str(zoned)), ("--events", str(films))
    for arguments, code, sentence in (
        ((*journal, "--markers", str(markers)), 2, "--markers of a journal needs --from"),
        (
            (*journal, "--markers", str(markers), "--from", "1h", "--every", "5s"),
            2,
            "--every does not work with --markers",
        ),
        ((*journal, "--markers", str(markers), "--from", "1h", "--to", "1h"), 2, "--to does not work with --markers"),
        ((*recorded, "--markers", str(markers), "--from", "1h"), 2, "--from does not work with --markers"),
        ((*recorded, "--markers", str(films)), 1, "events.jsonl"),
        ((*recorded, "--camera", "gate"), 2, "holds no event of the camera gate"),
        (("--events", str(tmp_path / "none")), 2, "cannot be read: no such file"),
    ):
        found, out, err = fer_stream("stats", *arguments)
        assert (found, out) == (code, ""), err
        assert sentence in err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["stats", "subscribe"])
def test_an_interrupted_output_is_no_success(tmp_path: Path, command: str, number: signal.Signals) -> None:
    """The output is longer than a pipe holds, so the command cannot be done before the signal."""
    path = tmp_path / "events.db"
    with Writer(path) as writer:
        writer.append([event("camera.online", frame=frame) for frame in range(2000)])
    period = ["--every", "1s", "--from", "1970-01-01T00:00:00Z", "--to", "1970-01-01T06:00:00Z", "--format", "csv"]
    options = period if command == "stats" else ["--format", "jsonl"]
    with start([command, "--journal", str(path), *options], clean()) as process:
        assert process.stdout
        assert "camera" in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(TIMEOUT) == INTERRUPTED
        assert process.stderr
        assert process.stderr.read() == ""
