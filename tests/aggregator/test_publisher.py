"""Events are published after they are journaled. They are held while that fails, and losses are reported as gaps."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from journals import execute, limit

from fer_stream import plugins
from fer_stream.aggregator import publisher
from fer_stream.aggregator.publisher import Publisher
from fer_stream.errors import FencedError, JournalError, WireError
from fer_stream.events.cloudevents import decode
from fer_stream.fleet.partitions import partition
from fer_stream.journal.sqlite import store
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.settings.tree import JournalSettings
from fer_stream.types import CameraData, Event, EventType, GapData, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fer_stream.plugins import Hub, JournalWriter, Peer

numbers = itertools.count()


class Bench:
    """A publisher over the memory transport, a real journal whose pages can be taken away, and a listener."""

    def __init__(self, path: Path) -> None:
        transport, address = plugins.load("transports", "memory")(), f"memory://publisher-{next(numbers)}"
        self._hub = transport.bind(address)
        self.connect = partial(transport.connect, address)
        self._listener = transport.subscribe(address, "events", ["door/", "/"])
        self.journal = plugins.journal(JournalSettings(path=path)).writer()
        self.it = Publisher(self._hub)
        self.it.open(0, self.journal)

    def fill_the_disk(self) -> None:
        limit(self.journal._writer, 0)

    def free_the_disk(self) -> None:
        limit(self.journal._writer, 100_000)

    def record(self, first: int, count: int) -> None:
        self.it.record(
            Event(EventType.CAMERA_RESET, "door", 1, seq, 0, Nanoseconds(seq), CameraData("x" * 1000, 4, 3))
            for seq in range(first, first + count)
        )
        self.it.flush()

    def messages(self) -> list[bytes]:
        return [bytes(parts[1]) for parts in iter(lambda: self._listener.receive(0), None)]

    def heard(self) -> list[Event]:
        return [decode(text) for text in self.messages() if text[:1] == b"{"]

    def close(self) -> None:
        self._hub.close()
        self.journal.close()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(store, "RETRY", 0.0)
    made = Bench(tmp_path / "events.db")
    yield made
    made.close()


def test_what_cannot_be_journaled_is_held_and_published_later(bench: Bench) -> None:
    bench.record(1, 2)
    assert [int(event.cursor) for event in bench.heard()] == [1, 2]
    bench.fill_the_disk()
    bench.record(3, 20)
    assert bench.it.failing
    assert bench.it.held == 20
    assert bench.heard() == [], "nothing is published that is not journaled"
    bench.free_the_disk()
    bench.it.flush()
    assert not bench.it.failing
    assert [(int(event.cursor), event.sequence) for event in bench.heard()] == [(n, n) for n in range(3, 23)]


def test_what_cannot_be_held_is_counted_and_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "HELD", 10)
    bench.record(1, 1)
    bench.fill_the_disk()
    for first in range(2, 27, 5):
        bench.record(first, 5)
    assert bench.it.held == 10
    bench.free_the_disk()
    bench.heard()
    bench.it.flush()
    *published, beat = bench.messages()
    assert [int(decode(text).cursor) for text in published] == list(range(2, 12))
    assert beat == b"26", "a subscriber of this camera sees no gap in its sequence and learns of it from the cursor"
    bench.record(50, 1)
    (after,) = bench.heard()
    assert (int(after.cursor), after.sequence) == (27, 12)
    stored = [decode(text) for text in bench.journal.read(0).result()[0]]
    assert [int(event.cursor) for event in stored] == [*range(1, 12), 26, 27]
    assert (stored[-2].type, stored[-2].data) == (EventType.STREAM_GAP, GapData("11", "26", "journal full"))


def test_an_end_without_a_journal_says_what_is_lost(bench: Bench) -> None:
    bench.fill_the_disk()
    bench.record(1, 20)
    with pytest.raises(JournalError, match="20 events are lost"):
        bench.it.end()


def test_a_journal_that_was_deleted_begins_anew(bench: Bench, tmp_path: Path) -> None:
    bench.record(1, 3)
    (tmp_path / "events.db").unlink()
    bench.record(4, 1)
    assert [int(event.cursor) for event in bench.heard()] == [1, 2, 3, 4]
    gap, last = (decode(text) for text in bench.journal.read(0).result()[0])
    assert gap.data == GapData("0", "3", "retention")
    assert int(last.cursor) == 4


def test_damage_that_is_found_while_nothing_is_to_be_written_is_mended_too(bench: Bench, tmp_path: Path) -> None:
    bench.record(1, 3)
    execute(tmp_path / "events.db", "INSERT INTO cameras VALUES ('hall', 1099511627776, 0)")
    with pytest.raises(JournalError, match="damaged"):
        bench.journal.epoch("hall").result()
    bench.it.flush()
    assert bench.journal.epoch("hall").result() >= 1
    assert len(list(tmp_path.glob("*.corrupt-1"))) == 1
    bench.record(4, 1)
    assert [int(event.cursor) for event in bench.heard()][-1] == 4


def test_a_text_that_is_not_what_was_written_reaches_nobody(bench: Bench, tmp_path: Path) -> None:
    """Clients could not decode it. The damaged journal is set aside, and its events are reported as a gap."""
    bench.record(1, 3)
    execute(tmp_path / "events.db", "UPDATE events SET text = '{}' WHERE cursor = 2")
    asks, ask = bench.connect("control"), messages.json_message(Kind.REPLAY, {"after": 0, "camera": None}, ticket=1)
    bench.it.replay(asks.name, messages.unpack(ask))
    assert asks.receive(0) is None
    bench.it.flush()
    bench.it.replay(asks.name, messages.unpack(ask))
    answer = asks.receive(0)
    assert answer is not None
    (told,) = (decode(text) for text in bytes(messages.unpack(answer).payload).split(b"\n"))
    assert told.data == GapData("0", "3", "retention")
    bench.record(4, 1)
    assert [int(event.cursor) for event in bench.heard()] == [1, 2, 3, 4]


def replayed(bench: Bench, **body: object) -> tuple[list[int], int, int]:
    """Ask for a replay: the cursors that are in the answer, how far it reaches, and its bytes."""
    asks = bench.connect("control")
    bench.it.replay(asks.name, messages.unpack(messages.json_message(Kind.REPLAY, body, ticket=1)))
    answer = messages.unpack(asks.receive(1))
    asks.close()
    lines = bytes(answer.payload).split(b"\n") if answer.payload else []
    return [int(decode(line).cursor) for line in lines], answer.seq, len(answer.payload)


def test_a_replay_has_as_many_bytes_as_were_asked_for(bench: Bench) -> None:
    bench.record(1, 800)  # of 1.3 kB each
    cursors, reached, size = replayed(bench, after=0, camera=None, bytes=20_000)
    assert cursors == list(range(1, reached + 1))
    assert 18_000 < size <= 20_000
    assert replayed(bench, after=reached, camera="door", bytes=1)[:2] == ([reached + 1], reached + 1), "one at least"
    cursors, reached, size = replayed(bench, after=100, camera=None)
    assert publisher.REPLAY_BYTES - 2_000 < size <= publisher.REPLAY_BYTES
    assert replayed(bench, after=100, camera=None, bytes=10**9) == (cursors, reached, size), "and no more than that"
    assert replayed(bench, after=790, camera="gate", bytes=1) == ([], 800, 0)
    assert replayed(bench, after=2**62, camera=None, bytes=1) == ([], 800, 0)


@pytest.mark.parametrize("size", [0, -1, 1.5, "1", True, None])
def test_a_replay_of_no_number_of_bytes_is_refused(bench: Bench, size: object) -> None:
    with pytest.raises(WireError, match="a REPLAY without a valid number of bytes"):
        replayed(bench, after=0, camera=None, bytes=size)


# Several partitions


SIDE, DOOR, GATE = 0, 1, 2
"""Of three partitions, those of the cameras of these names."""


@pytest.fixture
def two_of_three(tmp_path: Path) -> Iterator[tuple[Publisher, Hub, dict[int, JournalWriter], Callable[..., Peer]]]:
    """A publisher that writes the partitions of ``side`` and ``door``, each in a journal of its own."""
    transport, address = plugins.load("transports", "memory")(), f"memory://publisher-{next(numbers)}"
    hub = transport.bind(address)
    it = Publisher(hub, 3)
    journals = {n: plugins.journal(JournalSettings(path=tmp_path / f"{n}.db")).writer() for n in (SIDE, DOOR)}
    for number, journal in journals.items():
        it.open(number, journal)
    yield it, hub, journals, partial(transport.subscribe, address)
    hub.close()
    for journal in journals.values():
        journal.close()


def online(camera: str, frame: int = 1) -> Event:
    return Event(EventType.CAMERA_RESET, camera, 1, frame, 0, Nanoseconds(frame), CameraData("", 4, 3))


def test_each_camera_s_events_go_into_its_partition_s_journal(two_of_three: tuple[Any, ...]) -> None:
    it, _, journals, subscribe = two_of_three
    assert [partition(name, 3) for name in ("side", "door", "gate")] == [SIDE, DOOR, GATE]
    listener = subscribe("events", [""])
    it.record([online("side"), online("door"), online("door", 2)])
    it.flush()
    it.relay(GATE, 7, "gate", "{}")
    it.relay(GATE, 5, "", "")
    it.relay(SIDE, 9, "side", "of a former owner")
    it.beat()
    texts = {n: journal.read(0).result()[0] for n, journal in journals.items()}
    assert [decode(text).camera for text in texts[DOOR]] == ["door", "door"]
    heard = [(bytes(parts[0]), bytes(parts[1])) for parts in iter(lambda: listener.receive(0), None)]
    assert heard[:3] == [(f"{decode(text).camera}/".encode(), text.encode()) for text in texts[SIDE] + texts[DOOR]]
    assert heard[3:] == [(b"gate/", b"{}"), (b"/", b"00:1,01:2,02:7")]
    it.close(DOOR)
    assert it.cursor == "00:1,01:2,02:7", "what it has given away is known as far as it was written"


def test_a_journal_that_is_given_away_may_have_a_rival(two_of_three: tuple[Any, ...]) -> None:
    it, _, journals, _ = two_of_three
    it.logs[DOOR].given = True
    with pytest.MonkeyPatch.context() as patch:

        def fenced() -> None:
            raise FencedError("taken")

        patch.setattr(journals[DOOR], "check", fenced)
        it.flush()
        it.logs[DOOR].given = False
        with pytest.raises(FencedError, match="taken"):
            it.flush()


@pytest.mark.parametrize("number", [3, -1, "0", True, 1.0])
def test_a_replay_of_no_partition_is_refused(two_of_three: tuple[Any, ...], number: object) -> None:
    it, *_ = two_of_three
    body = {"after": 0, "partition": number}
    with pytest.raises(WireError, match="of a partition"):
        it.replay(b"peer", messages.unpack(messages.json_message(Kind.REPLAY, body)))
