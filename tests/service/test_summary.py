"""A run's progress and its summary, with a real aggregator."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from processes import wait_for

from fer_stream.aggregator.ledger import Ledger
from fer_stream.errors import FerStreamError
from fer_stream.service import summary
from fer_stream.service.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from house import House


@pytest.fixture
def progress(house: House) -> Iterator[Progress]:
    made = Progress(house.settings, 0)
    yield made
    made.close()


def kinds(house: House) -> dict[str, int]:
    return dict(Counter(json.loads(text)["type"] for text in house.stored()))


def test_events_are_counted_and_the_status_is_known(house: House, progress: Progress) -> None:
    assert progress.stale
    house.take(6)
    wait_for(lambda: progress.ask(1.0), "an answer")
    assert not progress.stale
    wait_for(lambda: progress.look() or sum(progress.events.values()) == len(house.stored()), "all events")
    assert progress.events == kinds(house)
    assert progress.cursor == len(house.stored())
    assert progress.ledgers()["door"]["captured"] == 6


def test_events_that_came_after_the_last_answer_are_counted_from_the_journal(house: House, progress: Progress) -> None:
    house.take(6)
    house.end()
    assert not progress.ask(0.1), "the aggregator has ended"
    progress.read_rest()
    assert progress.events == kinds(house)
    house.start()


def test_a_journal_that_cannot_be_read_is_kept_as_an_error(house: House, progress: Progress) -> None:
    house.end()
    house.journal.unlink()
    progress.read_rest()
    assert progress.error is not None
    assert "events.db" in str(progress.error)


def test_a_summary_names_every_frame_and_every_event_that_was_not_delivered(
    house: House, progress: Progress, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    house.take(6)
    wait_for(lambda: progress.ask(1.0), "an answer")
    wait_for(lambda: progress.look() or sum(progress.events.values()) == len(house.stored()), "all events")
    good = {"state": "ok", "delivered": 9, "undelivered": 0, "behind": 0, "error": ""}
    sinks = {
        "stdout:jsonl": good | {"delivered": 7, "undelivered": 2, "error": "No space left on device"},
        "file:a": good | {"undelivered": 5},  # dead letters
        "file:b": good | {"behind": 3, "error": "it is full"},
        "file:c": good | {"behind": 1},
    }
    made = summary.summary(progress, sinks)
    assert made["events"] == kinds(house)
    assert made["cameras"]["door"]["done"] == 6
    assert made["sinks"] == sinks
    assert summary.lost(made) == ["stdout:jsonl: 2 of 9 events were not printed: No space left on device"]
    assert summary.waiting(made) == [
        "file:b: 3 events wait, and are delivered at the next start: it is full",
        "file:c: 1 events wait, and are delivered at the next start",
    ]
    summary.write(tmp_path / "summary.json", made)
    assert json.loads((tmp_path / "summary.json").read_text()) == made
    summary.tell(made)
    printed: list[str] = []  # the parts printed so far; a thread writes to stderr
    last = summary.waiting(made)[-1]
    wait_for(lambda: printed.append(capfd.readouterr().err) or last in "".join(printed), "the summary")
    assert "door: 6 frames captured = 6 done" in "".join(printed)


def test_rejected_frames_are_told_once_with_their_reasons(capfd: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(captured=9, done=4, rejected={"capture": 3, "poisoned": 2}).as_dict()
    summary.tell({"duration_s": 1.0, "cameras": {"door": ledger}, "events": {}, "sinks": {}})
    printed: list[str] = []
    wait_for(lambda: printed.append(capfd.readouterr().err) or "events" in "".join(printed), "the summary")
    expected = "door: 9 frames captured = 4 done + 5 rejected (3 capture, 2 poisoned)\n"
    assert expected in "".join(printed)


def test_a_summary_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FerStreamError, match=r"the summary .*nowhere/summary\.json cannot be written: No such file"):
        summary.write(tmp_path / "nowhere" / "summary.json", {})


def test_the_ledger_of_a_camera_that_was_removed_and_came_again_is_the_sum(house: House, progress: Progress) -> None:
    house.take(6)
    wait_for(lambda: progress.ask(1.0), "an answer")
    progress.close_ledger("door")
    progress.close_ledger("nobody")
    assert progress.ledgers()["door"]["captured"] == 6
    assert progress.ask(1.0)  # here the aggregator has a second ledger of a camera with this name
    assert progress.ledgers()["door"]["captured"] == 12
    assert progress.ledgers().keys() == {"door"}
