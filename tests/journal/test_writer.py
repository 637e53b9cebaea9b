"""What SQLite's writer promises beside the contract of all journals (`test_contract`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from journals import event, limit, resets

from fer_stream.errors import JournalError
from fer_stream.events.cloudevents import decode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fer_stream.journal.sqlite import Writer
    from fer_stream.types import Event


def test_a_failed_batch_is_not_stored(journal: Writer) -> None:
    def broken() -> Iterator[Event]:
        yield event("camera.online")
        raise RuntimeError("the generator fails")

    with pytest.raises(RuntimeError):
        journal.append(broken())
    assert journal.read(0) == ([], 0)
    assert int(journal.append([event("camera.online")])[0][0].cursor) == 1


def test_events_keep_their_own_epoch(journal: Writer) -> None:
    (stored,) = journal.append([replace(event("camera.online"), epoch=5)])
    assert decode(stored[1]).epoch == 5


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
