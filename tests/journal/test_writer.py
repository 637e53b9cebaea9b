"""Events are numbered without gaps and stored once; after a crash, open faces and intervals are known."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journals import event, everything, limit, resets

from fer_stream.errors import JournalError
from fer_stream.events.cloudevents import decode, event_id
from fer_stream.events.timeline import closing
from fer_stream.journal.sqlite import Reader, Writer
from fer_stream.types import GapData

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fer_stream.types import Event


profile = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_events_are_numbered_per_camera_and_over_all(journal: Writer) -> None:
    journal.append([event("camera.online", "door"), event("camera.online", "gate")])
    stored = journal.append([event("camera.reset", "door", 2), event("camera.reset", "door", 3)])
    assert [(e.sequence, int(e.cursor)) for e, _ in stored] == [(2, 3), (3, 4)]
    assert all(decode(text) == e for e, text in stored)
    assert journal.cursor() == 4
    texts, reached = journal.read(2)
    assert (texts, reached) == ([text for _, text in stored], 4)


def test_a_repeat_is_harmless(journal: Writer) -> None:
    first = journal.append([event("camera.online"), event("face.entered", frame=2, track=1)])
    again = journal.append(
        [event("camera.online"), event("face.entered", frame=2, track=1), event("camera.reset", frame=3)]
    )
    assert [(e.type, e.sequence, int(e.cursor)) for e, _ in again] == [("camera.reset", 3, 3)]
    assert journal.append([e for e, _ in first]) == []
    assert journal.append([event("camera.reset", frame=9)] * 2)[-1][0].sequence == 4
    assert journal.cursor() == 4


def test_a_failed_batch_is_not_stored(journal: Writer) -> None:
    def broken() -> Iterator[Event]:
        yield event("camera.online")
        raise RuntimeError("the generator fails")

    with pytest.raises(RuntimeError):
        journal.append(broken())
    assert journal.read(0) == ([], 0)
    assert int(journal.append([event("camera.online")])[0][0].cursor) == 1


def test_numbers_continue_after_a_restart(path: Path) -> None:
    for start in range(3):
        writer = Writer(path)
        assert writer.epoch("door") == start + 1
        stored = writer.append(resets(2, first=1 + 2 * start))
        assert [(e.sequence, int(e.cursor)) for e, _ in stored] == [(2 * start + i, 2 * start + i) for i in (1, 2)]
        writer.close()
        writer.close()


def test_each_camera_has_its_own_epochs(journal: Writer) -> None:
    assert [journal.epoch(camera) for camera in ("door", "gate", "door")] == [1, 1, 2]
    journal.append([event("camera.online", "hall")])
    assert journal.epoch("hall") == 1


def test_events_keep_their_own_epoch(journal: Writer) -> None:
    (stored,) = journal.append([replace(event("camera.online"), epoch=5)])
    assert decode(stored[1]).epoch == 5


actions = st.lists(
    st.tuples(st.sampled_from(["door", "gate", "hall"]), st.integers(1, 12), st.sampled_from(["append", "restart"])),
    max_size=30,
)


@profile
@given(actions, st.data())
def test_sequences_are_gapless_and_replays_return_the_written_events(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, str]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "events.db"
    writer = Writer(path)
    written: list[str] = []
    for camera, seq, action in actions:
        if action == "restart":
            writer.close()
            writer = Writer(path)
        written += [
            text for _, text in writer.append([event("camera.reset", camera, seq), event("camera.online", camera)])
        ]
    stored = [decode(text) for text in written]
    assert [int(e.cursor) for e in stored] == list(range(1, len(stored) + 1))
    for camera in ("door", "gate", "hall"):
        mine = [e.sequence for e in stored if e.camera == camera]
        assert mine == list(range(1, len(mine) + 1))
    assert len({event_id(e) for e in stored}) == len(stored)

    after, limit = data.draw(st.integers(0, len(written) + 2)), data.draw(st.integers(1, 7))
    only = data.draw(st.sampled_from([None, "door", "nobody"]))
    with Reader(path) as reader:
        got: list[str] = []
        at = after
        while at < reader.cursor():
            texts, reached = reader.read(at, limit, only)
            assert reached > at
            got += texts
            at = reached
    assert got == [
        t for t, e in zip(written, stored, strict=True) if int(e.cursor) > after and only in (None, e.camera)
    ]
    writer.close()


def test_lost_events_are_a_gap_that_is_replayed(path: Path, journal: Writer) -> None:
    journal.append(resets(2))
    for count, reached in ((3, 5), (1, 6)):
        ((lost, text),) = journal.append([], count)
        assert lost.data == GapData(str(reached - count), str(reached), "journal full")
        assert decode(text) == lost
    (stored, _) = journal.append(resets(1, first=3))[0]
    assert (int(stored.cursor), stored.sequence) == (7, 3), "a camera's sequence has no gap"
    texts = everything(path)
    assert [int(decode(text).cursor) for text in texts] == [1, 2, 5, 6, 7]
    with Reader(path) as reader:
        assert reader.read(0, camera="door")[0] == texts, "a gap applies to every camera"
        assert reader.read(0, camera="yard")[0] == texts[2:4]
    journal.close()
    again = Writer(path)
    assert again.unclosed() == []
    assert again.cursor() == 7
    again.close()


def test_writing_continues_after_a_full_disk(journal: Writer) -> None:
    journal.append(resets(1))
    limit(journal, 1)
    with pytest.raises(JournalError, match="cannot be written: database or disk is full"):
        journal.append(resets(500, first=2))
    assert not journal.broken
    limit(journal, 100_000)
    stored = journal.append(resets(500, first=2))
    assert [int(e.cursor) for e, _ in stored] == list(range(2, 502))


def test_a_frame_of_any_number_can_be_written(journal: Writer) -> None:
    """The protocol has 64 bits for a frame number, SQLite only 63."""
    last = 2**64 - 1
    far = replace(event("camera.reset"), frame=last)
    assert [e.frame for e, _ in journal.append([far, event("camera.online")])] == [last, 1]
    assert journal.append([far]) == [], "stored once only"


def crashed(path: Path, events: list[Event]) -> list[Event]:
    """Return the unclosed events after a process that wrote these events was killed."""
    program = """
        import os, pickle, sys
        from pathlib import Path
        from fer_stream.journal.sqlite import Writer
        journal = Writer(Path(sys.argv[1]))
        for event in pickle.load(sys.stdin.buffer):
            if event is None:
                journal.epoch("door")
            else:
                journal.append([event])
        os._exit(9)
    """
    first: list[Event | None] = [None, *events]
    for number, written in enumerate(events):
        if written.epoch > (events[number - 1].epoch if number else 1):
            first.insert(first.index(written), None)
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(path)], input=pickle.dumps(first), check=False
    )
    assert run.returncode == 9
    writer = Writer(path)
    try:
        return writer.unclosed()
    finally:
        writer.close()


def named(events: list[Event]) -> list[str]:
    return [f"{e.type} {e.track} {e.epoch}" for e in events]


OPEN = [
    event("camera.online"),
    event("face.entered", frame=2, track=1),
    event("emotion.started", frame=3, track=1),
    event("face.entered", frame=4, track=2),
]


def test_unclosed_events_of_a_killed_aggregator_come_in_closing_order(path: Path) -> None:
    left = crashed(path, [*OPEN, event("emotion.updated", frame=9, track=1), event("camera.reset", frame=10)])
    assert named(left) == ["emotion.updated 1 1", "face.entered 1 1", "face.entered 2 1", "camera.reset 0 1"]


def test_a_camera_is_closed_with_its_latest_event(path: Path) -> None:
    (left,) = crashed(path, [OPEN[0], event("camera.reset", frame=10), event("camera.reset", camera="gate")])
    assert named([closing(left)]) == ["camera.offline 0 1"]
    assert left.type == "camera.reset", "it has the latest size"


def test_closed_events_are_not_unclosed(path: Path) -> None:
    closed = [event("emotion.ended", frame=5, track=1), event("face.left", frame=5, track=1)]
    assert named(crashed(path, [*OPEN, *closed])) == ["face.entered 2 1", "camera.online 0 1"]


def test_events_closed_after_a_crash_stay_closed(path: Path) -> None:
    assert len(crashed(path, OPEN)) == 4
    writer = Writer(path)
    stored = writer.append([closing(e) for e in writer.unclosed()])
    assert [str(e.type) for e, _ in stored] == ["emotion.ended", "face.left", "face.left", "camera.offline"]
    assert writer.unclosed() == []
    writer.close()


def test_an_interval_that_began_as_another_ended_is_closed_too(path: Path) -> None:
    """Both ends have the same causing frame; neither may be taken for a repeat of the other."""
    turn = [
        event("emotion.ended", frame=7, track=1, label="happy"),
        event("emotion.started", frame=7, track=1, label="sad"),
    ]
    crashed(path, [*OPEN, *turn])
    writer = Writer(path)
    writer.append([closing(e) for e in writer.unclosed()])
    assert writer.unclosed() == []
    writer.close()


def test_unclosed_events_of_the_epoch_before_a_capture_s_restart_are_known(path: Path) -> None:
    """The aggregator was killed after the new epoch began and before the old one was closed."""
    later = [event("camera.online", epoch=2), event("face.entered", frame=2, track=1, epoch=2)]
    assert named(crashed(path, [*OPEN, *later])) == [
        "emotion.started 1 1",
        "face.entered 1 1",
        "face.entered 2 1",
        "camera.online 0 1",
        "face.entered 1 2",
        "camera.online 0 2",
    ]
