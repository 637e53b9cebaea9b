"""What a run prints, with a real aggregator: every event once, whatever the reader does."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import wait_for

from fer_stream.operations.process import Stop
from fer_stream.service.view import View
from fer_stream.sinks.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from house import House

    from fer_stream.types import Event


class Output:
    """Writes to a file as the sink of standard output does."""

    closed = False

    def __init__(self, path: Path | str) -> None:
        self._lines = Lines(Path(path).open("ab", buffering=0))  # noqa: SIM115  (`close` closes it)

    def write(self, event: Event, text: str) -> None:
        self._lines.write(text)

    def close(self) -> None:
        self._lines.close()


@pytest.fixture
def stop() -> Iterator[Stop]:
    made = Stop()
    yield made
    made.close()


def begun(house: House, path: Path | str, after: int = 0) -> View:
    view = View("stdout:jsonl", Output(path), house.settings, after)
    view.start()
    return view


def newest(house: House) -> int:
    return len(house.stored())


def soon() -> float:
    return time.monotonic() + 5


def ended(house: House, view: View, stop: Stop, deadline: float | None = None) -> None:
    view.finish(stop, newest(house), deadline or soon())
    view.close()


def test_every_event_is_printed_once_and_in_order(house: House, stop: Stop, tmp_path: Path) -> None:
    view = begun(house, tmp_path / "out")
    house.take(20)
    last = newest(house)
    wait_for(lambda: view.cursor == last, "all events")
    assert view.state(last) == {"state": "ok", "delivered": last, "undelivered": 0, "behind": 0, "error": ""}
    ended(house, view, stop)
    assert (tmp_path / "out").read_text().splitlines() == house.stored()


def test_events_after_a_cursor_alone(house: House, stop: Stop, tmp_path: Path) -> None:
    house.take(10)
    view = begun(house, tmp_path / "out", newest(house) - 3)
    ended(house, view, stop)
    assert (tmp_path / "out").read_text().splitlines() == house.stored()[-3:]


def test_what_the_aggregator_journaled_at_its_end_is_read_from_the_journal(
    house: House, stop: Stop, tmp_path: Path
) -> None:
    view = begun(house, tmp_path / "out")
    house.end()  # so that the view gets no further events live
    house.start()
    house.take(5)
    house.end()
    ended(house, view, stop)
    assert (tmp_path / "out").read_text().splitlines() == house.stored()


def test_a_run_that_is_told_to_end_prints_the_rest(house: House, stop: Stop, tmp_path: Path) -> None:
    house.take(5)
    house.end()  # so that the view gets no events live
    view = begun(house, tmp_path / "out")
    stop.set()
    ended(house, view, stop)
    assert (tmp_path / "out").read_text().splitlines() == house.stored()


def test_a_full_disk_is_counted(house: House, stop: Stop, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        view = begun(house, "/dev/full")
        house.take(10)
        last = newest(house)
        ended(house, view, stop)
    assert (view.delivered, view.undelivered) == (0, last)
    assert view.state(last)["state"] == "failing"
    assert "No space left on device" in view.error
    assert len([line for line in caplog.messages if "stdout:jsonl" in line]) == 1, "at most one message in ten seconds"


def test_a_reader_who_has_gone_is_noticed(house: House, stop: Stop, tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    output.closed = True
    view = View("stdout:jsonl", output, house.settings, 0)
    view.start()
    house.take(3)
    wait_for(lambda: view.closed, "the reader's end")
    assert view.state(newest(house)) | {"state": "closed", "behind": 0, "delivered": 0} == view.state(newest(house))
    ended(house, view, stop)
    assert view.undelivered == 0


def test_a_reader_who_does_not_read_holds_up_nothing(house: House, stop: Stop) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    view = begun(house, f"/dev/fd/{writing}")
    house.take(10)
    last = newest(house)
    wait_for(lambda: view.state(last)["behind"] == last, "events that wait")
    stop.set()
    view.finish(stop, last, time.monotonic())
    assert view.undelivered == last
    assert view.error == "its reader did not take them in time"
    drain = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(reading, 65536), b"")], daemon=True)
    drain.start()  # unblocks the view's thread, so that it can end
    os.close(writing)
    view.close()
