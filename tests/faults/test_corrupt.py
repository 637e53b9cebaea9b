"""A damaged journal is set aside unchanged, and a new one continues; a clock that was wrong deletes no events early."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from journals import execute
from processes import gapless

from fer_stream import plugins
from fer_stream.aggregator.aggregator import Aggregator
from fer_stream.aggregator.membership import Alone
from fer_stream.errors import JournalError
from fer_stream.events.cloudevents import decode
from fer_stream.journal.sqlite import APPLICATION, Reader, Writer, purge
from fer_stream.settings.tree import JournalSettings, Settings
from fer_stream.types import CameraData, Event, EventType, GapData, Nanoseconds

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli

PAGE = 4096


def resets(count: int, first: int = 1, epoch: int = 1) -> list[Event]:
    data = CameraData("a very private reason", 640, 480)
    numbers = range(first, first + count)
    return [Event(EventType.CAMERA_RESET, "door", epoch, seq, 0, Nanoseconds(seq), data) for seq in numbers]


def filled(path: Path) -> None:
    """Write a journal of many pages; all of them are in the main file."""
    with Writer(path) as writer:
        writer.epoch("door")
        writer.append(resets(2000))


def damage(path: Path, begin: int, end: int | None = None) -> bytes:
    """Overwrite a part of the file with noise, and return the new content."""
    content = bytearray(path.read_bytes())
    stop = len(content) if end is None else end
    content[begin:stop] = os.urandom(stop - begin)
    with path.open("r+b") as file:  # keep the inode: other processes may have the file open
        file.write(content)
    return bytes(content)


def read(path: Path) -> list[Event]:
    with Reader(path) as reader:
        return [decode(text) for text in reader.read(0, limit=100_000)[0]]


def test_a_journal_without_readable_schema_is_set_aside_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    filled(path)
    damaged = damage(path, 100, PAGE)
    for number in (1, 2):
        with Writer(path) as writer:
            assert writer.notice.startswith(f"the journal {path} is corrupt and was set aside as events.db.corrupt-")
            assert writer.cursor() > 1_000_000_000, "a repeated cursor would hide events from subscribers"
            assert writer.unclosed() == []
            epoch = writer.epoch("door")
            assert epoch > 1_000_000_000, "a repeated epoch would repeat event ids"
            writer.append(resets(2, epoch=epoch))
        assert (tmp_path / f"events.db.corrupt-{number}").read_bytes() == damaged
        gap, *events = read(path)
        assert gap.type is EventType.STREAM_GAP
        assert len(events) == 2
        path.write_bytes(damaged)


def test_readable_parts_of_a_damaged_journal_are_used(tmp_path: Path) -> None:
    """The events are damaged, but their last numbers are readable: numbers continue, and there is a gap."""
    path = tmp_path / "events.db"
    filled(path)
    pages = path.stat().st_size // PAGE
    damaged = damage(path, 16 * PAGE, (pages - 2) * PAGE)
    with Writer(path) as writer:
        assert writer.notice == ""
        assert writer.unclosed() == []
        assert "is corrupt and was set aside as events.db.corrupt-1" in writer.notice
        assert writer.epoch("door") == 2
        (stored, _) = writer.append(resets(1, epoch=2))[0]
        assert (int(stored.cursor), stored.sequence) == (2001, 2001)
    assert (tmp_path / "events.db.corrupt-1").read_bytes() == damaged
    gap, after = read(path)
    assert gap.data == GapData("0", "2000", "retention")
    assert int(after.cursor) == 2001


def test_an_aggregator_reports_a_corrupt_journal_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.db"
    filled(path)
    damage(path, 16 * PAGE)
    hub = plugins.load("transports", "memory")().bind("memory://corrupt")
    settings = Settings(transport="memory", address="memory://corrupt", journal=JournalSettings(path=path))
    writer = plugins.journal(settings.journal).writer()
    it = Aggregator(settings, hub, Alone(writer))
    for _ in range(3):
        it.turn(0.01)
    writer.close()
    hub.close()
    assert caplog.text.count("is corrupt and was set aside as events.db.corrupt-1: a new one begins") == 1


def test_damage_found_while_the_journal_is_open_is_repaired_by_renew(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    filled(path)
    with Writer(path) as writer:
        damage(path, 16 * PAGE)
        with pytest.raises(JournalError, match=r"events\.db cannot be read: .*malformed"):
            writer.read(0, limit=100_000)
        assert not writer.there()
        writer.renew()
        assert writer.there()
        (stored, _) = writer.append(resets(1, first=3000))[0]
        assert (int(stored.cursor), stored.sequence) == (2001, 2001)
        assert [int(event.cursor) for event in read(path)] == [2000, 2001]
    assert (tmp_path / "events.db.corrupt-1").stat().st_size > 0


def test_another_kind_of_file_is_not_treated_as_a_corrupt_journal(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(os.urandom(100_000))
    before = path.read_bytes()
    with pytest.raises(JournalError, match="cannot be"):
        Writer(path)
    assert path.read_bytes() == before


def test_a_link_to_a_journal_is_the_same_journal(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(tmp_path / "events.db")
    with Writer(tmp_path / "events.db"), pytest.raises(JournalError, match="is in use by another aggregator"):
        Writer(link)


def test_a_clock_that_was_wrong_for_a_while_deletes_nothing_early(tmp_path: Path) -> None:
    """The clock, in days: correct, then at 1970, corrected, a year ahead, and corrected again."""
    path, day = tmp_path / "events.db", 86_400.0
    now = 1000 * day
    with Writer(path, lambda: now) as writer:
        for number, at in enumerate((1000.0, 0.0, 1001.0, 1365.0, 1002.0), start=1):
            now = at * day
            writer.append(resets(1, first=number))
        assert writer.purge(now - 30 * day) == 0
        now = 1030.5 * day
        assert writer.purge(now - 30 * day) == 2, "the oldest, and the one from 1970 after it"
        now = 1032.5 * day
        assert writer.purge(now - 30 * day) == 3, "an event from the future does not keep older ones"


def test_purge_waits_for_readers_and_reports_remaining_text(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with Writer(path, lambda: 1000.0) as writer:
        writer.append(resets(10))
        reading = sqlite3.connect(path, isolation_level=None)
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM events").fetchall()
        with pytest.raises(JournalError, match=r"10 events are deleted, but .*events\.db-wal still holds their text"):
            purge(path, 2000.0, patience=0.2)
        reading.close()
        assert purge(path, 2000.0) == 0
    assert not [part for part in tmp_path.iterdir() if b"very private" in part.read_bytes()]


def test_the_service_continues_with_a_new_journal(cli: Cli, short_folder: Path, clip: Path) -> None:
    """The aggregator is killed, its journal damaged, and it restarts: it logs once, publishes a gap, and continues."""
    process = cli.start(
        *("run", f"film={clip}", "--loop", "--rate", 30, "--format", "jsonl", "--journal", "events.db"),
        *("--bind", f"ipc://{short_folder}", "--workers", 1),
    )
    process.until_event("emotion.started")
    path = cli.folder / "events.db"
    killed = process.child("aggregator")
    killed.suspend()
    with closing(sqlite3.connect(path)) as db, db:  # move the write-ahead log's content into the main file
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    damage(path, 100)
    killed.kill()
    process.until(lambda: "was set aside as events.db.corrupt-1" in process.err, "the corrupt journal's fate")
    process.until_event("camera.online", 2)
    assert process.stop() == 0, process.err
    assert "Traceback" not in process.err
    stored = cli.run("subscribe", "--journal", "events.db", "--format", "jsonl").events
    gap, *events = stored
    assert gap["type"] == "stream.gap"
    assert gapless(events, after=int(gap["cursor"]))
    published, *after = process.events[-len(stored) :]
    assert (published["type"], int(published["cursor"])) == (gap["type"], int(gap["cursor"])), "subscribers get the gap"
    assert after == events
    assert APPLICATION.to_bytes(4, "big") in (cli.folder / "events.db.corrupt-1").read_bytes()[:100]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET text = CAST(x'ff41' AS TEXT) WHERE cursor = 5",  # not valid UTF-8
        "UPDATE cameras SET epoch = 1099511627776",
        "UPDATE cameras SET sequence = 9223372036854775807",
        "UPDATE head SET cursor = 9223372036854775807",
        "ALTER TABLE events RENAME TO others",
    ],
)
def test_an_unusable_journal_is_set_aside_once(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "events.db"
    filled(path)
    execute(path, statement)
    with Writer(path) as writer:
        writer.unclosed()
        writer.epoch("door")
        writer.epoch("hall")
        assert len(writer.append(resets(3, first=5000, epoch=writer._epochs["door"]))) == 3
    with Writer(path) as again:
        again.epoch("door")
    assert sorted(file.name for file in tmp_path.glob("*.corrupt-?")) == ["events.db.corrupt-1"]


def test_numbers_do_not_go_back_if_a_second_journal_is_lost_under_a_wrong_clock(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    filled(path)
    damage(path, 100, PAGE)
    with Writer(path, lambda: 10.0**9) as writer:
        first = writer.epoch("door")
        writer.append(resets(5, first=9000, epoch=first))
        reached = writer.cursor()
    with Writer(path) as later:  # another start, with another camera
        assert later.epoch("hall") == first == 10**9
    execute(path, "INSERT INTO cameras VALUES ('yard', 1099511627776, 0)")
    with Writer(path, lambda: 10.0) as writer:
        assert writer.epoch("door") > first
        assert writer.cursor() > reached
