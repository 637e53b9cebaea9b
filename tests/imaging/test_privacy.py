"""Only events are stored: a run under strace, faces that return, retention, and hidden faces."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import jsonschema
import numpy as np
import pytest
from prometheus_client.mmap_dict import MmapedDict

from fer_stream.events.attention import Attention
from fer_stream.events.schema import event_schema
from fer_stream.events.smoother import LabelSet
from fer_stream.events.timeline import Timeline
from fer_stream.imaging.privacy import CELLS, hide_faces
from fer_stream.journal.sqlite import Writer
from fer_stream.settings.tree import SearchSettings, Settings, SmootherSettings, TrackerSettings
from fer_stream.types import EMOTIONS, Box, Event, EventType, Face, FaceData, Nanoseconds, Probabilities

if TYPE_CHECKING:
    from processes import Cli

OPENED = re.compile(r'\b(?:open|openat|openat2|creat)\((?:AT_FDCWD, |\d+, )?"((?:[^"\\]|\\.)*)", ([^)<]*)')
CONNECTED = re.compile(r"\bconnect\(\d+, \{sa_family=AF_INET6?[^}]*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"([^\"]*)\"")
SCHEMA = jsonschema.Draft202012Validator(event_schema())


class Traced:
    """A run under strace: the files it opened for writing, its network connections, and its temporary files."""

    def __init__(self, cli: Cli, *arguments: object) -> None:
        log = cli.folder / "strace.log"
        calls = "open,openat,openat2,creat,connect,memfd_create,link,linkat,symlink,symlinkat,mknod,mknodat,shmget"
        command = ["strace", "-f", "--seccomp-bpf", "-qq", "-s", "4096", "-o", str(log), "-e", f"trace={calls}"]
        command += [sys.executable, "-m", "fer_stream", *map(str, arguments)]
        # Otherwise Python would write compiled modules into the installation.
        environment = cli.environment | {"PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            command, cwd=cli.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.temporary: dict[str, bytes] = {}
        """Content of the temporary files seen during the run, by path; they are deleted at its end."""
        while process.poll() is None:
            for path in cli.temporary.rglob("*"):
                with suppress(OSError):
                    if path.is_file():
                        self.temporary[str(path)] = path.read_bytes()
            time.sleep(0.2)
        self.out, self.err = process.communicate()
        assert process.returncode == 0, self.err
        text = log.read_text(errors="replace")
        writing = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND")
        self.written = {
            str((cli.folder / found[1]).resolve() if not found[1].startswith("/proc") else Path(found[1]))
            for found in OPENED.finditer(text)
            if any(flag in found[2] for flag in writing) or found[0].startswith("creat")
        }
        self.connected = set(CONNECTED.findall(text))
        self.memories = set(re.findall(r'memfd_create\("([^"]*)"', text))
        self.others = re.findall(r"\b(?:linkat?|symlinkat?|mknodat?|shmget)\(.*", text)


def small(value: Any) -> bool:
    """Tell whether a JSON value is too small for a picture or an embedding: short texts, at most four numbers."""
    if isinstance(value, dict):
        return len(value) <= 24 and all(len(key) <= 80 and small(part) for key, part in value.items())
    if isinstance(value, list):
        return len(value) <= 4 and all(isinstance(part, int | float) for part in value)
    return not isinstance(value, str) or len(value) <= 80


def pixel_runs(clip: Path) -> set[bytes]:
    """Return byte runs of non-uniform pixels from the clip's frames, in colour and in grey."""
    capture, found = cv2.VideoCapture(str(clip)), set()
    while (read := capture.read())[0]:
        for picture in (read[1], cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY)):
            for row in np.asarray(picture)[::8]:
                run = row.reshape(-1)[600:624].tobytes()
                if len(set(run)) > 12:
                    found.add(run)
    return found


def test_no_picture_crop_or_embedding_is_written(cli: Cli, short_folder: Path, clip: Path) -> None:
    folder = cli.folder / "out"
    folder.mkdir()
    traced = Traced(
        cli,
        *(
            "run",
            f"film={clip}",
            "--policy",
            "wait",
            "--workers",
            2,
            "--format",
            "jsonl",
            "--bind",
            f"ipc://{short_folder}",
        ),
        *("--journal", folder / "events.db", "--sink", f"file:{folder / 'events.jsonl'}", "--log-level", "debug"),
        *("--summary", folder / "summary.json", "--metrics", "127.0.0.1:0"),
    )
    events = [json.loads(line) for line in traced.out.splitlines()]
    assert any(event["type"] == "emotion.started" for event in events), "faces were scored"

    # Only known files were opened for writing, and nothing else was created.
    ends = ("", "-wal", "-shm", "-journal", ".lock")
    journal = {str(folder / f"events.db{record}{end}") for record in ("", ".deliveries.db") for end in ends}
    named = {str(folder / "events.jsonl"), str(folder / "summary.json"), str(short_folder / "lock"), "/dev/null"}
    own = re.escape(f"{cli.runtime}/fer_stream")
    names = r"metrics/\w+_[\w-]+\.db|[\w -]+\.txt|(deliver|deliveries|removed)\.(new|json)"
    temporary = re.compile(rf"{own}/(instances\.lock|service-\w+(/about\.json(\.new)?)?|run-1/({names}))")
    # Coverage data of the tests; the file by which Python's tempfile tests a folder; a lock of tqdm.
    others = re.compile(rf".*/\.coverage[^/]*|{re.escape(str(cli.temporary))}/[a-z0-9_]{{8}}|/dev/shm/sem\.\w{{6}}")
    strange = [
        path
        for path in traced.written - journal - named
        if not temporary.fullmatch(path) and not others.fullmatch(path)
    ]
    assert strange == []
    assert journal & traced.written, "the trace contains written files"
    assert any(temporary.fullmatch(path) for path in traced.written)
    assert traced.others == []
    assert {"fer_stream", "fer_stream_settings"} <= traced.memories, "pixels are shared in anonymous memory"
    assert traced.connected <= {"127.0.0.1", "::1"}, "no connection leaves the machine"

    # The remaining files contain only events and counts.
    assert list(cli.temporary.iterdir()) == []
    with closing(sqlite3.connect(folder / "events.db")) as db:
        texts = [event for (event,) in db.execute("SELECT text FROM events")]
    assert texts == traced.out.splitlines() == (folder / "events.jsonl").read_text().splitlines()
    for event in events:
        SCHEMA.validate(event)
        assert small(event)
    assert small(json.loads((folder / "summary.json").read_text())["events"])
    with closing(sqlite3.connect(folder / "events.db")) as db, db:
        rows = [row for table in ("events", "cameras", "head") for row in db.execute(f"SELECT * FROM {table}")]
    db.close()
    assert all(isinstance(value, int | float | str) for row in rows for value in row)
    assert (folder / "events.db.lock").read_bytes() == (short_folder / "lock").read_bytes() == b""
    for name, data in traced.temporary.items():
        if name.endswith(".db"):
            copy = cli.folder / "copy.db"
            copy.write_bytes(data)
            for key, *numbers in MmapedDict.read_all_values_from_file(str(copy)):
                assert small(json.loads(key)[2])
                assert all(isinstance(number, float | int) for number in numbers)

    # No file contains a run of pixels or the header of an image format.
    everything = b"".join([*traced.temporary.values(), *(path.read_bytes() for path in folder.iterdir())])
    everything += (traced.out + traced.err).encode()
    runs = pixel_runs(clip)
    assert len(runs) > 500
    assert not [run for run in runs if run in everything]
    headers = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"\xffO\xffQ")
    assert not [header for header in headers if header in everything]
    shutil.rmtree(folder)


# A face that returns


def timeline() -> Timeline:
    labels = LabelSet("emotions", EMOTIONS, {})
    return Timeline(
        "door", 1, labels, TrackerSettings(), SmootherSettings(), Attention(SearchSettings(), "drop_oldest", 4)
    )


def face(label: str) -> Face:
    scores = Probabilities(EMOTIONS, tuple(0.94 if name == label else 0.01 for name in EMOTIONS))
    return Face(Box(100, 50, 180, 130), 0.99, (), scores)


def watch(line: Timeline, start: float, end: float, *faces: Face) -> list[Event]:
    events = []
    for tick in range(round(start * 10), round(end * 10)):
        events += line.observe(tick + 1, Nanoseconds(tick * 10**8), (640, 480), list(faces))
    return [event for event in events if event.type not in (EventType.CAMERA_ONLINE, EventType.CAMERA_OFFLINE)]


@pytest.mark.parametrize("before", ["happy", "sad"])
def test_no_state_is_carried_over_to_a_face_that_returns(before: str) -> None:
    """The second time, the same face at the same position causes the same events as a face never seen before."""
    known = timeline()
    first = watch(known, 0, 8, face(before)) + watch(known, 8, 12)
    assert first[-1].type == "face.left"
    assert len(known.tracks) == 0
    assert known.hints(500, Nanoseconds(12 * 10**9), (640, 480)).faces == ()
    again = watch(known, 12, 20, face("happy")) + watch(known, 20, 24)
    unknown = timeline()
    watch(unknown, 11, 12)
    once = watch(unknown, 12, 20, face("happy")) + watch(unknown, 20, 24)
    assert {event.track for event in first} == {1}
    assert {event.track for event in again} == {2}, "a track number is never reused"
    assert [replace(event, track=0) for event in again] == [replace(event, track=0) for event in once]
    assert [event.type for event in once] == ["face.entered", "emotion.started", "emotion.ended", "face.left"]


# Retention


def test_events_are_deleted_after_the_retention_time_which_cannot_be_switched_off(cli: Cli, short_folder: Path) -> None:
    assert Settings().journal.retention_days == 30
    path, day = cli.folder / "events.db", 86_400
    for age, camera in ((31, "old"), (29, "kept")):
        with Writer(path, clock=lambda age=age: time.time() - age * day) as journal:  # type: ignore[misc]
            data = FaceData(Nanoseconds(1), Nanoseconds(2), 0, Box(1, 2, 3, 4), 0.9)
            journal.append([Event(EventType.FACE_LEFT, camera, 1, 1, 1, Nanoseconds(2), data)])
    aggregator = cli.start("aggregator", "--bind", f"ipc://{short_folder}", "--journal", path)
    aggregator.until_said("ready at")

    def kept() -> list[str]:
        events = cli.run("subscribe", "--journal", path, "--format", "jsonl").events
        return [event["source"] for event in events]

    aggregator.until(lambda: kept() == ["/cameras/", "/cameras/kept"], "deletion of the old event")
    assert aggregator.stop() == 0
    never = cli.run("aggregator", FER_STREAM_JOURNAL__RETENTION_DAYS="0")
    assert never.popen.returncode == 2


def test_a_hidden_face_is_reduced_to_few_blocks_and_the_rest_is_unchanged() -> None:
    image = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    before = image.copy()
    hidden = hide_faces(image, [Box(40, 30, 80, 70)])
    assert (image == before).all()
    inside = hidden[20:80, 30:90]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) <= CELLS**2
    changed = (hidden != image).any(axis=2)
    assert changed[30:70, 40:80].mean() > 0.99
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 20
    assert rows.max() <= 80
    assert columns.min() >= 30
    assert columns.max() <= 90


def test_boxes_partly_or_fully_outside_the_picture_can_be_hidden() -> None:
    image = np.random.default_rng(1).integers(0, 256, (60, 60, 3), np.uint8)
    assert (hide_faces(image, [Box(-30, -30, 20, 20)])[:20, :20] != image[:20, :20]).mean() > 0.9
    assert (hide_faces(image, [Box(100, 100, 120, 120), Box(-50, 0, -30, 20)]) == image).all()
