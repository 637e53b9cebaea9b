"""What every journal promises, whatever stores it: numbers without gaps, each event once, and what was left open."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journals import event, limit, resets
from processes import wait_for

from fer_stream.errors import JournalError, RivalError
from fer_stream.events.cloudevents import decode, event_id
from fer_stream.events.timeline import closing
from fer_stream.journal.sqlite import store
from fer_stream.plugins import BATCH
from fer_stream.types import EventType, GapData

if TYPE_CHECKING:
    from nats_servers import NatsServer

    from fer_stream.types import Event
    from tests.journal.conftest import Place

PATIENCE = 60.0


def test_events_are_numbered_per_camera_and_over_all(place: Place) -> None:
    journal = place.writer()
    (first, *_) = journal.append([event("camera.online", "door"), event("camera.online", "gate")]).result(PATIENCE)
    stored = journal.append([event("camera.reset", "door", 2), event("camera.reset", "door", 3)]).result(PATIENCE)
    assert [e.sequence for e, _ in stored] == [2, 3]
    assert [int(e.cursor) - int(first[0].cursor) for e, _ in stored] == [2, 3]
    assert all(decode(text) == e for e, text in stored)
    cursor = int(stored[0][0].cursor)
    for read in (journal.read(cursor - 1).result(PATIENCE), place.reader().read(cursor - 1)):
        assert read == ([text for _, text in stored], cursor + 1)
    with place.reader() as reader:
        assert reader.cursor() == reader.cursor(0) == cursor + 1
        assert reader.partitions == 1
        assert reader.read(cursor - 1, partition=0) == reader.read(cursor - 1)


def test_a_repeat_is_left_out(place: Place) -> None:
    journal = place.writer()
    first = journal.append([event("camera.online"), event("face.entered", frame=2, track=1)]).result(PATIENCE)
    again = [event("camera.online"), event("face.entered", frame=2, track=1), event("camera.reset", frame=3)]
    ((only, _),) = journal.append(again).result(PATIENCE)
    assert (only.type, only.sequence) == (EventType.CAMERA_RESET, 3)
    assert journal.append([e for e, _ in first]).result(PATIENCE) == []
    assert journal.append([event("camera.reset", frame=9)] * 2).result(PATIENCE)[-1][0].sequence == 4
    assert [e.sequence for e in place.events()] == [1, 2, 3, 4]


def test_a_whole_batch_and_a_gap_are_stored(place: Place) -> None:
    journal = place.writer()
    *stored, (gap, _) = journal.append(resets(BATCH), lost=7).result(PATIENCE)
    assert [e.sequence for e, _ in stored] == list(range(1, BATCH + 1))
    assert gap.data == GapData(stored[-1][0].cursor, gap.cursor, "journal full")
    assert [e.cursor for e in place.events()] == [e.cursor for e, _ in [*stored, (gap, "")]]


def test_numbers_continue_after_a_restart(place: Place) -> None:
    cursor = 0
    for start in range(3):
        journal = place.writer()
        assert journal.cursor >= cursor
        assert journal.epoch("door").result(PATIENCE) == start + 1
        stored = journal.append(resets(2, first=1 + 2 * start)).result(PATIENCE)
        assert [e.sequence for e, _ in stored] == [2 * start + 1, 2 * start + 2]
        assert int(stored[0][0].cursor) > cursor
        cursor = int(stored[-1][0].cursor)
        journal.close()
        journal.close()


def test_each_camera_has_its_own_epochs(place: Place) -> None:
    journal = place.writer()
    assert [journal.epoch(camera).result(PATIENCE) for camera in ("door", "gate", "door")] == [1, 1, 2]
    journal.append([event("camera.online", "hall")]).result(PATIENCE)
    assert journal.epoch("door").result(PATIENCE) == 3


@pytest.mark.parametrize("camera", ["front.door", "front-door", "front_door", "Front.Door", "a" * 63, "tür *>. =2E"])
def test_any_name_is_one_camera(place: Place, camera: str) -> None:
    journal = place.writer()
    assert journal.epoch(camera).result(PATIENCE) == 1
    mine = journal.append([event("camera.online", camera)]).result(PATIENCE)
    journal.append([event("camera.online", "front"), event("camera.online", "door")]).result(PATIENCE)
    assert place.texts(camera=camera) == [text for _, text in mine]
    assert journal.epoch(camera).result(PATIENCE) == 2
    journal.close()
    assert place.writer().append(resets(1, camera, 2)).result(PATIENCE)[0][0].sequence == 2


actions = st.lists(
    st.tuples(st.sampled_from(["door", "gate", "hall"]), st.integers(1, 12), st.sampled_from(["append", "restart"])),
    max_size=12,
)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions, st.integers(0, 30), st.integers(1, 7), st.sampled_from([None, "door", "nobody"]))
def test_sequences_have_no_gap_and_replays_return_the_written_events(
    place: Place, actions: list[tuple[str, int, str]], skipped: int, most: int, only: str | None
) -> None:
    journal = place.writer()
    begin = journal.cursor
    before = {camera: len(place.texts(camera=camera)) for camera in ("door", "gate", "hall")}
    written: list[str] = []
    for number, (camera, frame, action) in enumerate(actions):
        if action == "restart":
            journal.close()
            journal = place.writer()
        # The examples share one journal, so each has cursors and ids of its own.
        epoch = begin + 1
        new = [event("camera.reset", camera, frame, epoch=epoch), event("camera.online", camera, number, epoch=epoch)]
        written += [text for _, text in journal.append(new).result(PATIENCE)]
    stored = [decode(text) for text in written]
    cursors = [int(e.cursor) for e in stored]
    assert cursors == sorted(set(cursors))
    for camera, count in before.items():
        mine = [e.sequence for e in stored if e.camera == camera]
        assert mine == list(range(count + 1, count + 1 + len(mine)))
    assert len({event_id(e) for e in stored}) == len(stored)
    after = begin + skipped
    expected = [t for t, e in zip(written, stored, strict=True) if int(e.cursor) > after and only in (None, e.camera)]
    assert place.texts(after, only, most) == expected
    journal.close()


def test_lost_events_are_a_gap_for_every_camera(place: Place) -> None:
    journal = place.writer()
    journal.append(resets(2)).result(PATIENCE)
    for count in (3, 1):
        ((lost, text),) = journal.append([], count).result(PATIENCE)
        assert isinstance(lost.data, GapData)
        assert int(lost.data.from_cursor) < int(lost.data.to_cursor) == int(lost.cursor)
        assert (lost.data.reason, decode(text)) == ("journal full", lost)
    ((stored, _),) = journal.append(resets(1, first=3)).result(PATIENCE)
    assert stored.sequence == 3, "a camera's sequence has no gap"
    texts = place.texts()
    assert place.texts(camera="door") == texts
    assert place.texts(camera="yard") == texts[2:4]
    journal.close()
    again = place.writer()
    assert again.unclosed() == []


def test_a_read_has_as_many_events_and_bytes_as_were_asked_for(place: Place) -> None:
    journal = place.writer()
    stored = journal.append(resets(200)).result(PATIENCE)
    begin, size = int(stored[0][0].cursor) - 1, len(stored[0][1])
    with place.reader() as reader:
        for camera in (None, "door"):
            texts, reached = reader.read(begin, 50, camera)
            assert (len(texts), reached) == (50, begin + 50)
            texts, reached = reader.read(begin, 100, camera, size * 10 + 9 * 10)
            assert 5 < len(texts) == reached - begin <= 10
            assert reader.read(begin + 7, 100, camera, 1) == ([stored[7][1]], begin + 8), "one at least"
        assert reader.read(begin, 50, "gate") == ([], begin + 200)
        assert reader.read(begin + 200) == ([], begin + 200)


def test_a_reader_beside_the_writer_misses_nothing(place: Place) -> None:
    place.writer().close()
    written: list[str] = []

    def write() -> None:
        journal = place.journal.writer()
        for frame in range(1, 200):
            written.extend(text for _, text in journal.append(resets(1, first=frame)).result(PATIENCE))
        journal.close()

    thread = threading.Thread(target=write)
    thread.start()
    got: list[str] = []
    at = 0
    with place.reader() as reader:
        while thread.is_alive() or at < reader.cursor():
            texts, at = reader.read(at, 10)
            got += texts
    thread.join()
    assert got == written


def test_purged_events_are_a_gap_and_their_numbers_are_not_used_again(place: Place) -> None:
    journal = place.writer()
    for camera in ("door", "gate"):
        journal.epoch(camera).result(PATIENCE)
        journal.append(resets(3, camera)).result(PATIENCE)
    newest = int(journal.append(resets(2, "gate", 4)).result(PATIENCE)[-1][0].cursor)
    assert place.journal.purge(time.time() - 3600) == 0
    assert place.journal.purge(time.time() + 3600) == 8
    assert place.journal.purge(time.time() + 3600) == 0
    for camera in (None, "door", "hall"):
        (gap,) = place.events(camera=camera)
        assert gap.data == GapData("0", str(newest), "retention")
    assert place.texts(newest) == []
    ((stored, _),) = journal.append(resets(1, "door", 9)).result(PATIENCE)
    assert stored.sequence == 4
    journal.close()
    journal = place.writer()
    assert journal.purge(time.time() + 3600).result(PATIENCE) == 1
    journal.close()
    again = place.writer()
    assert again.epoch("gate").result(PATIENCE) == 2
    stored = [e for e, _ in again.append([*resets(1, "door", 10), *resets(1, "gate", 10)]).result(PATIENCE)]
    assert [e.sequence for e in stored] == [5, 6]
    assert int(stored[0].cursor) > newest


def test_a_missing_journal_can_be_made_and_not_read(place: Place) -> None:
    state, warning = place.journal.examine()
    assert "can be made" in state
    assert warning == ""
    for call in (place.reader, lambda: place.journal.purge(0.0)):
        with pytest.raises(JournalError, match="there is no journal at"):
            call()
    place.writer()
    assert "can be made" not in place.journal.examine()[0]


# Outages


Outage = tuple[Callable[[], None], Callable[[], None]]
"""Two functions: one lets the journal fail, one mends it."""


@pytest.fixture
def outage(place: Place, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outage]:
    if place.kind == "sqlite":
        monkeypatch.setattr(store, "RETRY", 0.0)
        yield lambda: limit(place._writers[0]._writer, 0), lambda: limit(place._writers[0]._writer, 100_000)
        return
    server: NatsServer = request.getfixturevalue("nats_server")
    yield lambda: server.signal(signal.SIGSTOP), lambda: server.signal(signal.SIGCONT)
    server.signal(signal.SIGCONT)


def test_a_batch_waits_while_the_journal_cannot_be_written(place: Place, outage: Outage) -> None:
    begin, end = outage
    journal = place.writer()
    journal.append(resets(1)).result(PATIENCE)
    assert journal.trouble == ""
    begin()
    batch = journal.append(resets(200, first=2))

    def is_in_trouble() -> str:
        journal.check()
        return journal.trouble

    assert str(place.settings.path) in wait_for(is_in_trouble, "a sentence")
    assert not batch.done()
    end()

    def is_stored() -> bool:
        journal.check()
        return batch.done()

    wait_for(is_stored, "the batch")
    assert journal.trouble == ""
    assert [e.sequence for e, _ in batch.result()] == list(range(2, 202))
    assert [e.sequence for e in place.events()] == list(range(1, 202))


# A second writer


def test_one_of_two_writers_ends(place: Place) -> None:
    """A second one is refused where a lock can be held; a server has none, so the second one takes over."""
    first = place.writer()
    first.append(resets(3)).result(PATIENCE)
    if place.kind == "sqlite":
        with pytest.raises(JournalError, match="is in use by another aggregator"):
            place.writer()
        first.append(resets(3, first=4)).result(PATIENCE)
        assert len(place.events()) == 6
        return
    second = place.writer()
    with pytest.raises(
        RivalError, match=r"was taken over by another aggregator \(process [0-9]+ on .*\): this one ends"
    ):
        first.append(resets(3, first=4)).result(PATIENCE)
    second.append(resets(2, first=7)).result(PATIENCE)
    assert [e.sequence for e in place.events()] == [1, 2, 3, 4, 5]


# What a killed aggregator left open

CRASH = """
    import os, pickle, sys
    from fer_stream import plugins
    from fer_stream.settings.tree import JournalSettings
    journal = plugins.journal(JournalSettings(path=sys.argv[1])).writer()
    for event in pickle.load(sys.stdin.buffer):
        if event is None:
            journal.epoch("door").result()
        else:
            journal.append([event]).result()
    os._exit(9)
"""


def crashed(place: Place, events: list[Event]) -> list[Event]:
    """Return the unclosed events after a process that wrote these events was killed."""
    first: list[Event | None] = [None, *events]
    for number, written in enumerate(events):
        if written.epoch > (events[number - 1].epoch if number else 1):
            first.insert(first.index(written), None)
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CRASH), str(place.settings.path)], input=pickle.dumps(first), check=False
    )
    assert run.returncode == 9
    writer = place.writer()
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


def test_unclosed_events_of_a_killed_aggregator_come_in_closing_order(place: Place) -> None:
    left = crashed(place, [*OPEN, event("emotion.updated", frame=9, track=1), event("camera.reset", frame=10)])
    assert named(left) == ["emotion.updated 1 1", "face.entered 1 1", "face.entered 2 1", "camera.reset 0 1"]


def test_a_camera_is_closed_with_its_latest_event(place: Place) -> None:
    (left,) = crashed(place, [OPEN[0], event("camera.reset", frame=10), event("camera.reset", camera="gate")])
    assert named([closing(left)]) == ["camera.offline 0 1"]
    assert left.type == "camera.reset", "it has the latest size"


def test_closed_events_are_not_unclosed(place: Place) -> None:
    closed = [event("emotion.ended", frame=5, track=1), event("face.left", frame=5, track=1)]
    assert named(crashed(place, [*OPEN, *closed])) == ["face.entered 2 1", "camera.online 0 1"]


def test_events_closed_after_a_crash_stay_closed(place: Place) -> None:
    assert len(crashed(place, OPEN)) == 4
    writer = place.writer()
    stored = writer.append([closing(e) for e in writer.unclosed()]).result(PATIENCE)
    assert [str(e.type) for e, _ in stored] == ["emotion.ended", "face.left", "face.left", "camera.offline"]
    assert writer.unclosed() == []


def test_an_interval_that_began_as_another_ended_is_closed_too(place: Place) -> None:
    """Both ends have the same causing frame; neither may be taken for a repeat of the other."""
    turn = [
        event("emotion.ended", frame=7, track=1, label="happy"),
        event("emotion.started", frame=7, track=1, label="sad"),
    ]
    crashed(place, [*OPEN, *turn])
    writer = place.writer()
    writer.append([closing(e) for e in writer.unclosed()]).result(PATIENCE)
    assert writer.unclosed() == []


def test_unclosed_events_of_the_epoch_before_a_capture_s_restart_are_known(place: Place) -> None:
    """The aggregator was killed after the new epoch began and before the old one was closed."""
    later = [event("camera.online", epoch=2), event("face.entered", frame=2, track=1, epoch=2)]
    assert named(crashed(place, [*OPEN, *later])) == [
        "emotion.started 1 1",
        "face.entered 1 1",
        "face.entered 2 1",
        "camera.online 0 1",
        "face.entered 1 2",
        "camera.online 0 2",
    ]


def test_texts_are_json_lines(place: Place) -> None:
    journal = place.writer()
    journal.append([event("camera.online"), *resets(2, first=2)]).result(PATIENCE)
    for text in place.texts():
        assert "\n" not in text
        assert json.loads(text)["source"] == "/cameras/door"
