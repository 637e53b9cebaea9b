"""Sinks with a real aggregator: each gets every event once, and a failing sink does not disturb the others."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from processes import wait_for

from fer_stream.errors import FerStreamError
from fer_stream.operations.process import Stop
from fer_stream.service.sink_threads import SinkThreads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from house import House


@pytest.fixture
def stop() -> Iterator[Stop]:
    made = Stop()
    yield made
    made.close()


def opened(house: House, stop: Stop, *sinks: object, begin: int = 0) -> SinkThreads:
    sink_threads = SinkThreads([f"file:{path}" for path in sinks], house.settings, begin)
    sink_threads.open(stop)
    return sink_threads


def newest(house: House) -> int:
    return len(house.stored())


def soon() -> float:
    return time.monotonic() + 5


def test_every_event_reaches_the_sink_once_and_in_order(house: House, stop: Stop, tmp_path: Path) -> None:
    sink_threads = opened(house, stop, tmp_path / "all.jsonl")
    house.take(20)
    last = newest(house)
    wait_for(lambda: sink_threads.all[0].cursor == last, "all events")
    assert sink_threads.states(last) == {
        f"file:{tmp_path}/all.jsonl": {"state": "ok", "delivered": last, "undelivered": 0, "behind": 0, "error": ""}
    }
    sink_threads.finish(stop, last, soon())
    sink_threads.close()
    assert (tmp_path / "all.jsonl").read_text().splitlines() == house.stored()


def test_events_after_a_cursor_alone(house: House, stop: Stop, tmp_path: Path) -> None:
    house.take(10)
    last = newest(house)
    sink_threads = opened(house, stop, tmp_path / "rest.jsonl", begin=last - 3)
    sink_threads.finish(stop, last, soon())
    sink_threads.close()
    assert (tmp_path / "rest.jsonl").read_text().splitlines() == house.stored()[-3:]


def test_what_the_aggregator_journaled_at_its_end_is_read_from_the_journal(
    house: House, stop: Stop, tmp_path: Path
) -> None:
    sink_threads = opened(house, stop, tmp_path / "all.jsonl")
    house.end()  # so that the sink gets no further events live
    house.start()
    house.take(5)
    house.end()
    sink_threads.finish(stop, newest(house), soon())
    sink_threads.close()
    assert (tmp_path / "all.jsonl").read_text().splitlines() == house.stored()


def test_a_run_that_is_told_to_end_gives_its_sinks_their_time(house: House, stop: Stop, tmp_path: Path) -> None:
    house.take(5)
    house.end()  # so that the sink gets no events live
    sink_threads = opened(house, stop, tmp_path / "all.jsonl")
    stop.set()
    sink_threads.finish(stop, newest(house), soon())
    sink_threads.close()
    assert (tmp_path / "all.jsonl").read_text().splitlines() == house.stored()


def test_a_full_disk_is_counted_and_disturbs_no_other_sink(
    house: House, stop: Stop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sink_threads = opened(house, stop, "/dev/full", tmp_path / "all.jsonl")
        house.take(10)
        last = newest(house)
        sink_threads.finish(stop, last, soon())
        sink_threads.close()
    full, good = sink_threads.all
    assert (full.delivered, full.undelivered) == (0, last)
    assert (good.delivered, good.undelivered) == (last, 0)
    assert full.state(last)["state"] == "failing"
    assert "No space left on device" in full.error
    assert len([line for line in caplog.messages if "/dev/full" in line]) == 1, "at most one message in ten seconds"


def test_a_sink_that_cannot_be_opened_is_an_error_of_the_start(house: House, stop: Stop, tmp_path: Path) -> None:
    with pytest.raises(FerStreamError, match="No such file or directory"):
        opened(house, stop, tmp_path / "nowhere" / "events.jsonl")


def test_a_pipe_without_a_reader_holds_up_nothing(house: House, stop: Stop, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    sink_threads = opened(house, stop, tmp_path / "pipe", tmp_path / "all.jsonl")
    house.take(10)
    last = newest(house)
    wait_for(lambda: sink_threads.all[1].cursor == last, "all events in the other sink")
    assert sink_threads.states(last)[f"file:{tmp_path}/pipe"]["behind"] == last
    stop.set()
    sink_threads.finish(stop, last, time.monotonic())
    assert sink_threads.all[0].undelivered == last
    assert sink_threads.all[0].error == "it did not take them in time"
    reader = threading.Thread(target=(tmp_path / "pipe").read_bytes, daemon=True)
    reader.start()  # unblocks the sink's thread, so that it can end
    sink_threads.close()


def test_states_are_written_for_other_processes_and_exported(house: House, stop: Stop, tmp_path: Path) -> None:
    sink_threads = opened(house, stop, tmp_path / "all.jsonl")
    house.take(3)
    last = newest(house)
    wait_for(lambda: sink_threads.all[0].cursor == last, "all events")
    exported: list[tuple[str, int, int]] = []
    sink_threads.tell(tmp_path, last, lambda *values: exported.append(values))
    assert json.loads((tmp_path / "deliveries.json").read_text()) == sink_threads.states(last)
    assert exported == [(f"file:{tmp_path}/all.jsonl", 0, 0)]
    sink_threads.tell(tmp_path / "nowhere", last + 1, None)  # a file that cannot be written is no error
    sink_threads.finish(stop, last, soon())
    sink_threads.close()
