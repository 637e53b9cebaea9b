"""The engine of a fleet on a real server: each call has one answer, the right one, and nothing is carried out late."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from journals import event
from nats_servers import NatsServer, api, ask
from processes import wait_for

from fer_stream import plugins
from fer_stream.errors import JournalError, RivalError
from fer_stream.events.cloudevents import decode
from fer_stream.fleet.driver import Answered, Heard, Seen
from fer_stream.fleet.records import (
    Beat,
    Conflict,
    Done,
    Fence,
    Look,
    Mark,
    Part,
    Place,
    Publish,
    Read,
    Recover,
    Status,
    Unknown,
    Write,
)
from fer_stream.journal.nats.connection import Connection
from fer_stream.journal.nats.engine import LONGEST, NATSEngine
from fer_stream.journal.nats.watch import follow
from fer_stream.settings.sections import FleetSettings
from fer_stream.settings.tree import JournalSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fer_stream.fleet.driver import Arrival
    from fer_stream.fleet.records import Call, Outcome
    from fer_stream.journal.nats.watch import Value
    from fer_stream.plugins import JournalWriter

PATIENCE = 30.0
HERE = Place("tcp://here", "key")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    one = NatsServer(tmp_path).start()
    yield one
    one.signal(signal.SIGCONT)
    one.kill()


class User:
    """An engine, and what has arrived from it."""

    def __init__(self, server: NatsServer, me: str, partitions: int = 4) -> None:
        fleet = FleetSettings(cell="test", partitions=partitions)
        self.engine = NATSEngine(JournalSettings(path=server.address), fleet, me)
        self.arrived: list[Arrival] = []

    def begin(self, task: Call) -> None:
        self.engine.begin(task)

    def answers(self, call: int) -> list[Outcome]:
        self.arrived += self.engine.arrivals()
        return [one.outcome for one in self.arrived if isinstance(one, Answered) and one.call == call]

    def ask(self, task: Call) -> Outcome:
        self.begin(task)
        wait_for(lambda: self.answers(task.call), f"an answer to {task}")
        (outcome,) = self.answers(task.call)
        return outcome

    def done(self, task: Call) -> Any:
        outcome = self.ask(task)
        assert isinstance(outcome, Done), outcome
        return outcome.value

    def heard(self, member: str) -> list[int]:
        self.arrived += self.engine.arrivals()
        return [one.number for one in self.arrived if isinstance(one, Heard) and one.member == member]

    def published(self) -> list[Publish]:
        self.arrived += self.engine.arrivals()
        return [one for one in self.arrived if isinstance(one, Publish)]

    def take(self, partition: int, me: str) -> JournalWriter:
        """Take a partition that nobody owns."""
        revision = self.done(Write(101, partition, Part(me, HERE), 0))
        last, _, _ = self.done(Look(102, partition))
        fence = self.done(Fence(103, partition, Mark(me, revision), last))
        self.done(Recover(104, partition, fence))
        return self.engine.journal(partition)

    def seen(self, partition: int) -> list[tuple[int, Part]]:
        self.arrived += self.engine.arrivals()
        return [one[1:] for one in self.arrived if isinstance(one, Seen) and one.partition == partition]


@pytest.fixture
def join(server: NatsServer) -> Iterator[Callable[..., User]]:
    users: list[User] = []

    def make(me: str, partitions: int = 4) -> User:
        users.append(User(server, me, partitions))
        return users[-1]

    yield make
    for user in users:
        user.engine.close()


def test_of_several_equal_claims_one_wins(join: Callable[..., User]) -> None:
    users = [join(f"m{n}") for n in range(4)]
    for n, user in enumerate(users):
        user.begin(Write(1, 2, Part(f"m{n}", HERE, weight=1.25), 0))
    for user in users:
        wait_for(lambda: user.answers(1), "an answer")  # noqa: B023
    outcomes = [user.answers(1)[0] for user in users]
    won = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Done)]
    assert len(won) == 1
    assert outcomes.count(Conflict()) == 3
    revision, part = users[0].done(Read(2, 2))
    assert part == Part(f"m{won[0]}", HERE, weight=1.25)
    assert users[won[0]].answers(1) == [Done(revision)]
    for user in [*users, join("later")]:
        wait_for(lambda: user.seen(2) == [(revision, part)], "the new owner")  # noqa: B023
    assert users[0].done(Read(3, 1)) == (0, None)


def test_a_partition_is_taken_given_events_and_taken_again(join: Callable[..., User]) -> None:
    first, second = join("first"), join("second")
    assert first.done(Look(1, 3)) == (0, 0, None)
    assert first.done(Fence(2, 3, Mark("first", 5), 0)) == 1
    assert second.ask(Fence(2, 3, Mark("second", 4), 0)) == Conflict()
    assert first.done(Recover(3, 3, 1)) == []
    journal = first.engine.journal(3)
    assert journal.epoch("door").result(PATIENCE) == 1
    journal.append([event("camera.online"), event("face.entered", track=1, frame=2)]).result(PATIENCE)
    assert second.done(Look(4, 3)) == (3, 1, Mark("first", 5))
    assert second.done(Fence(5, 3, Mark("second", 6), 3)) == 4
    assert first.ask(Recover(6, 3, 1)) != Conflict(), "it is done already"
    closed = second.done(Recover(6, 3, 4))
    assert [(each.type, each.sequence) for each, _ in closed] == [("face.left", 3), ("camera.offline", 4)]
    assert second.done(Recover(7, 3, 4)) == closed, "it can be repeated"
    assert second.ask(Recover(8, 3, 1)) == Conflict()
    with pytest.raises(RivalError, match=r"partition 03 at nats://.* was taken over by another aggregator"):
        journal.append([event("camera.reset", frame=9)]).result(PATIENCE)
    with pytest.raises(RivalError):
        wait_for(journal.check, "its rival")
    journal.close()
    first.engine.close()
    journal.close()


def test_the_events_of_others_can_be_read_and_heard(join: Callable[..., User]) -> None:
    owner, other = join("owner"), join("other")
    assert other.engine.newest().result(PATIENCE) == {0: 0, 1: 0, 2: 0, 3: 0}
    assert other.engine.read(2, 0, 10, None, 1000).result(PATIENCE) == ([], 0, 0)
    other.engine.listen(True)
    wait_for(lambda: len(other.published()) >= 4, "the latest cursors")
    journal = owner.take(2, "owner")
    camera = event("camera.online", "side door")
    ((stored, text),) = journal.append([camera]).result(PATIENCE)
    wait_for(lambda: Publish(2, 2, "side door", text) in other.published(), "the event")
    assert Publish(2, 1) in other.published(), "the fence has a cursor, too"
    assert other.engine.newest().result(PATIENCE)[2] == int(stored.cursor) == 2
    assert other.engine.read(2, 0, 10, None, 10_000).result(PATIENCE) == ([text], 2, 2)
    assert other.engine.read(2, 2**62, 10, None, 10_000).result(PATIENCE) == ([], 2, 2)
    assert other.engine.read(2, 0, 10, "side door", 10_000).result(PATIENCE)[0] == [text]
    other.engine.listen(False)
    ((_, later),) = journal.append([event("camera.reset", "side door", 2)]).result(PATIENCE)
    assert other.engine.newest().result(PATIENCE)[2] == 3
    assert Publish(2, 3, "side door", later) not in other.published()
    journal.close()


def test_a_partition_of_an_aggregator_alone_can_be_taken(server: NatsServer, join: Callable[..., User]) -> None:
    """So a service can become a fleet. Its last text is no mark, and every claim is later."""
    with_events = plugins.journal(JournalSettings(path=server.address)).writer()
    with_events.append([event("camera.online")]).result(PATIENCE)
    with_events.close()
    fleet = FleetSettings(cell="local", partitions=1)
    engine = NATSEngine(JournalSettings(path=server.address), fleet, "me")
    try:
        engine.begin(Look(1, 0))
        arrived: list[Arrival] = []
        wait_for(lambda: arrived.extend(engine.arrivals()) or arrived, "an answer")
        (answer,) = arrived
        assert isinstance(answer, Answered)
        assert isinstance(answer.outcome, Done)
        last, fence, mark = answer.outcome.value  # type: ignore[misc]
        assert (last, fence, mark.term) == (2, 1, 0)
    finally:
        engine.close()


def test_a_cell_with_another_number_of_partitions_is_refused(join: Callable[..., User]) -> None:
    join("one", partitions=4)
    with pytest.raises(JournalError, match=r"has another cell \(cell test, partitions: 4\) than the settings say"):
        join("two", partitions=8)


def test_beats_come_back_in_order_and_old_ones_are_no_echo(join: Callable[..., User]) -> None:
    me, other = join("me"), join("other")
    status = Status(HERE, 2.5, 3, 1, leaving=True)
    for number in range(1, 6):
        me.engine.begin(Beat(number, status))
        wait_for(lambda: number in me.heard("me") and number in other.heard("me"), "the beat")  # noqa: B023
    assert me.heard("me") == other.heard("me") == [1, 2, 3, 4, 5]
    assert [one.status for one in other.arrived if isinstance(one, Heard)] == [status] * 5
    again, third = join("me"), join("third")
    wait_for(lambda: third.heard("me") == [5], "the old beat")
    again.engine.begin(Beat(1, status))
    wait_for(lambda: again.heard("me"), "the new beat")
    assert again.heard("me") == [1]


def test_a_server_alone_that_starts_again_has_beats_again(server: NatsServer, join: Callable[..., User]) -> None:
    """Its bucket in memory is gone, and is made again; owners are kept."""
    me = join("me")
    part = Part("me", HERE, fence=7)
    revision = me.done(Write(1, 0, part, 0))
    server.kill()
    server.start()
    beats = iter(range(1, 100_000))

    def echo() -> list[int]:
        me.engine.begin(Beat(next(beats), Status(HERE)))
        return me.heard("me")

    wait_for(echo, "an echo")
    assert me.done(Read(2, 0)) == (revision, part)


def test_what_another_program_writes_is_no_value(server: NatsServer, join: Callable[..., User]) -> None:
    """A partition whose key holds something else can be claimed over it."""
    me = join("me")

    def put(subject: str, text: str) -> None:
        ask(server.address, lambda client: client.jetstream().publish(subject, text.encode()))

    put("$KV.alive.=FF", "nothing")
    put("$KV.alive.other", "{}")
    put("$KV.parts.zz", "nothing")
    put("$KV.parts.01", "nothing")
    revision, part = me.done(Read(1, 1))
    assert (revision > 0, part) == (True, None)
    assert me.ask(Write(2, 1, Part("me", HERE), 0)) == Conflict()
    claimed = me.done(Write(3, 1, Part("me", HERE), revision))
    wait_for(lambda: me.seen(1), "the claim")
    assert me.seen(1) == [(claimed, Part("me", HERE))]
    me.engine.begin(Beat(1, Status(HERE)))
    wait_for(lambda: me.heard("me"), "an echo")
    assert me.heard("other") == []


def test_a_watch_that_loses_its_consumer_begins_anew(server: NatsServer, join: Callable[..., User]) -> None:
    join("me")
    values: list[Value] = []
    connection = Connection(JournalSettings(path=server.address))
    connection.start()
    try:
        connection.submit(follow(connection, "parts", values.append))

        def put(key: str, text: str) -> None:
            ask(server.address, lambda client: client.jetstream().publish(f"$KV.parts.{key}", text.encode()))

        put("00", "a")
        wait_for(lambda: len(values) == 1, "a value")
        put("01", "b")
        wait_for(lambda: len(values) == 2, "a value")
        for round_ in range(2):
            names = api(server.address, "CONSUMER.NAMES.KV_parts")["consumers"]
            for name in names:
                api(server.address, f"CONSUMER.DELETE.KV_parts.{name}")
            put("00", f"a{round_}")
            known = len(values)
            wait_for(lambda: len(values) >= known + 2, "all values again")  # noqa: B023
            assert [(one.text, one.live) for one in values[known : known + 2]] == [("b", False), (f"a{round_}", False)]
            put("01", "b")
            wait_for(lambda: len(values) == known + 3, "a value")  # noqa: B023
            assert values[-1].live
            put("00", "a")
            put("01", "b")
            wait_for(lambda: len(values) == known + 5, "a value")  # noqa: B023
        assert [one.revision for one in values if one.live] == sorted({one.revision for one in values if one.live})
    finally:
        connection.close()


def test_a_call_without_an_answer_is_unknown_once_and_soon(server: NatsServer, join: Callable[..., User]) -> None:
    me = join("me")
    me.done(Look(1, 0))
    server.signal(signal.SIGSTOP)
    wait_for(lambda: psutil.Process(server.pid).status() == psutil.STATUS_STOPPED, "a server that sleeps")
    begun = time.monotonic()
    calls: list[Call] = [
        Write(2, 0, Part("me", HERE), 0), Read(3, 0), Look(4, 0), Fence(5, 0, Mark("me", 1), 0), Recover(6, 0, 1),
    ]  # fmt: skip
    for call in calls:
        me.begin(call)
    for call in calls:
        wait_for(lambda: me.answers(call.call), f"an answer to {call}")  # noqa: B023
    took = time.monotonic() - begun
    assert took < 10 * LONGEST, "generous: the promise is a second for each request"
    server.signal(signal.SIGCONT)
    wait_for(lambda: isinstance(me.ask(Read(next(numbers), 0)), Done), "an answer again")
    assert [me.answers(call.call) for call in calls] == [[Unknown()]] * len(calls)


numbers = iter(range(100, 100_000))


def test_a_call_that_has_waited_for_too_long_is_not_begun(join: Callable[..., User]) -> None:
    """As if the process was suspended after it had decided."""
    me = join("me")
    late = Write(1, 0, Part("me", HERE), 0)
    me.engine._connection.submit(me.engine._carry_out(late, time.monotonic() - 1.5)).result(PATIENCE)
    assert me.answers(1) == [Unknown()]
    assert me.done(Read(2, 0)) == (0, None)


def test_what_a_broken_connection_has_not_sent_is_not_sent_by_the_next_one(server: NatsServer) -> None:
    """The server reads nothing until the client's buffers are full; then the client gives the connection up."""
    ask(server.address, lambda client: client.jetstream().add_stream(name="late", subjects=["late.*"]))
    connection = Connection(JournalSettings(path=server.address))
    connection.start()

    async def fill() -> None:
        for _ in range(400):
            await connection.publish("elsewhere", bytes(60_000))
            await asyncio.sleep(0)
        assert connection.client._pending, "the buffers are not full"
        await connection.publish("late.one", b"late")

    async def connected() -> bool:
        return bool(connection.client.stats["reconnects"])

    def again() -> bool:
        try:
            return connection.submit(connected()).result(PATIENCE)
        except Exception:
            return False

    try:
        server.signal(signal.SIGSTOP)
        connection.submit(fill()).result(PATIENCE)
        wait_for(lambda: not connection._client.is_connected, "a broken connection")  # type: ignore[union-attr]
        server.signal(signal.SIGCONT)
        wait_for(again, "a connection")
        connection.submit(connection.request("late.two", b"")).result(PATIENCE)
        assert api(server.address, "STREAM.INFO.late", {"subjects_filter": ">"})["state"]["subjects"] == {"late.two": 1}
    finally:
        connection.close()


def test_texts_of_events_stay_as_they_were(join: Callable[..., User]) -> None:
    me = join("me")
    me.done(Look(1, 1))
    me.done(Fence(2, 1, Mark("me", 1), 0))
    me.done(Recover(3, 1, 1))
    journal = me.engine.journal(1)
    ((stored, text),) = journal.append([event("camera.online")]).result(PATIENCE)
    assert decode(text) == stored
    assert journal.read(0).result(PATIENCE) == ([text], 2)
