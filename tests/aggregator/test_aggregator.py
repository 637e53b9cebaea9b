"""Which messages an aggregator accepts and refuses, turn by turn, over the memory transport with a real journal."""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from processes import wait_for

from fer_stream import plugins
from fer_stream.aggregator.aggregator import Aggregator
from fer_stream.aggregator.membership import Alone
from fer_stream.operations import metrics
from fer_stream.protocol import messages, results, shared
from fer_stream.protocol.messages import Encoding, Kind, Message, Totals
from fer_stream.protocol.pace import SLOW
from fer_stream.settings.tree import DispatchSettings, JournalSettings, Settings
from fer_stream.types import EMOTIONS, Box, Face, Measure, Measures, Probabilities

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fer_stream.plugins import Peer

numbers = itertools.count()

HELLO: dict[str, Any] = {
    "camera": "door", "incarnation": "a", "reported": {}, "frames": None, "rate": None, "policy": "wait", "pid": 1,
    "live": False,
}  # fmt: skip
READY: dict[str, Any] = {
    "labels": EMOTIONS, "name": "1", "host": "here", "pid": 1, "model": "m", "detector": "d"
}  # fmt: skip


class Bench:
    """An aggregator whose turns the test runs, and the peers that the test plays."""

    def __init__(self, path: Path, silence: float = 60, networked: bool = True, **dispatch: float) -> None:
        self.address = f"memory://aggregator-{next(numbers)}"
        self._transport = plugins.load("transports", "memory")()
        self._hub = self._transport.bind(self.address)
        self.journal = plugins.journal(JournalSettings(path=path)).writer()
        settings = Settings(
            transport="memory",
            address=self.address if networked else f"ipc://{path.parent}",
            journal=JournalSettings(path=path),
            dispatch=DispatchSettings(silence=silence, **dispatch),
        )
        self.it = Aggregator(settings, self._hub, Alone(self.journal))

    def peer(self, link: str) -> Peer:
        made: Peer = self._transport.connect(self.address, link)
        return made

    def say(self, peer: Peer, parts: list[Any]) -> list[Kind]:
        """Send a message of a peer, and return the kinds of the answers."""
        peer.send(parts)
        return [message.kind for message in self.heard(peer)]

    def heard(self, peer: Peer) -> list[Message]:
        self.it.turn(0.01)
        return [messages.unpack(parts[:2]) for parts in iter(lambda: peer.receive(0), None)]

    def frame(self, capture: Peer, seq: int) -> list[Kind]:
        header = {"seq": seq, "time": seq * 1_000_000_000, "totals": Totals(seq, 0, 0, seq), "width": 1, "height": 1}
        return self.say(capture, messages.pack(Message(Kind.FRAME, bytes(3), encoding=Encoding.RAW, **header)))  # type: ignore[arg-type]

    def ledger(self) -> dict[str, int]:
        found: dict[str, int] = self.it.status()["cameras"]["door"]["ledger"]
        return {term: count for term, count in found.items() if count}

    def close(self) -> None:
        self._hub.close()
        self.journal.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path / "events.db")
    yield found
    found.close()


def done(ticket: int) -> list[Any]:
    return messages.pack(Message(Kind.DONE, results.pack_faces(results.Result(()), EMOTIONS), ticket=ticket))


@pytest.mark.parametrize(
    "change",
    [
        {"camera": "../door"},
        {"camera": "d" * 64},
        {"camera": "\ud800"},
        {"camera": None},
        {"reported": {"x": 1}},
        {"reported": {"captured": 1}},
        {"reported": {"done": 1}},
        {"reported": {"done": -1}},
        {"frames": float("inf")},
        {"frames": "many"},
        {"rate": 0},
        {"rate": float("nan")},
        {"rate": "fast"},
        {"pid": None},
    ],
    ids=str,
)
def test_a_hello_with_an_invalid_field_is_refused_and_changes_nothing(bench: Bench, change: dict[str, Any]) -> None:
    capture = bench.peer("frames")
    assert bench.say(capture, messages.json_message(Kind.HELLO, HELLO | change)) == []
    assert bench.it.status()["cameras"] == {}
    assert bench.say(capture, messages.json_message(Kind.HELLO, HELLO)) == [Kind.WELCOME]


def test_a_camera_of_few_frames_is_not_called_offline_between_them(bench: Bench) -> None:
    capture, worker = bench.peer("frames"), bench.peer("work")
    bench.say(worker, messages.json_message(Kind.READY, READY))
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO | {"live": True, "rate": 0.1}))
    bench.frame(capture, 1)
    (given,) = bench.heard(worker)[-1:]
    bench.say(worker, done(given.ticket))

    def told(after: float) -> list[str]:
        time = int((1 + after) * 1e9)
        bench.say(capture, messages.json_message(Kind.OFFER, {"full": False}, totals=Totals(1, 0, 0, 1), time=time))
        return [json.loads(text)["type"] for text in bench.journal.read(0).result()[0]]

    assert told(after=19) == ["camera.online"]
    assert told(after=21) == ["camera.online", "camera.offline"]


def test_a_measure_is_the_mean_of_the_faces_in_view_and_nan_without_any(bench: Bench) -> None:
    capture, worker = bench.peer("frames"), bench.peer("work")
    scales = (Measure("valence", -1, 1),)
    bench.say(worker, messages.json_message(Kind.READY, READY | {"measures": {"valence": [-1, 1]}}))
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO))

    def level() -> float | None:
        bench.it.captures.round(time.monotonic())
        labels = {"camera": "door", "measure": "valence"}
        return metrics.REGISTRY.get_sample_value("fer_stream_measure", labels)

    nobody = level()
    assert nobody is not None
    assert math.isnan(nobody)
    happy = Probabilities(EMOTIONS, (1.0, *[0.0] * (len(EMOTIONS) - 1)))
    faces = [
        Face(Box(x, 0, x + 50, 60), 0.99, probabilities=happy, quality=1.0, measures=Measures(("valence",), (value,)))
        for x, value in ((0, -0.5), (200, 0.75))
    ]
    for seq in range(1, 5):
        bench.frame(capture, seq)
        (given,) = bench.heard(worker)[-1:]
        payload = results.pack_faces(results.Result(tuple(faces)), EMOTIONS, scales)
        bench.say(worker, messages.pack(Message(Kind.DONE, payload, ticket=given.ticket)))
    assert level() == pytest.approx(0.125)


def cameras_of(bench: Bench) -> set[str]:
    """Return the cameras in the status after a round."""
    bench.it.round(time.monotonic())
    return set(bench.it.status()["cameras"])


def online(camera: str) -> float | None:
    return metrics.REGISTRY.get_sample_value("fer_stream_camera_online", {"camera": camera})


def test_a_camera_whose_capture_has_ended_is_forgotten_after_a_while(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "events.db", forget_after=0.5, forget_silent_after=1e9)
    captures = {name: bench.peer("frames") for name in ("ended", "silent", "here")}
    for name, capture in captures.items():
        assert bench.say(capture, messages.json_message(Kind.HELLO, HELLO | {"camera": name})) == [Kind.WELCOME]
    assert bench.say(captures["ended"], messages.json_message(Kind.BYE, {"reason": "end of stream"})) == [Kind.GOODBYE]
    bench.it.captures.cameras["silent"].silent = True
    assert cameras_of(bench) == {"ended", "silent", "here"}, "not at once"
    assert online("ended") == 0
    wait_for(lambda: cameras_of(bench) == {"silent", "here"}, "its being forgotten")
    assert online("ended") is None
    assert online("silent") == 0

    again = bench.say(
        captures["ended"], messages.json_message(Kind.HELLO, HELLO | {"camera": "ended", "incarnation": "b"})
    )
    assert again == [Kind.WELCOME]
    assert cameras_of(bench) == {"ended", "silent", "here"}
    assert online("ended") == 0
    bench.close()


def test_a_silent_camera_is_forgotten_when_its_own_time_is_over(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "events.db", forget_after=1e9, forget_silent_after=0.2)
    capture = bench.peer("frames")
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO))
    bench.it.captures.cameras["door"].silent = True
    wait_for(lambda: cameras_of(bench) == set(), "its being forgotten")
    assert bench.say(capture, messages.json_message(Kind.OFFER, {"full": False})) == [Kind.WHO], (
        "a camera that returns has to say HELLO again"
    )
    assert bench.say(capture, messages.json_message(Kind.HELLO, HELLO)) == [Kind.WELCOME]
    bench.close()


def test_frames_that_were_lost_with_another_aggregator_are_counted(bench: Bench) -> None:
    capture = bench.peer("frames")
    told = {"reported": {"done": 3, "lost_link": 1}, "camera": "lost"}
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO | told, totals=Totals(9, 2, 0, 7)))
    ledger = bench.it.status()["cameras"]["lost"]["ledger"]
    assert {term: count for term, count in ledger.items() if count} == {
        "captured": 9, "done": 3, "superseded": 2, "lost_link": 4
    }  # fmt: skip
    bench.it.drain()
    counted = {term: metrics.frames.labels("lost", term, "")._value.get() for term in ("captured", "done", "lost_link")}
    assert counted == {"captured": 0, "done": 0, "lost_link": 3}, "the aggregator before has counted the others"


def test_a_reason_is_one_that_is_known(bench: Bench) -> None:
    capture, worker = bench.peer("frames"), bench.peer("work")
    bench.say(worker, messages.json_message(Kind.READY, READY))
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO))
    bench.frame(capture, 1)
    (given,) = bench.heard(worker)[-1:]
    bench.say(worker, done(given.ticket))
    bye = messages.json_message(Kind.BYE, {"reason": "\ud800" * 100_000}, totals=Totals(1, 0, 0, 1))
    assert Kind.GOODBYE in bench.say(capture, bye)
    assert '"reason":"capture ended"' in bench.journal.read(0).result()[0][-1]


def test_a_camera_is_captured_by_one_process_at_a_time(bench: Bench) -> None:
    first, second = bench.peer("frames"), bench.peer("frames")
    bench.say(first, messages.json_message(Kind.HELLO, HELLO))
    second.send(messages.json_message(Kind.HELLO, HELLO | {"incarnation": "b", "pid": 2}))
    (refused,) = bench.heard(second)
    assert refused.kind is Kind.REFUSED
    assert refused.body()["reason"].startswith("camera door is captured by process 1 already: stop that one")
    assert bench.it.status()["cameras"]["door"]["pid"] == 1


def test_workers_of_other_labels_are_refused(bench: Bench) -> None:
    first, second = bench.peer("work"), bench.peer("work")
    assert bench.say(first, messages.json_message(Kind.READY, READY)) == [Kind.WELCOME]
    second.send(messages.json_message(Kind.READY, READY | {"name": "2", "labels": ["good", "bad"]}))
    (refused,) = bench.heard(second)
    assert refused.kind is Kind.REFUSED
    assert "the model of worker 2 has the labels good, bad" in refused.body()["reason"]


def test_workers_of_other_measures_are_refused(bench: Bench) -> None:
    first, second, third = bench.peer("work"), bench.peer("work"), bench.peer("work")
    measures = {"measures": {"valence": [-1, 1]}}
    assert bench.say(first, messages.json_message(Kind.READY, READY | measures)) == [Kind.WELCOME]
    second.send(messages.json_message(Kind.READY, READY | {"name": "2"}))
    (refused,) = bench.heard(second)
    assert refused.body()["reason"] == (
        "the model of worker 2 has no measures, the other workers' has the measures valence from -1 to 1: give all "
        "workers the same --model"
    )
    assert bench.say(third, messages.json_message(Kind.READY, READY | measures | {"name": "3"})) == [Kind.WELCOME]


def test_workers_of_other_smoother_settings_are_refused(bench: Bench) -> None:
    first, second, third = bench.peer("work"), bench.peer("work"), bench.peer("work")
    own = {"smoother": {"tau": 0.4, "enter": 0.7}}
    assert bench.say(first, messages.json_message(Kind.READY, READY | own)) == [Kind.WELCOME]
    second.send(messages.json_message(Kind.READY, READY | {"name": "2"}))
    (refused,) = bench.heard(second)
    assert refused.body()["reason"] == (
        "the model of worker 2 has no smoother settings of its own, the other workers' has the smoother settings "
        "enter = 0.7, tau = 0.4: give all workers the same --model"
    )
    assert bench.say(third, messages.json_message(Kind.READY, READY | own | {"name": "3"})) == [Kind.WELCOME]


@pytest.mark.parametrize(
    "change",
    [
        {"labels": []},
        {"labels": None},
        {"pid": "x"},
        {"host": None, "pid": None},
        {"measures": ["valence"]},
        {"measures": {"valence": 1}},
        {"measures": {"valence": [1, -1]}},
        {"measures": {str(number): [0, 1] for number in range(65)}},
        {"smoother": [0.4]},
        {"smoother": {"tau": "slow"}},
        {"smoother": {"tau": 0}},
        {"smoother": {"taus": 0.4}},
        {"smoother": {"enter": 0.2}},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_ready_with_an_invalid_field_is_refused(bench: Bench, change: dict[str, Any]) -> None:
    worker = bench.peer("work")
    assert bench.say(worker, messages.json_message(Kind.READY, READY | change)) == []
    assert bench.it.status()["workers"] == {}


def test_workers_of_one_name_on_two_machines_work_side_by_side_and_on_one_machine_the_first_stays(
    bench: Bench,
) -> None:
    here, there, newer = (bench.peer("work") for _ in range(3))
    bench.say(here, messages.json_message(Kind.READY, READY))
    bench.say(there, messages.json_message(Kind.READY, READY | {"host": "there"}))
    assert set(bench.it.status()["workers"]) == {"1 at here", "1 at there"}
    assert bench.say(here, messages.json_message(Kind.PING)) == []
    newer.send(messages.json_message(Kind.READY, READY | {"pid": 2}))
    (refused,) = bench.heard(newer)
    assert refused.kind is Kind.REFUSED
    assert refused.body()["reason"] == "worker 1 is process 1 already: stop that one, or choose another --name"
    assert bench.say(newer, messages.json_message(Kind.PING)) == [Kind.WHO]
    here.close()
    assert bench.say(newer, messages.json_message(Kind.READY, READY | {"pid": 2})) == [Kind.WELCOME]
    assert {name: known["pid"] for name, known in bench.it.status()["workers"].items()} == {
        "1 at here": 2,
        "1 at there": 1,
    }


def test_a_worker_that_says_ready_twice_keeps_its_frame(bench: Bench) -> None:
    capture, worker = bench.peer("frames"), bench.peer("work")
    bench.say(worker, messages.json_message(Kind.READY, READY))
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO))
    bench.frame(capture, 1)
    (given,) = bench.heard(worker)[-1:]
    assert given.kind is Kind.FRAME
    assert bench.say(worker, messages.json_message(Kind.READY, READY)) == []
    bench.say(worker, done(given.ticket))
    assert bench.ledger() == {"captured": 1, "done": 1}


def test_a_frame_that_crosses_with_a_worker_s_leave_is_given_to_another(bench: Bench) -> None:
    capture, leaving, other = bench.peer("frames"), bench.peer("work"), bench.peer("work")
    bench.say(leaving, messages.json_message(Kind.READY, READY))
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO | {"policy": "drop_oldest"}))
    bench.frame(capture, 1)
    bench.say(leaving, messages.json_message(Kind.BYE))
    other.send(messages.json_message(Kind.READY, READY | {"name": "2"}))
    welcome, given = bench.heard(other)
    assert (welcome.kind, given.kind) == (Kind.WELCOME, Kind.FRAME)
    bench.say(other, done(given.ticket))
    assert bench.ledger() == {"captured": 1, "done": 1}


def test_a_worker_that_may_not_open_memory_gets_the_frame_again_and_once(bench: Bench) -> None:
    capture, worker = bench.peer("frames"), bench.peer("work")
    here = {"memory": shared.identity(), "pid": os.getpid()}
    bench.say(worker, messages.json_message(Kind.READY, READY | here))
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO | here | {"policy": "drop_oldest"}))
    ring = shared.Ring(2, 3)
    pixels = np.array([[[1, 2, 3]]], np.uint8)
    fields: dict[str, Any] = {"seq": 1, "time": 1, "totals": Totals(1, 0, 0, 1), "width": 1, "height": 1}
    bench.say(capture, messages.pack(Message(Kind.FRAME, ring.put(pixels, 0, 1), encoding=Encoding.SHARED, **fields)))
    (given,) = bench.heard(worker)[-1:]
    assert given.encoding is Encoding.SHARED
    worker.send(messages.json_message(Kind.REJECT, {"reason": "memory"}, ticket=given.ticket))
    (again,) = bench.heard(worker)
    assert (again.encoding, again.payload, again.seq) == (Encoding.RAW, bytes([1, 2, 3]), 1)
    assert bench.ledger() == {"captured": 1, "in_flight": 1}
    bench.say(worker, messages.json_message(Kind.REJECT, {"reason": "memory"}, ticket=again.ticket))
    assert bench.ledger() == {"captured": 1, "rejected": 1, "rejected_corrupt": 1}, (
        "the worker got the pixels the second time"
    )
    ring.close()


def test_observations_are_made_only_while_somebody_listens(bench: Bench) -> None:
    capture, worker = bench.peer("frames"), bench.peer("work")
    bench.say(worker, messages.json_message(Kind.READY, READY))
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO))
    listeners = [bench._transport.subscribe(bench.address, "observations", ["door/"]) for _ in range(3)]

    def reached(seq: int) -> list[int]:
        """Process a frame, and return how many observations each listener got."""
        bench.frame(capture, seq)
        bench.say(worker, done(bench.heard(worker)[-1].ticket))
        return [count(one) for one in listeners]

    def count(listener: Peer) -> int:
        return len(list(iter(lambda: listener.receive(0), None)))

    bench.it.turn(0.01)
    list(map(count, listeners))  # each new subscriber is sent the present observations
    assert reached(1) == [1, 1, 1]
    for one in listeners[:2]:
        one.close()
    assert reached(2)[2] == 1
    listeners[2].close()
    bench.it.turn(0.01)
    assert not bench.it._publisher._listened["observations"]


def test_frames_are_published_unchanged_or_with_their_pixels(bench: Bench) -> None:
    capture, worker = bench.peer("frames"), bench.peer("work")
    bench.say(worker, messages.json_message(Kind.READY, READY | {"memory": shared.identity()}))
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO | {"memory": shared.identity(), "pid": os.getpid()}))
    ring, image = shared.Ring(2, 12), np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    def passed_on(seq: int, listeners: list[Peer]) -> list[list[Message]]:
        """Process a frame, and return the messages that each listener got."""
        totals = Totals(seq, 0, 0, seq)
        frame = Message(Kind.FRAME, ring.put(image, seq % 2, seq), 0, seq, 0, seq, 0, totals, 2, 2, Encoding.SHARED)
        bench.say(capture, messages.pack(frame))
        bench.say(worker, done(bench.heard(worker)[-1].ticket))
        return [
            [messages.unpack(parts[1:]) for parts in iter(lambda one=one: one.receive(0), None)] for one in listeners
        ]

    there, elsewhere, other = (
        bench._transport.subscribe(bench.address, "preview", [topic]) for topic in ("door/", "/door/", "gate/")
    )
    ((lying,), (whole,), nothing) = passed_on(1, [there, elsewhere, other])
    assert (lying.encoding, lying.seq, lying.epoch) == (Encoding.SHARED, 1, 1)
    assert (whole.encoding, whole.payload, whole.seq, whole.epoch) == (Encoding.RAW, image.tobytes(), 1, 1)
    assert nothing == []
    for one in (there, elsewhere):
        one.close()
    assert passed_on(2, [other]) == [[]]
    assert bench.it._publisher._listened["preview"] == {b"gate/"}
    ring.close()


# Slow links


def offer(frames: int) -> list[Any]:
    return messages.json_message(Kind.OFFER, {"full": True}, totals=Totals(frames + 1, 0, 0, frames))


def test_a_capture_whose_frame_is_on_its_way_is_silent_only_without_a_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path / "events.db", silence=0.1)
    try:
        capture, rival = bench.peer("frames"), bench.peer("frames")
        bench.say(capture, messages.json_message(Kind.HELLO, HELLO))
        bench.say(bench.peer("work"), messages.json_message(Kind.READY, READY))
        assert Kind.NEXT in bench.say(capture, offer(0))
        wait_for(lambda: Kind.PING in [message.kind for message in bench.heard(capture)], "a PING to the capture")
        rival.send(messages.json_message(Kind.HELLO, HELLO | {"incarnation": "b"}))
        (refused,) = bench.heard(rival)
        assert refused.kind is Kind.REFUSED
        assert refused.body()["silent"] is True, "the rival may be needed soon, so it keeps asking"
        assert "is silent" not in caplog.text
        capture.close()
        wait_for(lambda: bench.it.turn(0.01) or "camera door is silent" in caplog.text, "the warning")
    finally:
        bench.close()


def test_on_one_machine_no_frame_is_long_on_its_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path / "events.db", silence=0.1, networked=False, transfer=1e9)
    try:
        capture = bench.peer("frames")
        bench.say(capture, messages.json_message(Kind.HELLO, HELLO))
        bench.say(bench.peer("work"), messages.json_message(Kind.READY, READY))
        assert Kind.NEXT in bench.say(capture, offer(0))
        wait_for(lambda: bench.it.turn(0.01) or "camera door is silent" in caplog.text, "the warning")
    finally:
        bench.close()


def test_a_capture_that_was_not_asked_is_silent_after_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path / "events.db", silence=0.1)
    try:
        capture = bench.peer("frames")
        bench.say(capture, messages.json_message(Kind.HELLO, HELLO))
        assert bench.say(capture, offer(0)) == [], "there is no worker"
        wait_for(lambda: bench.it.turn(0.01) or "camera door is silent" in caplog.text, "the warning")
    finally:
        bench.close()


def test_a_capture_is_told_how_long_its_last_frame_took(bench: Bench) -> None:
    capture, worker = bench.peer("frames"), bench.peer("work")
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO))
    bench.say(worker, messages.json_message(Kind.READY, READY))
    ages = []
    for seq in (1, 2):
        capture.send(offer(seq - 1))
        ages += [message.age for message in bench.heard(capture) if message.kind is Kind.NEXT]
        begin = time.monotonic()
        time.sleep(0.05)
        bench.frame(capture, seq)
        took = time.monotonic() - begin
        bench.say(worker, done(seq))
    assert ages[0] == 0, "there was none"
    assert 0.05e6 <= ages[1] <= 2e6 * took


def test_a_slow_link_to_a_worker_is_told_of_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    capture, worker = bench.peer("frames"), bench.peer("work")
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO))
    bench.say(worker, messages.json_message(Kind.READY, READY))
    for seq in (1, 2):
        bench.say(capture, offer(seq - 1))
        bench.frame(capture, seq)
        time.sleep(SLOW)
        bench.say(worker, messages.json_message(Kind.PING, ticket=seq))
        bench.say(worker, done(seq))
    assert bench.ledger()["done"] == 2
    assert caplog.text.count("the link to worker 1 at here is slow: a frame of 0 kB takes") == 1


def test_no_frame_is_lost_with_a_worker_that_left_before_any_was_sent(bench: Bench) -> None:
    capture, first, gone, last = bench.peer("frames"), *(bench.peer("work") for _ in range(3))
    bench.say(capture, messages.json_message(Kind.HELLO, HELLO | {"policy": "drop_oldest"}))
    bench.say(first, messages.json_message(Kind.READY, READY | {"frames": 2}))
    for seq in (1, 2):
        bench.frame(capture, seq)
    assert [message.kind for message in bench.heard(first)].count(Kind.FRAME) == 2
    bench.say(first, messages.json_message(Kind.BYE))
    gone.send(messages.json_message(Kind.READY, READY | {"name": "2", "frames": 2}))
    gone.close()
    bench.it.turn(0.01)
    assert bench.it.status()["workers"] == {}, "it was assigned both frames, and could be sent neither"
    assert bench.ledger() == {"captured": 2, "in_flight": 2}
    answers = bench.say(last, messages.json_message(Kind.READY, READY | {"name": "3", "frames": 2}))
    assert answers.count(Kind.FRAME) == 2
    for peer in (capture, first, last):
        peer.close()
