"""Deleted events are reported as a gap, and their text is overwritten in the file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from journals import event, everything, resets

from fer_stream.errors import JournalError
from fer_stream.events.cloudevents import decode
from fer_stream.journal.sqlite import Writer, purge
from fer_stream.types import CameraData, EventType, GapData

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_events_deleted_by_retention_are_reported_as_a_gap(path: Path) -> None:
    clock = Clock()
    writer = Writer(path, clock)
    for clock.now in (10.0, 20.0, 30.0):
        writer.append(resets(2, first=int(clock.now)))
    kept = everything(path, after=4)
    assert writer.purge(5) == 0
    assert writer.purge(25) == 4
    assert writer.purge(25) == 0
    for after in range(4):
        texts, reached = writer.read(after)
        gap = decode(texts[0])
        assert (gap.type, gap.data) == (EventType.STREAM_GAP, GapData(str(after), "4", "retention"))
        assert (int(gap.cursor), texts[1:], reached) == (4, kept, 6)
    assert writer.read(4) == (kept, 6)
    assert writer.purge(99) == 2
    texts, reached = writer.read(0)
    assert [decode(text).data for text in texts] == [GapData("0", "6", "retention")]
    assert reached == 6
    assert writer.read(6) == ([], 6)
    # Numbers of deleted events are not reused, even after a restart.
    writer.close()
    writer = Writer(path, clock)
    (stored,) = writer.append([event("camera.reset", frame=99)])
    assert (stored[0].sequence, int(stored[0].cursor)) == (7, 7)
    writer.close()


def test_retention_counts_from_journaling_not_from_capture(path: Path) -> None:
    """The events of a recording may have capture times in 1970."""
    writer = Writer(path, lambda: 1000.0)
    writer.append(resets(1))
    assert writer.purge(999) == 0
    writer.close()


def test_events_are_purged_while_an_aggregator_writes(path: Path) -> None:
    now = 1000.0
    journal = Writer(path, lambda: now)
    journal.append([replace(event("camera.online"), data=CameraData("a very private reason", 4, 3))])
    now = 2000.0
    journal.append(resets(1, first=2))
    assert purge(path, 500.0) == 0
    assert purge(path, 1500.0) == 1
    gap, kept = everything(path)
    assert decode(gap).data == GapData("0", "1", "retention")
    assert int(decode(kept).cursor) == 2
    (stored, _) = journal.append(resets(1, first=3))[0]
    assert (int(stored.cursor), stored.sequence) == (3, 3)
    journal.close()
    for file in path.parent.iterdir():
        assert b"very private" not in file.read_bytes(), "the deleted text is overwritten"


def test_purging_a_file_that_is_not_a_journal_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal at"):
        purge(tmp_path / "nowhere.db", 1.0)
    (tmp_path / "text.db").write_text("x" * 500)
    with pytest.raises(JournalError, match="cannot be read"):
        purge(tmp_path / "text.db", 1.0)
    assert (tmp_path / "text.db").read_text() == "x" * 500
