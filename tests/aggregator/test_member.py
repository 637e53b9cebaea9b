"""A member of a cell in this process, over the memory transport, with a real server: what it serves and gives."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest
from nats_servers import NatsServer
from processes import wait_for

from fer_stream import plugins
from fer_stream.aggregator import aggregator, cell
from fer_stream.fleet import member
from fer_stream.fleet.partitions import partition
from fer_stream.operations.process import Stop
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind, Message, Totals
from fer_stream.settings.tree import FleetSettings, JournalSettings, Settings
from fer_stream.types import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fer_stream.plugins import Peer

numbers = itertools.count()
PARTITIONS = 4


class Member:
    """An aggregator that runs in a thread of its own."""

    def __init__(self, server: NatsServer) -> None:
        self.address = f"memory://member-{next(numbers)}"
        self._stop, self._error = Stop(), list[BaseException]()
        settings = Settings(
            transport="memory",
            address=self.address,
            journal=JournalSettings(path=server.address),
            fleet=FleetSettings(cell="test", partitions=PARTITIONS),
        )
        self._thread = threading.Thread(target=self._run, args=(settings,))
        self._thread.start()

    def _run(self, settings: Settings) -> None:
        try:
            aggregator.run(settings, self._stop)
        except BaseException as error:
            self._error.append(error)

    def peer(self, link: str) -> Peer:
        made: Peer = plugins.load("transports", "memory")().connect(self.address, link)
        return made

    def ask(self, kind: Kind, body: dict[str, Any]) -> Message:
        """Return the answer on the control link; ask again until there is one."""
        peer = self.peer("control")
        try:

            def answer() -> Message | None:
                assert not self._error, self._error
                peer.send(messages.json_message(kind, body, ticket=1))
                parts = peer.receive(0.5)
                return messages.unpack(parts) if parts else None

            found: Message = wait_for(answer, "an answer")
            return found
        finally:
            peer.close()

    def status(self) -> dict[str, Any]:
        return self.ask(Kind.STATUS, {}).body()

    def owns(self) -> list[int]:
        fleet = self.status()["fleet"]
        found: list[int] = fleet["aggregators"][fleet["me"]]["owns"]
        return found

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self._stop.close()
        if self._error:
            raise self._error[0]


@pytest.fixture
def join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Member]]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(member, "SETTLE", 0.5)
    monkeypatch.setattr(member, "REST", 1.0)
    server = NatsServer(tmp_path).start()
    members: list[Member] = []

    def make() -> Member:
        members.append(Member(server))
        return members[-1]

    yield make
    for one in members:
        one.end()
    server.kill()


READY = messages.json_message(
    Kind.READY,
    {"labels": EMOTIONS, "name": "1", "host": "here", "pid": 1, "model": "m", "detector": "d", "moves": True},
)


def hello(camera: str) -> list[Any]:
    body = {"camera": camera, "incarnation": "a", "reported": {}, "frames": None, "rate": None, "policy": "wait"}
    about = {"pid": 1, "live": False, "moves": True}
    return messages.json_message(Kind.HELLO, body | about, totals=Totals(0, 0, 0, 0))


def until(peer: Peer, kind: Kind, say: list[Any]) -> Message:
    """Say something until a message of a kind comes."""

    def heard() -> Message | None:
        peer.send(say)
        while (parts := peer.receive(0.2)) is not None:
            message = messages.unpack(parts[:2])
            if message.kind is kind:
                return message
        return None

    found: Message = wait_for(heard, kind.name)
    return found


def test_a_member_serves_gives_and_tells(join: Callable[[], Member]) -> None:
    first = join()
    wait_for(lambda: len(first.owns()) == PARTITIONS, "all partitions")
    names = {partition(name, PARTITIONS): name for name in (f"cam-{number}" for number in range(40))}
    captures = {number: first.peer("frames") for number in names}
    worker = first.peer("work")
    until(worker, Kind.WELCOME, READY)
    for number, name in names.items():
        assert until(captures[number], Kind.WELCOME, hello(name)).epoch == 1
    parts = first.ask(Kind.STATUS, {"parts": True}).body()["parts"]
    assert {int(number) for number in parts} == set(range(PARTITIONS))
    assert first.ask(Kind.REPLAY, {"after": 2**62}).body()["cursor"].count(":") == PARTITIONS

    second = join()
    wait_for(second.owns, "a share of the partitions")
    (given, *_) = second.owns()
    moved = until(captures[given], Kind.MOVED, hello(names[given])).body()
    assert moved["place"]["address"] == second.address
    there = second.peer("frames")
    assert until(there, Kind.WELCOME, hello(names[given])).epoch == 2
    fleet = first.status()["fleet"]
    assert {one["address"] for one in fleet["aggregators"].values()} == {first.address, second.address}
    answer = second.ask(Kind.REPLAY, {"after": 0, "partition": first.owns()[0]})
    assert answer.kind is Kind.EVENTS
    for peer in (*captures.values(), worker, there):
        peer.close()


def test_the_only_worker_goes_where_a_camera_is(join: Callable[[], Member]) -> None:
    members = [join(), join()]
    wait_for(lambda: all(one.owns() for one in members), "a share for each")
    camera = next(name for name in (f"cam-{n}" for n in range(40)) if partition(name, PARTITIONS) in members[1].owns())
    worker, capture = members[0].peer("work"), members[1].peer("frames")
    until(worker, Kind.WELCOME, READY)
    until(capture, Kind.WHO, messages.json_message(Kind.OFFER, {"full": True}, totals=Totals(0, 0, 0, 0)))
    capture.send(hello(camera))
    offer = messages.json_message(Kind.OFFER, {"full": True}, totals=Totals(1, 0, 0, 0))

    def moved() -> dict[str, Any] | None:
        capture.send(offer)
        while (parts := worker.receive(0.2)) is not None:
            if (message := messages.unpack(parts[:2])).kind is Kind.MOVED:
                return message.body()
        worker.send(messages.json_message(Kind.PING))
        return None

    assert wait_for(moved, "MOVED")["place"]["address"] == members[1].address
    for peer in (worker, capture):
        peer.close()


def test_a_member_asks_another_one_who_owns_what(join: Callable[[], Member], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own heartbeats seem lost to it, so it asks the other one, whose answer is as that of the engine."""
    first, second = join(), join()
    wait_for(lambda: first.owns() and second.owns(), "a share for each")
    asked: list[str] = []
    inquire = cell.CellMember._inquire

    def counted(self: cell.CellMember, place: Any) -> None:
        asked.append(place.address)
        inquire(self, place)

    monkeypatch.setattr(cell.CellMember, "_inquire", counted)
    monkeypatch.setattr("fer_stream.fleet.liveness.Liveness.doubtful", lambda self, now: True)
    monkeypatch.setattr(aggregator, "LEAVE", 1.0)  # who doubts gives nothing away
    wait_for(lambda: {first.address, second.address} <= set(asked), "questions")
    before = (first.owns(), second.owns())
    wait_for(lambda: len(asked) > 6, "more questions")
    assert (first.owns(), second.owns()) == before, "the answers agree with the engine's"
