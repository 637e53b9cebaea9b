"""An aggregator that gives cameras and workers away, turn by turn, over the memory transport with a real journal."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from processes import balanced, wait_for

from fer_stream import plugins
from fer_stream.aggregator.aggregator import Aggregator
from fer_stream.aggregator.membership import Alone
from fer_stream.fleet import answers
from fer_stream.fleet.records import Moved, Place, Welcome
from fer_stream.protocol import messages, results
from fer_stream.protocol.messages import Encoding, Kind, Message, Totals
from fer_stream.settings.tree import DispatchSettings, JournalSettings, Settings
from fer_stream.types import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fer_stream.fleet.records import Answer
    from fer_stream.plugins import JournalWriter, Peer

numbers = itertools.count()
OTHER = Place("tcp://192.0.2.2:5550", "k" * 40)
NEIGHBOUR = Place("tcp://192.0.2.3:5550")
HELLO: dict[str, Any] = {
    "camera": "door", "incarnation": "a", "reported": {}, "frames": None, "rate": None, "policy": "wait", "pid": 1,
    "live": False, "moves": True,
}  # fmt: skip
READY: dict[str, Any] = {
    "labels": EMOTIONS, "name": "1", "host": "here", "pid": 1, "model": "m", "detector": "d", "moves": True
}  # fmt: skip


class Told(Alone):
    """A `Home` that answers what the test says."""

    def __init__(self, journal: JournalWriter) -> None:
        super().__init__(journal)
        self.camera: Answer = Welcome((NEIGHBOUR,))
        self.worker: Answer = Welcome()
        self.giving = False

    def answer(self, camera: str) -> Answer:
        assert camera == "door"
        return self.camera

    def gives(self, camera: str) -> bool:
        assert camera == "door"
        return self.giving

    def answer_worker(self) -> Answer:
        return self.worker


class Bench:
    """An aggregator whose turns the test runs, and the peers that the test plays."""

    def __init__(self, path: Path) -> None:
        self.address = f"memory://moves-{next(numbers)}"
        self._transport = plugins.load("transports", "memory")()
        self._hub = self._transport.bind(self.address)
        self.journal = plugins.journal(JournalSettings(path=path)).writer()
        settings = Settings(
            transport="memory",
            address=self.address,
            journal=JournalSettings(path=path),
            dispatch=DispatchSettings(silence=60),
        )
        self.home = Told(self.journal)
        self.it = Aggregator(settings, self._hub, self.home)
        self.now = time.monotonic()

    def peer(self, link: str) -> Peer:
        made: Peer = self._transport.connect(self.address, link)
        return made

    def say(self, peer: Peer, parts: list[Any]) -> list[Message]:
        """Send a message of a peer, and return the answers."""
        peer.send(parts)
        return self.heard(peer)

    def heard(self, peer: Peer) -> list[Message]:
        self.it.turn(0.01)
        return [messages.unpack(parts[:2]) for parts in iter(lambda: peer.receive(0), None)]

    def until(self, peer: Peer, kind: Kind) -> Message:
        """Run turns until a message of a kind comes, and return it."""
        found = wait_for(lambda: [one for one in self.heard(peer) if one.kind is kind], kind.name)
        return found[0]

    def round(self, seconds: float = 0.0) -> None:
        """Run the round of some seconds later."""
        self.now += seconds
        self.it.round(self.now)

    def hello(self, peer: Peer, sent: int = 0, **more: Any) -> list[Message]:
        return self.say(peer, messages.json_message(Kind.HELLO, HELLO | more, totals=Totals(sent, 0, 0, sent)))

    def frame(self, capture: Peer, seq: int) -> None:
        header = {"seq": seq, "time": seq * 10**9, "totals": Totals(seq, 0, 0, seq), "width": 1, "height": 1}
        self.say(capture, messages.pack(Message(Kind.FRAME, bytes(3), encoding=Encoding.RAW, **header)))  # type: ignore[arg-type]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.journal.read(0).result()[0]]

    def close(self) -> None:
        self._hub.close()
        self.journal.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path / "events.db")
    yield found
    found.close()


def kinds(heard: list[Message]) -> list[Kind]:
    return [message.kind for message in heard]


def done(ticket: int) -> list[Any]:
    return messages.pack(Message(Kind.DONE, results.pack_faces(results.Result(()), EMOTIONS), ticket=ticket))


def test_a_camera_leaves_when_its_frames_are_resolved_and_its_events_stored(bench: Bench) -> None:
    capture, worker = bench.peer("frames"), bench.peer("work")
    bench.say(worker, messages.json_message(Kind.READY, READY))
    (welcome,) = bench.hello(capture)
    assert answers.welcome(welcome.body()) == Welcome((NEIGHBOUR,))
    bench.frame(capture, 1)
    ticket = bench.until(worker, Kind.FRAME).ticket

    bench.home.giving = True
    bench.round()
    assert Kind.WHO in kinds(bench.heard(capture))
    offer = messages.json_message(Kind.OFFER, {"full": True}, totals=Totals(2, 0, 0, 1))
    assert Kind.NEXT not in kinds(bench.say(capture, offer)), "it is asked for no more frames"
    assert Kind.WELCOME in kinds(bench.hello(capture, sent=2)), (
        "which says that a second frame was on its way, and lost"
    )
    assert not bench.it.captures.closed(lambda _: True)
    bench.say(worker, done(ticket))
    wait_for(lambda: bench.it.turn(0.01) or bench.it.captures.closed(lambda _: True), "its events")
    assert [event["data"].get("reason") for event in bench.events()] == ["first frame", "camera moved"]
    ledger = bench.it.status()["cameras"]["door"]["ledger"]
    assert balanced(ledger)
    assert (ledger["captured"], ledger["done"], ledger["lost_link"]) == (2, 1, 1)

    bench.home.camera = Moved(OTHER, others=(NEIGHBOUR,))
    body = bench.until(capture, Kind.MOVED).body()
    assert answers.moved(body) == bench.home.camera
    assert body["reported"] == {"done": 1, "lost_link": 1}
    assert bench.it.status()["cameras"] == {}, "no other aggregator's ledger has these frames twice"
    (again,) = bench.hello(capture, sent=2)
    assert again.body()["reported"] == {"done": 1, "lost_link": 1}, "in case the first MOVED was lost"
    (later,) = bench.hello(capture, sent=5, reported={"done": 4})
    assert "reported" not in later.body(), "it has been elsewhere since, and knows more"
    (other,) = bench.hello(capture, incarnation="b")
    assert "reported" not in other.body()

    bench.home.camera, bench.home.giving = Welcome(), False
    assert kinds(bench.hello(capture, sent=2, reported={"done": 1, "lost_link": 1})) == [Kind.WELCOME]
    assert bench.it.status()["cameras"]["door"]["ledger"]["done"] == 1


def test_a_camera_that_is_given_away_may_stay_after_all(bench: Bench) -> None:
    capture, worker = bench.peer("frames"), bench.peer("work")
    bench.hello(capture)
    bench.home.giving = True
    bench.round()
    bench.hello(capture)
    wait_for(lambda: bench.it.turn(0.01) or bench.it.captures.closed(lambda _: True), "its end")
    bench.home.giving = False
    bench.round()
    bench.say(worker, messages.json_message(Kind.READY, READY))
    offer = messages.json_message(Kind.OFFER, {"full": True}, totals=Totals(1, 0, 0, 0))
    assert Kind.NEXT in kinds(bench.say(capture, offer))


def test_a_camera_that_ends_while_it_is_given_away_says_goodbye(bench: Bench) -> None:
    capture = bench.peer("frames")
    bench.hello(capture)
    bench.home.giving = True
    bench.round()
    bench.heard(capture)
    capture.send(messages.json_message(Kind.BYE, {"reason": "end of stream"}))
    bench.until(capture, Kind.GOODBYE)
    assert bench.it.captures.closed(lambda _: True)
    bench.home.camera = Moved(OTHER)
    bench.round()
    assert Kind.MOVED not in kinds(bench.heard(capture))


def test_a_camera_of_nobody_is_to_come_again(bench: Bench) -> None:
    capture = bench.peer("frames")
    bench.home.camera = Moved(None, 0.25)
    (moved,) = bench.hello(capture)
    assert (moved.kind, answers.moved(moved.body())) == (Kind.MOVED, Moved(None, 0.25))
    assert bench.it.status()["cameras"] == {}


@pytest.mark.parametrize("place", [OTHER, None])
def test_an_older_capture_is_refused_with_the_place(bench: Bench, place: Place | None) -> None:
    """It does not know MOVED. Without a place it asks on; with one it ends after a while with the reason."""
    capture = bench.peer("frames")
    bench.home.camera = Moved(place, 0.25)
    (refused,) = bench.hello(capture, moves=None)
    assert refused.kind is Kind.REFUSED
    assert refused.body()["silent"] is (place is None)
    assert (OTHER.address in refused.body()["reason"]) is (place is not None)


def test_an_older_worker_is_refused_with_the_place(bench: Bench) -> None:
    bench.home.worker = Moved(OTHER)
    worker = bench.peer("work")
    (refused,) = bench.say(worker, messages.json_message(Kind.READY, READY | {"moves": None}))
    assert (refused.kind, OTHER.address in refused.body()["reason"]) == (Kind.REFUSED, True)


def test_idle_workers_are_sent_away_one_a_second(bench: Bench) -> None:
    workers = [bench.peer("work") for _ in range(4)]
    for number, worker in enumerate(workers):
        bench.say(worker, messages.json_message(Kind.READY, READY | {"name": str(number)}))
    capture = bench.peer("frames")
    bench.hello(capture)
    bench.frame(capture, 1)  # the worker that has been idle longest gets it
    assert Kind.FRAME in kinds(bench.heard(workers[0]))
    bench.now += 10
    bench.home.worker = Moved(OTHER)

    def sent() -> int:
        bench.round(0.5)
        return 4 - len(bench.it.status()["workers"])

    assert [sent() for _ in range(6)] == [1, 1, 2, 2, 3, 3]
    assert [sent() for _ in range(4)] == [3] * 4, "the busy one stays"
    assert [Kind.MOVED in kinds(bench.heard(worker)) for worker in workers] == [False, True, True, True]
    assert answers.moved(bench.say(workers[3], messages.json_message(Kind.READY, READY))[0].body()) == Moved(OTHER)


def test_captures_and_workers_hear_something_each_second(bench: Bench) -> None:
    capture, worker, old = bench.peer("frames"), bench.peer("work"), bench.peer("frames")
    bench.hello(capture)
    bench.say(worker, messages.json_message(Kind.READY, READY))
    for _ in range(3):
        bench.round(2.0)
        assert Kind.PING in kinds(bench.heard(capture))
        assert Kind.PING in kinds(bench.heard(worker))
    assert kinds(bench.heard(old)) == []
