from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.sinks.stdout import open_sink, pretty
from fer_stream.types import (
    Box,
    CameraData,
    Event,
    EventType,
    ExpressionData,
    FaceData,
    GapData,
    LineData,
    Milliseconds,
    Nanoseconds,
    Probability,
    ZoneData,
)

BOX = Box(10, 20, 110, 140)


def event(kind, data, *, track=0, camera="door", seconds=3723.456):
    return Event(kind, camera, 1, 7, track, Nanoseconds(int(seconds * 1000) * 1_000_000), data, 3, "9")


def face(duration):
    return FaceData(Nanoseconds(0), None, Milliseconds(duration), BOX, 0.99)


def expression(label, duration, previous=None):
    return ExpressionData(
        Nanoseconds(0),
        None,
        Milliseconds(duration),
        label,
        previous,
        Probability(0.874, 0.93),
        {"happy": 0.874, "neutral": 0.126},
        BOX,
        0.99,
    )


VISIT = ZoneData("till", Nanoseconds(0), None, Milliseconds(14_200), BOX, 0.99)
CROSSED = LineData("door", "in", BOX, 0.99)

EVENTS = [
    event(EventType.CAMERA_ONLINE, CameraData("started", 640, 480)),
    event(EventType.CAMERA_OFFLINE, CameraData("stopped", 0, 0)),
    event(EventType.FACE_ENTERED, face(0), track=12),
    event(EventType.FACE_LEFT, face(14_200), track=12),
    event(EventType.EMOTION_STARTED, expression("happy", 400), track=12),
    event(EventType.EMOTION_ENDED, expression("surprise", 12_400, "neutral"), track=1),
    event(EventType.VALENCE_UPDATED, expression("positive", 3_600_000), track=1),
    event(EventType.ZONE_LEFT, VISIT, track=2),
    event(EventType.LINE_CROSSED, CROSSED, track=2),
    event(EventType.STREAM_GAP, GapData("0", "40", "retention"), camera="a-very-long-name"),
    event(EventType.STREAM_GAP, GapData("40", "0", "another journal"), camera=""),
]

LINES = [
    "01:02:03.456  door              camera online     started, 640x480",
    "01:02:03.456  door              camera offline    stopped",
    "01:02:03.456  door         #12  face entered",
    "01:02:03.456  door         #12  face left                           14.2 s",
    "01:02:03.456  door         #12  emotion started   happy      87%     0.4 s",
    "01:02:03.456  door          #1  emotion ended     surprise   87%    12.4 s  after neutral",
    "01:02:03.456  door          #1  valence updated   positive   87%  3600.0 s",
    "01:02:03.456  door          #2  zone left         till              14.2 s",
    "01:02:03.456  door          #2  line crossed      door  in",
    "01:02:03.456  a-very-long-name        stream gap        events after cursor 0, up to 40, are gone: retention",
    "01:02:03.456                    stream gap        all events anew: another journal",
]


def test_pretty_is_one_aligned_line_an_event():
    assert [pretty(happening) for happening in EVENTS] == LINES


def test_every_type_has_a_line_and_colour_changes_no_character():
    for kind in EventType:
        data = {
            "camera": CameraData("started", 640, 480),
            "face": face(1),
            "zone": VISIT,
            "line": CROSSED,
            "stream": GapData("0", "1", "x"),
        }.get(kind.split(".")[0], expression("happy", 1))
        plain, coloured = (pretty(event(kind, data), colour=colour) for colour in (False, True))
        assert "\n" not in plain
        assert plain in coloured
        assert coloured == plain or coloured.endswith("\x1b[0m")


def test_formats(capsys):
    for argument in ("", "pretty"):
        open_sink(argument).write(EVENTS[2], "{}")
    jsonl = open_sink("jsonl")
    jsonl.write(EVENTS[2], '{"a":1}')
    jsonl.close()
    jsonl.close()
    jsonl.write(EVENTS[2], '{"a":2}')
    assert capsys.readouterr().out == f'{LINES[2]}\n{LINES[2]}\n{{"a":1}}\n'


def test_an_unknown_format():
    with pytest.raises(ConfigError, match="no format 'xml'; use pretty or jsonl"):
        open_sink("xml")


WRITER = """
import sys
from fer_stream.sinks.stdout import open_sink
from fer_stream.types import CameraData, Event, EventType
sink = open_sink(sys.argv[1])
for n in range(int(sys.argv[2])):
    sink.write(Event(EventType.CAMERA_RESET, "door", 1, 7, 0, 0, CameraData("x", 0, 0)), '{"n":%d}' % n)
sys.exit(3 if sink.closed else 0)
"""


def test_a_reader_that_goes_away_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, "jsonl", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b'{"n":0}\n'
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 3, "the sink says that it is closed"


def test_a_full_disk_is_told():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        result = subprocess.run(
            [sys.executable, "-c", WRITER, "jsonl", "1"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert f"{FerStreamError.__name__}: events cannot be written to standard output: No space left" in result.stderr
    assert "Exception ignored" not in result.stderr


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("1", False)])
def test_colour_on_a_terminal_only(no_color, coloured):
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    if no_color:
        environment["NO_COLOR"] = no_color
    command = [sys.executable, "-c", WRITER, "pretty", "1"]
    ours, theirs = pty.openpty()
    try:
        subprocess.run(command, stdout=theirs, env=environment, check=True)
        shown = os.read(ours, 1000)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"camera reset" in shown
    assert (b"\x1b[" in shown) == coloured
    assert b"\x1b[" not in subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True).stdout


STEADFAST = """
import os, sys
from fer_stream.errors import FerStreamError
from fer_stream.sinks.stdout import open_sink
sink = open_sink("jsonl")
full = os.open("/dev/full", os.O_WRONLY)
before = os.dup(1)
sink.write(None, "1")
os.dup2(full, 1)
try:
    sink.write(None, "2")
except FerStreamError:
    os.dup2(before, 1)
sink.write(None, "3")
sys.exit(3 if sink.closed else 0)
"""


def test_a_disk_that_has_room_again_is_written_again():
    done = subprocess.run([sys.executable, "-c", STEADFAST], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n3\n", "")


def test_a_stream_that_another_program_made_non_blocking_loses_nothing():
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with subprocess.Popen([sys.executable, "-c", WRITER, "jsonl", "20000"], stdout=theirs) as process:
        os.close(theirs)
        with os.fdopen(ours) as reader:
            assert reader.read() == "".join(f'{{"n":{n}}}\n' for n in range(20000))
    assert process.returncode == 0


def test_a_terminal_that_was_closed_is_no_error():
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, "jsonl", "100000"], stdout=theirs, stderr=subprocess.PIPE
    ) as process:
        os.close(theirs)
        os.read(ours, 100)
        os.close(ours)
        assert process.stderr.read() == b""
    assert process.returncode == 3
