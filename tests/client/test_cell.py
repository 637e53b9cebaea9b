"""A subscription to a whole cell: every event of every camera arrives once, whichever aggregator passes it on."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from typing import TYPE_CHECKING

import pytest
from house import event
from processes import PATIENCE, free_port, wait_for
from scripted import Cell, camera_of

from fer_stream import plugins
from fer_stream.client import Subscription, follower
from fer_stream.errors import ConfigError, WireError
from fer_stream.events.cloudevents import decode, encode
from fer_stream.events.cursor import to_numbers
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.types import Event, EventType, GapData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

numbers = itertools.count()
CAMERAS = [camera_of(number, 4, nth) for number in (0, 1, 3) for nth in (0, 1)]
"""Two cameras in each of three partitions of four; one partition has none."""


@pytest.fixture(params=["memory", "zeromq"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Cell]]:
    """Return a function that makes a cell, with aggregators that do not run yet."""
    made: list[Cell] = []

    def one() -> str:
        return f"memory://cell-{next(numbers)}" if request.param == "memory" else f"tcp://127.0.0.1:{free_port()}"

    def cell(aggregators: int = 1, partitions: int = 4) -> Cell:
        made.append(Cell([one() for _ in range(aggregators)], partitions, request.param))
        return made[-1]

    yield cell
    for each in made:
        each.close()


@pytest.fixture
def cell(make: Callable[..., Cell]) -> Cell:
    found = make()
    found.all[0].start()
    return found


def collect(subscription: Subscription, count: int) -> list[Event]:
    """Return the next events, whose texts have the same cursors."""
    found = []
    for _ in range(count):
        pair = subscription.receive(PATIENCE)
        assert pair is not None, f"{len(found)} of {count} events came"
        assert decode(pair[1]) == pair[0]
        found.append(pair[0])
    return found


def rest(subscription: Subscription) -> list[Event]:
    found = []
    while not subscription.ended:
        if (pair := subscription.receive(PATIENCE)) is not None:
            found.append(pair[0])
    return found


def names(events: list[Event]) -> list[tuple[str, int]]:
    """Return the cameras and sequences of events, by which they are known, ordered by camera."""
    return sorted((each.camera, each.sequence) for each in events)


def in_order(events: list[Event]) -> bool:
    last: dict[str, int] = {}
    for each in events:
        if each.sequence != last.get(each.camera, each.sequence - 1) + 1:
            return False
        last[each.camera] = each.sequence
    return True


def test_old_and_new_events_of_all_partitions_arrive_once(cell: Cell) -> None:
    cell.store(*CAMERAS * 20)
    with cell.listen(after=0) as subscription:
        events = collect(subscription, len(CAMERAS) * 20)
        cell.fence(0)
        cell.store(*CAMERAS * 3)
        events += collect(subscription, len(CAMERAS) * 3)
        assert subscription.receive(0.3) is None, "no event is repeated"
        assert to_numbers(subscription.cursor) == tuple(cell.latest)
    assert names(events) == names(cell.stored)
    assert in_order(events)


def test_resuming_after_any_event_repeats_and_loses_nothing(cell: Cell) -> None:
    cell.store(*random.Random(1).choices(CAMERAS, k=40))
    with cell.listen(after=0, until_now=True) as subscription:
        events = rest(subscription)
    for at in range(0, 40, 3):
        with cell.listen(after=events[at].cursor, until_now=True) as subscription:
            again = rest(subscription)
        assert names(again) == names(events[at + 1 :])


def test_the_subscription_s_cursor_is_before_the_events_that_were_not_returned(cell: Cell) -> None:
    cell.store(*CAMERAS * 5)
    got: list[Event] = []
    cursor = "0"
    for count in (1, 7, 4, 18):
        with cell.listen(after=cursor) as subscription:
            got += collect(subscription, count)
            cursor = subscription.cursor
    assert names(got) == names(cell.stored)


def test_events_that_wait_to_be_returned_are_not_passed_over(cell: Cell) -> None:
    cell.store(*CAMERAS * 2)
    with cell.listen(after=0) as subscription:
        follower_ = subscription._follower

        def are_ready() -> bool:
            while follower_.step():
                pass
            return len(follower_.ready) == 12

        wait_for(are_ready, "all events, which are not returned yet")
        for count in range(12):
            with cell.listen(after=subscription.cursor, until_now=True) as again:
                assert names(rest(again)) == names([event for event, _ in follower_.ready])
            assert len(collect(subscription, 1)) == 1, count


def test_an_event_s_cursor_passes_what_has_no_event_in_other_partitions(cell: Cell) -> None:
    """Otherwise a subscriber that seldom gets an event would read much again."""
    cell.store(*CAMERAS)
    with cell.listen(after=0) as subscription:
        collect(subscription, 6)
        cell.fence(1)
        wait_for(
            lambda: subscription.receive(0.05) or to_numbers(subscription.cursor) == tuple(cell.latest), "the fence"
        )
        cell.store(CAMERAS[0])
        assert to_numbers(collect(subscription, 1)[0].cursor) == tuple(cell.latest)


def test_the_text_is_as_stored_but_for_the_cursor(cell: Cell) -> None:
    cell.store(*CAMERAS)
    with cell.listen(after=0, until_now=True) as subscription:
        while (found := subscription.receive(PATIENCE)) is not None:
            stored = next(e for e in cell.stored if (e.camera, e.sequence) == (found[0].camera, found[0].sequence))
            expected = json.loads(encode(stored)) | {"cursor": found[0].cursor}
            assert json.loads(found[1]) == expected
            assert len(to_numbers(found[0].cursor)) == 4


def test_from_now_on(cell: Cell) -> None:
    cell.store(*CAMERAS)
    with cell.listen() as subscription:
        wait_for(lambda: subscription.receive(0.05) is None and subscription.cursor != "0", "the latest cursor")
        assert not any("partition" in body for body in cell.all[0].requests), "nothing is to be replayed"
        cell.store(*CAMERAS)
        assert names(collect(subscription, 6)) == names(cell.stored[6:])
    with cell.listen(until_now=True) as subscription:
        assert rest(subscription) == []


def test_one_camera_has_plain_cursors_and_resumes_from_either_kind(cell: Cell) -> None:
    camera = CAMERAS[2]
    cell.store(*CAMERAS * 3)
    with cell.listen(after=0) as whole:
        vector = next(each for each in collect(whole, 18) if each.camera == camera).cursor
    with cell.listen(after=0, camera=camera) as subscription:
        events = collect(subscription, 3)
        cell.store(*CAMERAS, *CAMERAS, deaf=True)
        cell.store(*CAMERAS)
        events += collect(subscription, 3)
        assert subscription.cursor.isdecimal()
    assert [each.sequence for each in events] == [1, 2, 3, 4, 5, 6]
    assert all(each.cursor.isdecimal() and each.camera == camera for each in events)
    for after, expected in ((events[2].cursor, [4, 5, 6]), (vector, [2, 3, 4, 5, 6])):
        with cell.listen(after=after, camera=camera, until_now=True) as subscription:
            assert [each.sequence for each in rest(subscription)] == expected


def test_events_that_the_aggregator_did_not_hear_of_are_requested(cell: Cell) -> None:
    with cell.listen(after=0) as subscription:
        chance = random.Random(2)
        for _ in range(60):
            cell.store(chance.choice(CAMERAS), deaf=chance.random() < 0.4)
        events = collect(subscription, 60)
    assert names(events) == names(cell.stored)
    assert in_order(events)


def test_a_loop_in_an_event_loop(cell: Cell) -> None:
    cell.store(*CAMERAS * 4)

    async def read() -> list[Event]:
        return [each async for each in cell.listen(after=0, until_now=True)]

    assert names(asyncio.run(asyncio.wait_for(read(), PATIENCE))) == names(cell.stored)


def test_the_most_partitions(make: Callable[..., Cell]) -> None:
    cell = make(partitions=256)
    cell.store(*(camera_of(number, 256) for number in range(256)))
    cell.all[0].start()
    with cell.listen(after=0, until_now=True) as subscription:
        events = rest(subscription)
    assert names(events) == names(cell.stored)
    with cell.listen(after=events[-1].cursor, until_now=True) as subscription:
        assert rest(subscription) == []


def test_more_heartbeats_than_can_be_read(make: Callable[..., Cell]) -> None:
    cell = make(partitions=64)
    cell.store(*(camera_of(number, 64) for number in range(64)))
    cell.all[0].beats = 20_000
    cell.all[0].start()
    with cell.listen(after=0, until_now=True) as subscription:
        assert names(rest(subscription)) == names(cell.stored)
    with cell.listen() as subscription:
        assert subscription.receive(0.1) is None


# Aggregators that die, or know less


@pytest.mark.parametrize("given", [1, 2])
def test_another_aggregator_continues_without_a_gap(make: Callable[..., Cell], given: int) -> None:
    """Also if only the address of the first one was given: its status names the other one."""
    cell = make(aggregators=2)
    first, second = (each.start() for each in cell.all)
    address = ",".join(each.address for each in cell.all[:given])
    with Subscription(address, after=0, transport=cell.transport) as subscription:
        cell.store(*CAMERAS * 5)
        events = collect(subscription, 30)
        learned = subscription._follower
        wait_for(lambda: subscription.receive(0.02) or learned._others or given == 2, "the other's address")
        serves = first if first.requests else second
        for each in (serves, second if serves is first else first):
            cell.store(*CAMERAS, deaf=True)
            each.end()
            cell.store(*CAMERAS)
            if each is serves:
                events += collect(subscription, 12)
        (second if serves is first else first).start()
        events += collect(subscription, 12)
    assert names(events) == names(cell.stored)
    assert in_order(events)
    assert all(each.type is not EventType.STREAM_GAP for each in events)


def test_a_stale_heartbeat_is_no_other_journal(make: Callable[..., Cell]) -> None:
    """An aggregator that has just started knows less of what others write than a subscriber that was at another one."""
    cell = make(aggregators=2)
    cell.store(*CAMERAS * 4)
    cell.all[0].start()
    with cell.listen(after=0) as subscription:
        events = collect(subscription, 24)
        cell.all[1].knows = {0: 2, 1: 0}
        cell.all[1].start()
        cell.all[0].end()
        wait_for(lambda: subscription.receive(0.05) or cell.all[1].requests, "the other one")
        for _ in range(10):
            assert subscription.receive(0.1) is None
        asked = [body["partition"] for body in cell.all[1].requests if "partition" in body]
        assert sorted(asked) == [0, 1], "one answer is enough, although the heartbeat is repeated"
        cell.all[1].knows = {}
        cell.store(*CAMERAS)
        events += collect(subscription, 6)
    assert names(events) == names(cell.stored)


def test_an_owner_that_does_not_know_yet_what_it_has_stored_is_asked_again(make: Callable[..., Cell]) -> None:
    """Its answer was lost with a server's leader, while another aggregator has published the event already."""
    cell = make(aggregators=2)
    cell.store(*CAMERAS)
    cell.all[0].start()
    with cell.listen(after=0) as subscription:
        events = collect(subscription, 6)
        second = cell.all[1]
        second.knows, second.forgets = {0: 1}, True
        second.start()
        cell.all[0].end()
        wait_for(
            lambda: subscription.receive(0.05) or sum(body.get("partition") == 0 for body in second.requests) > 1,
            "the question, and the same again",
        )
        second.knows = {}
        cell.store(*CAMERAS)
        events += collect(subscription, 6)
    assert names(events) == names(cell.stored)


def test_another_journal_of_one_partition_is_a_gap_of_that_one(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "DOUBT", 0.1)
    cell.store(*CAMERAS * 2)
    with cell.listen(after=0) as subscription:
        before = collect(subscription, 12)[-1].cursor
        cell.begin_anew(3)
        cell.store(*CAMERAS)
        after = collect(subscription, 7)
    gap = next(each for each in after if each.type is EventType.STREAM_GAP)
    assert isinstance(gap.data, GapData)
    assert gap.data.reason == "another journal"
    assert to_numbers(gap.data.from_cursor)[3] == to_numbers(before)[3] == 4
    assert to_numbers(gap.data.to_cursor)[3] == 0
    assert gap.cursor == gap.data.to_cursor
    assert names([each for each in after if each is not gap]) == names(cell.stored[12:])


def test_events_deleted_by_retention_are_a_gap_of_their_partition(cell: Cell) -> None:
    cell.store(*CAMERAS * 2)
    cell.purge(1)
    cell.store(*CAMERAS)
    with cell.listen(after=0, until_now=True) as subscription:
        events = rest(subscription)
    (gap,) = [each for each in events if each.type is EventType.STREAM_GAP]
    assert isinstance(gap.data, GapData)
    assert to_numbers(gap.data.from_cursor)[1] == 0
    assert to_numbers(gap.data.to_cursor)[1] == to_numbers(gap.cursor)[1] == 4
    assert len(events) == 1 + 18 - 4
    with cell.listen(after=gap.cursor, until_now=True) as subscription:
        assert names(rest(subscription)) == names(events[events.index(gap) + 1 :])
    with cell.listen(after=0, until_now=True, camera=CAMERAS[2]) as subscription:
        assert [each.cursor for each in rest(subscription)] == ["4", "5"]


def test_a_journal_that_cannot_be_read_holds_up_no_other(cell: Cell) -> None:
    cell.store(*CAMERAS * 2)
    cell.all[0].silent = {0}
    with cell.listen(after=0) as subscription:
        assert names(collect(subscription, 8)) == names([e for e in cell.stored if e.camera not in CAMERAS[:2]])
        assert to_numbers(subscription.cursor)[0] == 0
        cell.all[0].silent = set()
        assert names(collect(subscription, 4)) == names([e for e in cell.stored if e.camera in CAMERAS[:2]])


# What does not fit


def test_a_cursor_of_another_cell_is_refused(cell: Cell, make: Callable[..., Cell]) -> None:
    cell.store(*CAMERAS)
    alone = make(partitions=1)
    alone.all[0].start()
    for place, after in ((cell, "00:1,01:2"), (alone, "00:1,01:2,02:0,03:4")):
        sentence = (
            rf"is of {after.count(':')} partitions, and the events at .* are in {place.partitions}: give a cursor"
        )
        for camera in (None, CAMERAS[0]):
            with place.listen(after=after, camera=camera) as subscription:
                with pytest.raises(ConfigError, match=sentence):
                    subscription.receive(PATIENCE)
                assert subscription.cursor == after


def test_an_aggregator_of_another_cell_is_refused(make: Callable[..., Cell]) -> None:
    first, second = make(), make(partitions=1)
    first.all[0].start()
    address = f"{first.address},{second.address}"
    with Subscription(address, after=0, transport=first.transport) as subscription:
        first.store(*CAMERAS)
        collect(subscription, 6)
        first.all[0].end()
        second.all[0].start()
        with pytest.raises(ConfigError, match=r"the number of partitions at .* has changed from 4 to 1"):
            subscription.receive(PATIENCE)


@pytest.mark.parametrize("cursor", ["00:1,02:1", "01:1,00:1", "00:1,01:", "00:1,", "0:1,1:2", "00:01,01:1", "00:1"])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a cursor: .*give the cursor of an event"):
        Subscription("memory://nowhere", after=cursor, transport="memory")


@pytest.mark.parametrize("body", [{}, {"cursor": None}, {"cursor": "00:1,02:2"}, {"cursor": "x"}])
def test_an_invalid_answer_is_an_error(body: dict[str, object]) -> None:
    hub = plugins.load("transports", "memory")().bind("memory://invalid")
    try:
        with Subscription("memory://invalid", after=0, transport="memory") as subscription:
            assert subscription.receive(0.05) is None
            for link, peer, parts in hub.receive(0.1):
                if link == "control":
                    answer = messages.json_message(Kind.CURSOR, body, ticket=messages.unpack(parts).ticket)
                    hub.send(link, peer, answer)
            with pytest.raises(WireError):
                subscription.receive(1)
    finally:
        hub.close()


def test_an_event_with_the_cursor_of_a_cell_is_an_error(cell: Cell) -> None:
    with cell.listen() as subscription:
        wait_for(lambda: subscription.receive(0.02) or subscription.cursor != "0", "the latest cursor")
        cell.all[0].publish(
            0, 1, CAMERAS[0], encode(event(1, CAMERAS[0])).replace('"cursor":"1"', '"cursor":"00:1,01:1"')
        )
        with pytest.raises(WireError, match="with the cursor of a cell"):
            subscription.receive(PATIENCE)
