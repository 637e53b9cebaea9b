"""The event log: gapless, replayable byte for byte, and refused in one sentence where it cannot be used."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_stream.cloudevents import decode, event_id
from fer_stream.errors import JournalError
from fer_stream.journal import FORMAT, Journal, Reader, purge
from fer_stream.timeline import closing
from fer_stream.types import (
    Box,
    CameraData,
    Event,
    EventType,
    ExpressionData,
    FaceData,
    GapData,
    Milliseconds,
    Nanoseconds,
    Probability,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

profile = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

SECOND = 1_000_000_000
BOX = Box(10.0, 10.0, 50.0, 50.0)


def event(kind: str, camera: str = "door", seq: int = 1, track: int = 0, epoch: int = 1, label: str = "happy") -> Event:
    time = Nanoseconds(seq * SECOND)
    open_ = not kind.endswith(("left", "ended"))
    end, duration = (None if open_ else time), Milliseconds(seq * 1000)
    start = Nanoseconds(0)
    data: CameraData | FaceData | ExpressionData
    if kind.startswith("camera"):
        data = CameraData("test", 640, 480)
    elif kind.startswith("face"):
        data = FaceData(start, end, duration, BOX, 0.9)
    else:
        data = ExpressionData(start, end, duration, label, None, Probability(0.5, 0.6), {label: 0.6}, BOX, 0.9)
    return Event(EventType(kind), camera, epoch, seq, track, time, data)


def resets(count: int, camera: str = "door", first: int = 1) -> list[Event]:
    return [event("camera.reset", camera, seq) for seq in range(first, first + count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal(path)
    yield opened
    opened.close()


def everything(path: Path, after: int = 0) -> list[str]:
    with Reader(path) as reader:
        return reader.read(after, limit=100_000)[0]


# Writing


def test_events_are_numbered_per_camera_and_over_all(journal: Journal) -> None:
    journal.append([event("camera.online", "door"), event("camera.online", "gate")])
    stored = journal.append([event("camera.reset", "door", 2), event("camera.reset", "door", 3)])
    assert [(e.sequence, e.cursor) for e, _ in stored] == [(2, 3), (3, 4)]
    assert all(decode(text) == e for e, text in stored)
    assert journal.cursor() == 4
    texts, reached = journal.read(2)
    assert (texts, reached) == ([text for _, text in stored], 4)


def test_a_repeat_is_harmless(journal: Journal) -> None:
    first = journal.append([event("camera.online"), event("face.entered", seq=2, track=1)])
    again = journal.append(
        [event("camera.online"), event("face.entered", seq=2, track=1), event("camera.reset", seq=3)]
    )
    assert [(e.type, e.sequence, e.cursor) for e, _ in again] == [("camera.reset", 3, 3)]
    assert journal.append([e for e, _ in first]) == []
    assert journal.append([event("camera.reset", seq=9)] * 2)[-1][0].sequence == 4
    assert journal.cursor() == 4


def test_nothing_of_a_failed_batch_is_kept(journal: Journal) -> None:
    def broken() -> Iterator[Event]:
        yield event("camera.online")
        raise RuntimeError("the one who makes events fails")

    with pytest.raises(RuntimeError):
        journal.append(broken())
    assert journal.read(0) == ([], 0)
    assert journal.append([event("camera.online")])[0][0].cursor == 1


def test_numbers_go_on_after_the_writer_was_started_again(path: Path) -> None:
    for start in range(3):
        writer = Journal(path)
        assert writer.epoch("door") == start + 1
        stored = writer.append(resets(2, first=1 + 2 * start))
        assert [(e.sequence, e.cursor) for e, _ in stored] == [(2 * start + i, 2 * start + i) for i in (1, 2)]
        writer.close()
        writer.close()


def test_each_camera_has_its_own_epochs(journal: Journal) -> None:
    assert [journal.epoch(camera) for camera in ("door", "gate", "door")] == [1, 1, 2]
    journal.append([event("camera.online", "hall")])
    assert journal.epoch("hall") == 1


actions = st.lists(
    st.tuples(st.sampled_from(["door", "gate", "hall"]), st.integers(1, 12), st.sampled_from(["append", "restart"])),
    max_size=30,
)


@profile
@given(actions, st.data())
def test_whatever_is_written_sequences_are_gapless_and_replays_the_same(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, str]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "events.db"
    writer = Journal(path)
    told: list[str] = []
    for camera, seq, action in actions:
        if action == "restart":
            writer.close()
            writer = Journal(path)
        told += [
            text for _, text in writer.append([event("camera.reset", camera, seq), event("camera.online", camera)])
        ]
    stored = [decode(text) for text in told]
    assert [e.cursor for e in stored] == list(range(1, len(stored) + 1))
    for camera in ("door", "gate", "hall"):
        mine = [e.sequence for e in stored if e.camera == camera]
        assert mine == list(range(1, len(mine) + 1))
    assert len({event_id(e) for e in stored}) == len(stored)

    after, limit = data.draw(st.integers(0, len(told) + 2)), data.draw(st.integers(1, 7))
    only = data.draw(st.sampled_from([None, "door", "nobody"]))
    with Reader(path) as reader:
        got: list[str] = []
        at = after
        while at < reader.cursor():
            texts, reached = reader.read(at, limit, only)
            assert reached > at
            got += texts
            at = reached
    assert got == [t for t, e in zip(told, stored, strict=True) if e.cursor > after and only in (None, e.camera)]
    writer.close()


def test_a_reader_beside_the_writer_misses_nothing(path: Path) -> None:
    """It reads while another connection writes, and goes on from where it was told to."""
    count = 1500
    Journal(path).close()

    def write() -> None:
        writer = Journal(path)
        for one in resets(count):
            writer.append([one])
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    got: list[int] = []
    at = 0
    with Reader(path) as reader:
        while thread.is_alive() or at < reader.cursor():
            texts, at = reader.read(at)
            got += [decode(text).cursor for text in texts]
    thread.join()
    assert got == list(range(1, count + 1))


def test_a_reader_does_not_write(path: Path, journal: Journal) -> None:
    journal.append(resets(1))
    with Reader(path) as reader:
        assert not hasattr(reader, "append")
        assert reader.read(0)[1] == 1
        reader.close()
        with pytest.raises(JournalError, match="cannot be read"):
            reader.read(0)


# Retention


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_past_the_retention_comes_an_explicit_gap(path: Path) -> None:
    clock = Clock()
    writer = Journal(path, clock)
    for clock.now in (10.0, 20.0, 30.0):
        writer.append(resets(2, first=int(clock.now)))
    kept = everything(path, after=4)
    assert writer.purge(5) == 0
    assert writer.purge(25) == 4
    assert writer.purge(25) == 0
    for after in range(4):
        texts, reached = writer.read(after)
        told = decode(texts[0])
        assert (told.type, told.data) == (EventType.STREAM_GAP, GapData(after, 4, "retention"))
        assert (told.cursor, texts[1:], reached) == (4, kept, 6)
    assert writer.read(4) == (kept, 6)
    assert writer.purge(99) == 2
    texts, reached = writer.read(0)
    assert [decode(text).data for text in texts] == [GapData(0, 6, "retention")]
    assert reached == 6
    assert writer.read(6) == ([], 6)
    # What is gone is not numbered anew, also not after a new start.
    writer.close()
    writer = Journal(path, clock)
    (stored,) = writer.append([event("camera.reset", seq=99)])
    assert (stored[0].sequence, stored[0].cursor) == (7, 7)
    writer.close()


def test_retention_counts_from_journaling_not_from_capture(path: Path) -> None:
    """A file's events may be of 1970."""
    writer = Journal(path, lambda: 1000.0)
    writer.append(resets(1))
    assert writer.purge(999) == 0
    writer.close()


# After a crash


def crashed(path: Path, events: list[Event]) -> list[Event]:
    """Return what is unclosed after a process that wrote these events was killed."""
    program = """
        import os, pickle, sys
        from pathlib import Path
        from fer_stream.journal import Journal
        journal = Journal(Path(sys.argv[1]))
        for event in pickle.load(sys.stdin.buffer):
            if event is None:
                journal.epoch("door")
            else:
                journal.append([event])
        os._exit(9)
    """
    first: list[Event | None] = [None, *events]
    for number, one in enumerate(events):
        if one.epoch > (events[number - 1].epoch if number else 1):
            first.insert(first.index(one), None)
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(path)], input=pickle.dumps(first), check=False
    )
    assert run.returncode == 9
    writer = Journal(path)
    try:
        return writer.unclosed()
    finally:
        writer.close()


def named(events: list[Event]) -> list[str]:
    return [f"{e.type} {e.track} {e.epoch}" for e in events]


OPEN = [
    event("camera.online"),
    event("face.entered", seq=2, track=1),
    event("emotion.started", seq=3, track=1),
    event("face.entered", seq=4, track=2),
]


def test_what_a_dead_aggregator_left_open_is_known_in_the_order_of_closing(path: Path) -> None:
    left = crashed(path, [*OPEN, event("emotion.updated", seq=9, track=1), event("camera.reset", seq=10)])
    assert named(left) == ["emotion.updated 1 1", "face.entered 1 1", "face.entered 2 1", "camera.online 0 1"]


def test_what_was_closed_is_not_open(path: Path) -> None:
    closed = [event("emotion.ended", seq=5, track=1), event("face.left", seq=5, track=1)]
    assert named(crashed(path, [*OPEN, *closed])) == ["face.entered 2 1", "camera.online 0 1"]


def test_what_is_closed_after_a_crash_stays_closed(path: Path) -> None:
    assert len(crashed(path, OPEN)) == 4
    writer = Journal(path)
    stored = writer.append([closing(e) for e in writer.unclosed()])
    assert [str(e.type) for e, _ in stored] == ["emotion.ended", "face.left", "face.left", "camera.offline"]
    assert writer.unclosed() == []
    writer.close()


def test_an_interval_that_began_as_another_ended_is_closed_too(path: Path) -> None:
    """Both ends have one causing frame; neither may be taken for a repeat of the other."""
    turn = [
        event("emotion.ended", seq=7, track=1, label="happy"),
        event("emotion.started", seq=7, track=1, label="sad"),
    ]
    crashed(path, [*OPEN, *turn])
    writer = Journal(path)
    writer.append([closing(e) for e in writer.unclosed()])
    assert writer.unclosed() == []
    writer.close()


def test_what_a_capture_s_restart_had_not_closed_yet_is_known(path: Path) -> None:
    """The aggregator died between the capture's new epoch and the old one's end."""
    later = [event("camera.online", epoch=2), event("face.entered", seq=2, track=1, epoch=2)]
    assert named(crashed(path, [*OPEN, *later])) == [
        "emotion.started 1 1",
        "face.entered 1 1",
        "face.entered 2 1",
        "camera.online 0 1",
        "face.entered 1 2",
        "camera.online 0 2",
    ]


# What cannot be used


def test_a_second_writer_is_refused(path: Path, journal: Journal) -> None:
    program = "import sys; from pathlib import Path; from fer_stream.journal import Journal; Journal(Path(sys.argv[1]))"
    with pytest.raises(JournalError, match="is in use by another aggregator: stop that one, or give another path"):
        Journal(path)
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "is in use by another aggregator" in run.stderr
    journal.close()
    Journal(path).close()


def newer(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    db.close()


def foreign_with_version(path: Path) -> None:
    foreign(path)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {FORMAT}")
    db.close()


def text(path: Path) -> None:
    path.write_text("Dear diary,\n" * 1000)


def short_text(path: Path) -> None:
    path.write_text("Dear diary,\n")


UNUSABLE: list[tuple[Callable[[Path], None], str]] = [
    (newer, f"has format {FORMAT + 1}, this program reads format {FORMAT}: update fer-stream, or give another path"),
    (foreign, "is not a journal of fer_stream: give another path"),
    (foreign_with_version, "is not a journal of fer_stream: give another path"),
    (text, r"the journal .*events.db cannot be"),
    (short_text, "is not a journal of fer_stream: give another path|cannot be read: file is not a database"),
]


@pytest.mark.parametrize(("spoil", "sentence"), UNUSABLE, ids=lambda value: getattr(value, "__name__", ""))
def test_a_file_that_is_no_journal_is_refused_and_left_alone(
    path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(JournalError, match=sentence):
        Journal(path)
    assert path.read_bytes() == before
    with pytest.raises(JournalError, match=sentence):
        Reader(path).read(0)
    # Refused, it is not kept locked either.
    path.unlink()
    for companion in path.parent.glob("events.db-*"):
        companion.unlink()
    Journal(path).close()


def test_what_is_not_there_cannot_be_read(path: Path, tmp_path: Path) -> None:
    for missing in (path, tmp_path):
        with pytest.raises(JournalError, match="there is no journal at"):
            Reader(missing)


def test_an_empty_file_becomes_a_journal_but_is_none(path: Path) -> None:
    path.touch()
    with pytest.raises(JournalError, match="is not a journal"):
        Reader(path)
    writer = Journal(path)
    assert writer.append(resets(1))[0][0].cursor == 1
    writer.close()


def test_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "events.db"
    Journal(path).close()
    assert everything(path) == []


@pytest.mark.parametrize("where", ["file/events.db", "folder", "/proc/fer_stream/events.db"])
def test_where_nothing_can_be_written(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for _ in range(2):
        with pytest.raises(JournalError, match=r"the journal .* cannot be written|cannot be read"):
            Journal(tmp_path / where)


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    """Run as a user without rights there, whoever runs the tests."""
    tmp_path.chmod(0o555)
    program = """if True:
        import os, sys
        from pathlib import Path
        from fer_stream.errors import JournalError
        from fer_stream.journal import Journal
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            Journal(Path(sys.argv[1]))
        except JournalError as error:
            print(error)
    """
    run = subprocess.run(
        [sys.executable, "-c", program, "/nobody.db" if os.getuid() == 0 else str(tmp_path / "events.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be written: Permission denied" in run.stdout


def test_a_journal_that_is_taken_away_is_told(path: Path, journal: Journal) -> None:
    journal.append(resets(1))
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE events")
    db.close()
    with pytest.raises(JournalError, match=r"events.db cannot be written: no such table"):
        journal.append(resets(1, first=2))
    with pytest.raises(JournalError, match=r"events.db cannot be read: no such table"):
        journal.read(0)
    journal.close()
    with pytest.raises(JournalError, match="cannot be written"):
        journal.append(resets(1, first=3))


def test_a_full_disk_is_told_and_survived(path: Path, journal: Journal) -> None:
    journal.append(resets(1))
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(JournalError, match="cannot be written: database or disk is full"):
        journal.append(resets(500, first=2))
    journal._db.execute("PRAGMA max_page_count = 100000")
    stored = journal.append(resets(500, first=2))
    assert [e.cursor for e, _ in stored] == list(range(2, 502))


def test_events_keep_their_own_epoch(journal: Journal) -> None:
    (stored,) = journal.append([replace(event("camera.online"), epoch=5)])
    assert decode(stored[1]).epoch == 5


def test_what_is_lost_is_a_gap_that_is_replayed(path: Path, journal: Journal) -> None:
    journal.append(resets(2))
    for count, reached in ((3, 5), (1, 6)):
        told, text = journal.lose(count, "journal full")
        assert told.data == GapData(reached - count, reached, "journal full")
        assert decode(text) == told
    (stored, _) = journal.append(resets(1, first=3))[0]
    assert (stored.cursor, stored.sequence) == (7, 3), "a camera's own sequence has no gap"
    texts = everything(path)
    assert [decode(text).cursor for text in texts] == [1, 2, 5, 6, 7]
    with Reader(path) as reader:
        assert reader.read(0, camera="door")[0] == texts, "a gap concerns every camera"
        assert reader.read(0, camera="yard")[0] == texts[2:4]
    journal.close()
    again = Journal(path)
    assert again.unclosed() == []
    assert again.cursor() == 7
    again.close()


def test_a_journal_that_was_deleted_begins_anew_where_it_stood(path: Path, journal: Journal) -> None:
    journal.epoch("door")
    journal.append(resets(3))
    assert journal.there()
    path.unlink()
    assert not journal.there()
    journal.renew()
    assert journal.there()
    (stored, text) = journal.append(resets(1, first=4))[0]
    assert (stored.cursor, stored.sequence) == (4, 4)
    gap, after = everything(path)
    assert decode(gap).data == GapData(0, 3, "retention")
    assert after == text
    assert journal.epoch("door") == 2


def test_a_journal_whose_folder_is_gone_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "events.db"
    journal = Journal(path)
    journal.append(resets(2))
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    path.parent.touch()  # a file is in the way
    for _ in range(2):
        with pytest.raises(JournalError, match="cannot be written"):
            journal.renew()
    with pytest.raises(JournalError):
        journal.append(resets(1, first=3))
    path.parent.unlink()
    journal.renew()
    assert journal.append(resets(1, first=3))[0][0].cursor == 3
    journal.close()


def test_events_are_purged_beside_the_aggregator_that_writes_them(path: Path) -> None:
    now = 1000.0
    journal = Journal(path, lambda: now)
    journal.append([replace(event("camera.online"), data=CameraData("a very private reason", 4, 3))])
    now = 2000.0
    journal.append(resets(1, first=2))
    assert purge(path, 500.0) == 0
    assert purge(path, 1500.0) == 1
    gap, kept = everything(path)
    assert decode(gap).data == GapData(0, 1, "retention")
    assert decode(kept).cursor == 2
    (stored, _) = journal.append(resets(1, first=3))[0]
    assert (stored.cursor, stored.sequence) == (3, 3)
    journal.close()
    for file in path.parent.iterdir():
        assert b"very private" not in file.read_bytes(), "what is deleted is not left in the file"


def test_what_is_no_journal_is_not_purged(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal at"):
        purge(tmp_path / "nowhere.db", 1.0)
    (tmp_path / "text.db").write_text("x" * 500)
    with pytest.raises(JournalError, match="cannot be read"):
        purge(tmp_path / "text.db", 1.0)
    assert (tmp_path / "text.db").read_text() == "x" * 500
