"""`fer-stream deliver` with webhooks: a receiver that refuses, sends away and comes back; and what operators see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from deliveries import Bench, ids
from processes import wait_for
from webhook_receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def receiver(bench: Bench) -> Iterator[Receiver]:
    receiver = Receiver(bench.folder).start()
    yield receiver
    receiver.kill()


def test_only_the_guilty_become_dead_letters(bench: Bench, receiver: Receiver) -> None:
    events = bench.journal("door", "yard", events=150)
    bad = [events[7]["id"], events[250]["id"]]
    receiver.order(refuse=bad, status=422)
    bench.settings(main={"sink": f"webhook:{receiver.address}"})
    run = bench.deliver()
    run.until(lambda: len(receiver.taken()) == len(events) - len(bad), "the end")
    run.until(lambda: bench.states()["main"]["dead_letters"] == len(bad), "the record")
    assert receiver.taken() == [identity for identity in ids(events) if identity not in bad]
    assert ids(bench.manage("status", "main", "--format", "jsonl").events) == bad
    assert "answers 422 Unprocessable Entity" in bench.manage("status", "main").out
    receiver.order()
    bench.manage("retry", "main")
    wait_for(lambda: receiver.taken()[-2:] == bad, "the dead letters")
    assert run.stop() == 0


def test_a_receiver_that_is_gone_stops_the_sink(bench: Bench, receiver: Receiver) -> None:
    events = bench.journal("door", events=50)
    receiver.order(status=410)
    bench.settings(main={"sink": f"webhook:{receiver.address}", "options": {"mode": "structured"}})
    run = bench.deliver()
    run.until_said("410 Gone: it wants no more events; give another address, or remove the sink; then run")
    receiver.order(status=503, headers={"Retry-After": "1"})
    bench.manage("retry", "main")
    run.until_said("503 Service Unavailable, and wants the events in 1 s")
    receiver.order()
    run.until(lambda: receiver.taken() == ids(events), "all events")
    assert run.stop() == 0
    assert len(receiver.requests()) < 2 * len(events)
