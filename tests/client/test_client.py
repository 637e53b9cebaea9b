"""The client library: no event is missing after any interruption, over both transports and from a file."""

from __future__ import annotations

import asyncio
import itertools
import math
import socket
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from house import House, event
from journals import execute
from processes import PATIENCE, free_port, wait_for

import fer_stream
from fer_stream import plugins
from fer_stream.client import NoAnswerError, Subscription, read_journal, status, subscribe
from fer_stream.client.subscription import wanted
from fer_stream.errors import ConfigError, JournalError, TransportError
from fer_stream.events.cloudevents import decode
from fer_stream.journal import gap
from fer_stream.journal.sqlite import Writer
from fer_stream.settings.tree import Settings
from fer_stream.transports import keys
from fer_stream.types import CameraData, Event, EventType, GapData, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


numbers = itertools.count()


@pytest.fixture(params=["memory", "zeromq"])
def house(request: pytest.FixtureRequest, short_folder: Path, tmp_path: Path) -> Iterator[House]:
    address = f"memory://house-{next(numbers)}" if request.param == "memory" else f"ipc://{short_folder}/hub"
    found = House(request.param, address, tmp_path / "events.db")
    yield found
    found.end()


def collect(subscription: Subscription, count: int) -> list[str]:
    texts = []
    for _ in range(count):
        found = subscription.receive(PATIENCE)
        assert found is not None, f"{len(texts)} of {count} events came"
        texts.append(found[1])
    return texts


def rest(subscription: Subscription) -> list[str]:
    """Return all texts until the subscription ends by itself."""
    texts = []
    while not subscription.ended:
        found = subscription.receive(PATIENCE)
        if found is not None:
            texts.append(found[1])
    return texts


def test_events_arrive_live_with_the_text_of_the_journal(house: House) -> None:
    house.start()
    with house.listen(after=0) as subscription:
        house.take(20)
        texts = collect(subscription, 21)
        assert subscription.receive(0.7) is None, "no event is repeated"
        assert int(subscription.cursor) == 21
    assert texts == house.stored()
    assert [decode(text).sequence for text in texts] == list(range(1, 22))


def test_without_a_cursor_only_new_events_arrive(house: House) -> None:
    house.start()
    house.take(3)
    with house.listen() as subscription:
        wait_for(lambda: subscription.receive(0.1) is None and int(subscription.cursor) == 4, "now")
        house.take(2)
        assert collect(subscription, 3) == house.stored(after=4)


def test_until_now_ends_by_itself(house: House) -> None:
    house.start()
    with house.listen(until_now=True, after=0) as subscription:
        assert list(subscription) == []
    house.take(5)
    with house.listen(until_now=True, after=2) as subscription:
        assert rest(subscription) == house.stored(after=2)
        assert subscription.receive(PATIENCE * 10) is None
    with house.listen(until_now=True) as subscription:
        assert rest(subscription) == []


def test_a_long_history_needs_many_answers(house: House) -> None:
    writer = Writer(house.journal)
    writer.append(event(n, "door" if n % 3 else "gate", n) for n in range(1, 1801))
    writer.close()
    house.start()
    with house.listen(until_now=True, after=0) as subscription:
        assert rest(subscription) == house.stored()
    with house.listen(until_now=True, after=100, camera="gate") as subscription:
        texts = rest(subscription)
        assert texts == house.stored(after=100, camera="gate")
        assert len(texts) == 567
        assert int(subscription.cursor) == 1800


def test_resuming_at_any_cursor_gives_the_same_sequence(house: House) -> None:
    house.start()
    house.take(15)
    texts: list[str] = []
    cursor = 0
    for count in (1, 4, 2, 9):
        with house.listen(after=cursor) as subscription:
            texts += collect(subscription, count)
            cursor = int(subscription.cursor)
            assert cursor == len(texts)
    assert texts == house.stored()


def test_one_camera_and_some_types(house: House) -> None:
    house.start()
    with house.listen(after=0, camera="gate", types=["camera.online", "camera.offline"]) as subscription:
        house.take(4, "door")
        house.take(4, "gate")
        house.take(2, "door")
        house.take(3, "gate")
        texts = collect(subscription, 4)
    assert [(decode(text).camera, decode(text).type) for text in texts] == [
        ("gate", "camera.online"),
        ("gate", "camera.offline"),
    ] * 2
    with house.listen(after=0, until_now=True, types=["face", "camera.reset"]) as subscription:
        assert {decode(text).type for text in rest(subscription)} == {"camera.reset"}


def test_a_gap_passes_every_filter() -> None:
    assert wanted(gap(0, 5, "retention"), ["face"])
    assert wanted(event(1), [])
    assert wanted(event(1), ["camera"])
    assert wanted(event(1), ["face", "camera.reset"])
    assert not wanted(event(1), ["camera.online"])
    assert not wanted(event(1), ["cam"])


def test_a_subscription_outlives_the_aggregator(house: House) -> None:
    with house.listen(after=0) as subscription:
        assert subscription.receive(0.3) is None, "no aggregator yet"
        texts = []
        for life in range(3):
            house.start()
            house.take(4)
            texts += collect(subscription, 5)
            house.end()
            assert subscription.receive(0.3) is None
            assert len(texts) == 5 * (life + 1)
    assert texts == house.stored()


def test_events_journaled_between_two_aggregators_are_requested(house: House) -> None:
    house.start()
    with house.listen(after=0) as subscription:
        house.take(2)
        texts = collect(subscription, 3)
        house.end()
        writer = Writer(house.journal)
        writer.append(event(n, "gate", n) for n in range(10))
        writer.close()
        house.start()
        texts += collect(subscription, 10)
        assert texts == house.stored()


def after_replacing_the_journal(house: House, deleted: str) -> tuple[Event, list[str], int]:
    """Delete files between two aggregators; return the gap, the further texts and the cursor of a subscriber."""
    house.start()
    with house.listen(after=0) as subscription:
        house.take(9)
        collect(subscription, 10)
        house.end()
        for part in house.journal.parent.glob(deleted):
            part.unlink()
        house.start()
        house.take(3)
        gap, *rest = collect(subscription, 5)
        return decode(gap), rest, int(subscription.cursor)


def test_a_deleted_journal_is_a_gap(house: House) -> None:
    """The new journal's numbers are above every cursor that a subscriber may hold."""
    gap, rest, cursor = after_replacing_the_journal(house, "events.db")
    assert gap.data == GapData("10", str(cursor - 4), "retention")
    assert rest == house.stored(after=10)[1:]


def test_a_journal_without_a_predecessor_is_read_from_its_beginning(house: House) -> None:
    """The old journal's lock file is gone, too. The only sign is a cursor beyond the new journal's end."""
    gap, rest, _ = after_replacing_the_journal(house, "events.db*")
    assert gap.data == GapData("10", "0", "another journal")
    assert rest == house.stored()


def test_a_damaged_text_in_the_journal_ends_no_subscription(house: House) -> None:
    house.start()
    house.take(5)
    execute(house.journal, "UPDATE events SET text = replace(text, 'camera.reset', 'camera.roset') WHERE cursor = 3")
    with house.listen(after=2) as subscription:
        (gap,) = collect(subscription, 1)
        assert decode(gap).data == GapData("2", "6", "retention")
        house.take(2)
        assert collect(subscription, 3) == house.stored(after=6)


def test_events_deleted_by_retention_are_a_gap(house: House) -> None:
    writer = Writer(house.journal, lambda: 1.0)
    writer.append(event(n) for n in range(1, 11))
    assert writer.purge(2.0) == 10
    writer.close()
    writer = Writer(house.journal)
    writer.append(event(n) for n in range(11, 14))
    writer.close()
    house.start()
    with house.listen(after=4, until_now=True, types=["face"]) as subscription:
        first = subscription.receive(PATIENCE)
        assert first is not None
        assert first[0].data == GapData("4", "10", "retention")
        assert rest(subscription) == []
        assert int(subscription.cursor) == 13
    with house.listen(after=4, until_now=True) as subscription:
        assert rest(subscription) == house.stored(after=4)
        assert len(house.stored(after=4)) == 4


def test_a_gap_that_was_not_returned_is_repeated_in_full(house: House) -> None:
    writer = Writer(house.journal, lambda: 1.0)
    writer.append(event(n) for n in range(1, 11))
    writer.purge(2.0)
    writer.close()
    house.start()
    with house.listen(after=3) as subscription:
        wait_for(
            lambda: not subscription._follower.step() and subscription._follower.ready,
            "the gap, which is not returned yet",
        )
        cursor = int(subscription.cursor)
    with house.listen(after=cursor) as subscription:
        found = subscription.receive(PATIENCE)
        assert found is not None
        assert found[0].data == GapData("3", "10", "retention")


def test_a_line_separator_within_a_text_does_not_end_an_event(house: House) -> None:
    """A label or a reason may hold any character. U+2028 ends a line for str.splitlines, but not in JSON."""
    writer = Writer(house.journal)
    data = CameraData("a\u2028b\x85c\x1cd\re", 0, 0)
    writer.append(Event(EventType.CAMERA_RESET, "door", 1, n, 0, Nanoseconds(0), data) for n in (1, 2))
    writer.close()
    house.start()
    with house.listen(after=0, until_now=True) as subscription:
        assert rest(subscription) == house.stored()
        assert len(house.stored()) == 2


def test_iterators(house: House) -> None:
    house.start()
    house.take(4)

    async def all_of(subscription: Subscription) -> list[int]:
        return [int(event.cursor) async for event in subscription]

    async def both() -> list[list[int]]:
        with house.listen(after=0, until_now=True) as first, house.listen(after=3, until_now=True) as second:
            return list(await asyncio.gather(all_of(first), all_of(second)))

    with house.listen(after=0, until_now=True) as subscription:
        assert [int(event.cursor) for event in subscription] == [1, 2, 3, 4, 5]
    assert asyncio.run(both()) == [[1, 2, 3, 4, 5], [4, 5]]


def test_an_iterator_waits_for_new_events(house: House) -> None:
    house.start()
    thread = threading.Timer(0.2, house.take, [3])
    with house.listen(after=0) as subscription:
        thread.start()
        assert [int(event.cursor) for _, event in zip(range(4), subscription, strict=False)] == [1, 2, 3, 4]
    thread.join()


def test_subscribe_by_settings(house: House) -> None:
    house.start()
    house.take(2)
    with fer_stream.subscribe(after=0, until_now=True, camera="door", settings=house.settings) as subscription:
        assert [event.type for event in subscription] == ["camera.online", "camera.reset", "camera.offline"]


def test_subscribe_uses_the_settings_of_the_environment(
    short_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House("zeromq", f"ipc://{short_folder}/hub", tmp_path / "events.db")
    monkeypatch.setenv("FER_STREAM_ADDRESS", house.address)
    house.start()
    try:
        house.take(1)
        with subscribe(after=0, until_now=True) as subscription:
            assert [int(event.cursor) for event in subscription] == [1, 2]
    finally:
        house.end()


def test_status(house: House) -> None:
    house.start()
    house.take(3)
    about = status(house.settings, PATIENCE)
    assert about["cursor"] == "4"
    assert about["cameras"]["door"]["ledger"]["done"] == 3
    house.end()
    with pytest.raises(TransportError, match=r"no aggregator answers at .*: nothing listens there; start one, or"):
        status(house.settings, 0.2)


# No answer


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of listeners that accept connections and send nothing."""
    port = free_port()
    listeners = [socket.create_server(("127.0.0.1", port + link)) for link in range(6)]
    yield f"tcp://127.0.0.1:{port}"
    for listener in listeners:
        listener.close()


def asked(address: str, timeout: float = 0.5, **how: Any) -> None:
    with Subscription(address, until_now=True, after=0, timeout=timeout, **how) as subscription:
        rest(subscription)


def asked_status(address: str, timeout: float = 0.5, **how: Any) -> None:
    status(Settings(address=address, **how), timeout)


ASKING = pytest.mark.parametrize("ask", [asked, asked_status])


@ASKING
@pytest.mark.parametrize("address", ["ipc://{folder}/nobody", "tcp://127.0.0.1:{port}", "tcp://localhost:{port}"])
def test_the_error_reports_that_nothing_listens(ask: Callable[..., None], address: str, short_folder: Path) -> None:
    address = address.format(folder=short_folder, port=free_port())
    with pytest.raises(NoAnswerError, match=rf"no aggregator answers at {address} within .* s: nothing listens there;"):
        ask(address)


@ASKING
def test_the_error_reports_a_listener_that_does_not_answer(ask: Callable[..., None], silent: str) -> None:
    with pytest.raises(
        NoAnswerError, match=rf"answers at {silent} within .*: something listens there, but it does not"
    ):
        ask(silent)


@ASKING
def test_the_error_reports_a_name_that_cannot_be_resolved(ask: Callable[..., None], tmp_path: Path) -> None:
    key = keys.new(tmp_path, "desk", "client")
    with pytest.raises(
        NoAnswerError, match=r"tcp://nowhere.invalid:5550 within .*: its host name cannot be resolved: "
    ):
        ask("tcp://nowhere.invalid:5550", key=key)


@ASKING
def test_a_refusal_is_another_error_than_no_answer(ask: Callable[..., None], tmp_path: Path) -> None:
    folder, address = tmp_path / "keys", f"tcp://127.0.0.1:{free_port()}"
    worker = keys.new(folder, "gpu", "worker")
    foreign = keys.new(tmp_path / "others", "desk", "client")
    transport = plugins.load("transports", "zeromq")(None, folder)
    hub, ended = transport.bind(address), threading.Event()

    def serve() -> None:
        while not ended.is_set():
            hub.receive(0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with pytest.raises(TransportError, match=r"accepts only peers with a key: make one there") as without:
            ask(address, timeout=10)
        with pytest.raises(
            TransportError, match=r"refused the key gpu \(role worker\): ask its operator"
        ) as with_other:
            ask(address, timeout=10, key=worker)
        with pytest.raises(
            NoAnswerError, match="closes the connection during the handshake: is the key desk made for it"
        ):
            ask(address, timeout=3, key=foreign)
    finally:
        ended.set()
        thread.join()
        hub.close()
    for refused in (without, with_other):
        assert address in str(refused.value)
        assert not isinstance(refused.value, NoAnswerError)


def test_an_aggregator_that_ends_during_a_replay_is_an_error(house: House) -> None:
    house.start()
    house.take(3)
    with house.listen(after=0, until_now=True, timeout=0.5) as subscription:
        part = subscription._follower._parts[0]
        wait_for(lambda: not subscription._follower.step() and part.newest is not None, "an answer")
        part.newest = 100  # as if the answer were only a part
        collect(subscription, 4)
        house.end()
        part._asking = True
        with pytest.raises(NoAnswerError, match="nothing listens there"):
            subscription.receive(PATIENCE)


def test_without_until_now_the_default_timeout_is_infinite(short_folder: Path) -> None:
    with Subscription(f"ipc://{short_folder}/hub") as subscription:
        assert subscription.receive(1.0) is None
    with Subscription(f"ipc://{short_folder}/hub", timeout=0.2) as subscription, pytest.raises(NoAnswerError):
        subscription.receive(PATIENCE)
    with Subscription(f"ipc://{short_folder}/hub", until_now=True, timeout=math.inf) as subscription:
        assert subscription.receive(1.0) is None


def test_time_that_the_caller_spends_does_not_count_as_a_timeout(house: House) -> None:
    """A caller that returns to its subscription late gets the waiting events, and no error."""
    house.start()
    house.take(3)
    with house.listen(after=0, until_now=True, timeout=0.8) as subscription:
        first = subscription.receive(0)  # sends the request, and rarely has the answer already
        time.sleep(1.0)
        assert ([first[1]] if first else []) + rest(subscription) == house.stored()


@pytest.mark.parametrize("timeout", [0, -1, math.nan])
def test_an_invalid_timeout_is_refused(timeout: float) -> None:
    with pytest.raises(ConfigError, match="is not a timeout"):
        Subscription("memory://nowhere", timeout=timeout, transport="memory")


def test_a_closed_subscription_returns_no_events(house: House) -> None:
    subscription = house.listen(after=0)
    subscription.close()
    subscription.close()
    with pytest.raises(TransportError, match="closed: subscribe again"):
        subscription.receive(0)
    assert list(subscription) == []


# A file


def test_a_journal_without_an_aggregator(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    writer = Writer(path)
    stored = [text for _, text in writer.append(event(n, "door" if n % 2 else "gate", n) for n in range(1, 2501))]
    assert [text for _, text in read_journal(path)] == stored, "also while the journal is written"
    writer.close()
    assert [int(e.cursor) for e, _ in read_journal(path, after="2490", camera="gate")] == [2492, 2494, 2496, 2498, 2500]
    assert list(read_journal(path, types=["face"])) == []
    assert list(read_journal(path, after="9999")) == []


def test_an_invalid_event_in_a_journal_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    writer = Writer(path)
    writer.append([event(1)])
    writer.close()
    execute(path, "UPDATE events SET text = 'x'")
    with pytest.raises(JournalError, match=r"the journal .*events.db is damaged"):
        list(read_journal(path))
    execute(path, f"UPDATE events SET crc = {zlib.crc32(b'x')}")
    with pytest.raises(JournalError, match=r"the journal .*events.db holds an invalid event"):
        list(read_journal(path))
    with pytest.raises(JournalError, match="there is no journal at"):
        list(read_journal(tmp_path / "other.db"))
