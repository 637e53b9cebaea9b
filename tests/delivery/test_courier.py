"""One sink's thread, with sinks that misbehave, and a record that cannot be written."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from journals import resets
from processes import wait_for

from fer_stream.delivery import state as record
from fer_stream.delivery.courier import FIRST, LONGEST, PATIENCE, Courier, pause
from fer_stream.delivery.followers import Events
from fer_stream.delivery.sink import Order
from fer_stream.delivery.state import DeliveryState
from fer_stream.errors import RejectedError, RetryError
from fer_stream.journal.sqlite import Writer
from fer_stream.settings.tree import DeliverSettings, load
from fer_stream.types import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from fer_stream.plugins import Delivery

EVENTS = 30


class Scripted:
    """A sink that raises what it is told to, call by call, and then takes everything."""

    most = 10

    def __init__(self, *errors: Exception | None) -> None:
        self.taken: list[str] = []
        self.calls: list[list[str]] = []
        self.closed = False
        self._errors = list(errors)

    def write(self, batch: Sequence[Delivery]) -> None:
        self.calls.append([one.id for one in batch])
        error = self._errors.pop(0) if self._errors else None
        if error is not None:
            raise error
        self.taken += [one.id for one in batch]

    def close(self) -> None:
        self.closed = True
        raise RuntimeError("it never closes well")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeliveryState]:
    monkeypatch.setattr(record, "PATIENCE", 0.05)
    writer = Writer(tmp_path / "e.db")
    writer.append(resets(EVENTS))
    writer.close()
    found = DeliveryState(tmp_path / "deliveries.db", create=True)
    yield found
    found.close()


@pytest.fixture
def serve(
    state: DeliveryState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Scripted], Courier]]:
    monkeypatch.setattr("fer_stream.delivery.courier.FIRST", 0.01)
    monkeypatch.setattr("fer_stream.delivery.courier.LONGEST", 0.05)
    started: list[Courier] = []

    def start(sink: Scripted) -> Courier:
        order = Order("main", DeliverSettings(sink="scripted:", begin="beginning"))
        events = Events(load({"journal.path": tmp_path / "e.db"}), from_journal=True)
        courier = Courier(order, sink, events, state, lambda: None)
        courier.start()
        started.append(courier)
        return courier

    yield start
    for courier in started:
        courier.end()
        courier.join()


def test_pauses_grow_and_are_bounded() -> None:
    for attempt in (0, 1, 5, 20, 5000):
        longest = min(LONGEST, FIRST * 2 ** min(attempt, 30))
        found = [pause(attempt) for _ in range(300)]
        assert 0 <= min(found) < longest / 3 < 2 * longest / 3 < max(found) <= longest
    assert pause(0, after=30.0) == 30.0
    assert pause(0, after=1e9) == PATIENCE


def test_every_exception_is_overcome(serve: Callable[[Scripted], Courier], state: DeliveryState) -> None:
    errors = (ValueError("rtsp://user:secret@h"), RetryError("later"), RejectedError({"other": "no"}), OSError())
    sink = Scripted(None, *errors)
    courier = serve(sink)
    wait_for(lambda: len(sink.taken) == EVENTS, "all events")
    assert len(set(sink.taken)) == EVENTS
    assert sink.calls[1] == sink.calls[2] == sink.calls[3] == sink.calls[4] == sink.calls[5]
    wait_for(lambda: courier.cursor == str(EVENTS), "the cursor")
    assert state.count_dead_letters() == {}
    courier.end()
    courier.join()
    assert sink.closed


def test_a_whole_batch_may_be_refused(serve: Callable[[Scripted], Courier], state: DeliveryState) -> None:
    first = Scripted()
    courier = serve(first)
    wait_for(lambda: courier.cursor == str(EVENTS), "the cursor")
    courier.end()
    courier.join()
    state._db.execute("UPDATE sinks SET cursor = '0', delivered = 0")
    refusal = RejectedError(dict.fromkeys(first.calls[0], "no"))
    sink = Scripted(refusal)
    again = serve(sink)
    wait_for(lambda: again.cursor == str(EVENTS), "the cursor")
    assert sink.taken == first.taken[10:]
    assert [letter.id for _, letter in state.dead_letters("main")] == first.taken[:10]
    found = state.sink("main")
    assert found is not None
    assert (found.delivered, found.dead) == (20, 10)


def test_a_record_that_cannot_be_written_repeats_nothing(
    serve: Callable[[Scripted], Courier], state: DeliveryState
) -> None:
    state.begin("main", BEGINNING)
    other = sqlite3.connect(state.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    sink = Scripted()
    courier = serve(sink)
    wait_for(lambda: sink.calls and "cannot be used: database is locked" in courier.error, "an error")
    other.execute("ROLLBACK")
    other.close()
    wait_for(lambda: courier.cursor == str(EVENTS) and not courier.error, "the end")
    assert len(sink.taken) == len(set(sink.taken)) == EVENTS
