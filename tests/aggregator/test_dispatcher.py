"""Assignment of frames to workers and the ledger: one test for each rule."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from arrivals import arrived

from fer_stream.aggregator.dispatcher import Ask, Assign, Dispatcher, Fence, Release
from fer_stream.aggregator.ledger import Ledger
from fer_stream.protocol.messages import Totals
from fer_stream.settings.tree import DispatchSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fer_stream.aggregator.dispatcher import Command
    from fer_stream.settings.kinds import Policy

SETTINGS = DispatchSettings(deadline=2.0, max_age=1.0, silence=1.5, transfer=3.0)


class Desk:
    """A dispatcher with short calls for its input."""

    def __init__(self, depth: int = 4) -> None:
        self.it = Dispatcher(SETTINGS, depth)
        self.now = 0.0
        self.sent: Counter[str] = Counter()

    def join(self, camera: str = "door", policy: Policy = "drop_oldest", **told: int) -> list[Command]:
        return self.it.joined(camera, policy, Totals(), told, self.now)

    def offer(self, camera: str = "door", full: bool = True) -> list[Command]:
        sent = self.sent[camera]
        return self.it.offer(camera, Totals(captured=sent + full, sent=sent), full, self.now)

    def frame(self, camera: str = "door", refused: str = "") -> list[Command]:
        self.sent[camera] += 1
        sent = self.sent[camera]
        return self.it.frame(
            camera, arrived(sent, self.now), f"{camera} {sent}", Totals(sent, 0, 0, sent), self.now, refused
        )

    def done(self, assign: Command, outcome: Any = "done", reason: str = "") -> list[Command]:
        assert isinstance(assign, Assign)
        return self.it.done(assign.worker, assign.ticket, outcome, reason, f"of {assign.item.arrival.frame}", self.now)


def shown(commands: Iterable[Command]) -> list[str]:
    texts = []
    for command in commands:
        match command:
            case Ask(camera):
                texts.append(f"ask {camera}")
            case Assign(worker, _, item):
                texts.append(f"{worker} gets {item.camera} {item.arrival.frame}")
            case Fence(worker, reason):
                texts.append(f"fence {worker} {reason}")
            case Release(item):
                outcome = " ".join(filter(None, (item.outcome, item.reason)))
                texts.append(f"release {item.camera} {item.arrival.frame} {outcome}")
    return texts


def states(desk: Desk) -> dict[str, tuple[str, int]]:
    return {name: (credit.state, credit.done) for name, credit in desk.it.workers.items()}


# Input from captures


def test_a_capture_is_asked_only_when_a_worker_is_idle() -> None:
    desk = Desk()
    assert desk.join() == []
    assert desk.offer() == []
    assert shown(desk.it.ready("w1", 0)) == ["ask door"]
    assert desk.offer() == [], "the capture was asked already"
    assert shown(desk.frame()) == ["w1 gets door 1"]
    assert desk.offer() == [], "no worker is idle"


def test_a_question_that_was_lost_is_asked_again() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    assert shown(desk.offer()) == ["ask door"]
    desk.now = 0.4
    assert desk.offer() == []
    desk.now = 0.6
    assert shown(desk.offer()) == ["ask door"]


def test_a_capture_that_does_not_answer_keeps_no_worker_waiting() -> None:
    desk = Desk()
    desk.join("door")
    desk.join("gate")
    desk.it.ready("w1", 0)
    assert shown(desk.offer("door")) == ["ask door"]
    assert desk.offer("gate") == []
    assert shown(desk.it.tick(0.6)) == ["ask gate"]


def test_the_camera_longest_unserved_is_asked_first() -> None:
    desk = Desk()
    for camera in ("a", "b", "c"):
        desk.join(camera)
        desk.offer(camera)
    served = []
    (ask,) = desk.it.ready("w1", 0)
    for desk.now in range(1, 10):
        assert isinstance(ask, Ask)
        served.append(ask.camera)
        (assign,) = desk.frame(ask.camera)
        for camera in ("a", "b", "c"):
            desk.offer(camera)
        *_, ask = desk.done(assign)
    assert served == ["a", "b", "c"] * 3


def test_no_more_than_depth_frames_of_one_camera_are_under_way() -> None:
    desk = Desk(depth=2)
    desk.join()
    for worker in ("w1", "w2", "w3"):
        desk.it.ready(worker, 0)
    assigns = []
    for _ in range(2):
        assert shown(desk.offer()) == ["ask door"]
        assigns += desk.frame()
    assert desk.offer() == []
    assert len(desk.it.cameras["door"].unresolved) == 2
    assert shown(desk.done(assigns[1])) == [], "the older one is not resolved: this one still counts"
    assert shown(desk.done(assigns[0])) == ["release door 1 done", "release door 2 done", "ask door"]


def test_a_camera_that_was_silent_is_asked_only_after_a_new_offer() -> None:
    desk = Desk()
    desk.join()
    desk.offer()
    desk.it.silent("door")
    assert desk.it.ready("w1", 0) == []
    assert shown(desk.offer()) == ["ask door"]


# Workers


def test_the_worker_longest_idle_gets_the_frame() -> None:
    desk = Desk()
    desk.join()
    for desk.now, worker in enumerate(["w2", "w1", "w3"]):
        desk.it.ready(worker, desk.now)
    got = []
    for desk.now in range(5, 11):
        (assign,) = (command for command in desk.frame() if isinstance(command, Assign))
        got.append(assign.worker)
        desk.done(assign)
    assert got == ["w2", "w1", "w3"] * 2


def test_a_worker_holds_one_frame_at_a_time() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    (first,) = desk.frame()
    assert desk.frame() == []
    assert states(desk) == {"w1": ("busy", 0)}
    commands = desk.done(first)
    assert shown(commands) == ["release door 1 done", "w1 gets door 2"]
    desk.done(commands[1])
    assert states(desk) == {"w1": ("idle", 2)}


def test_frames_are_released_in_order_with_their_results() -> None:
    desk = Desk()
    desk.join()
    for worker in ("w1", "w2", "w3"):
        desk.it.ready(worker, 0)
    one, two, three = (desk.frame()[0] for _ in range(3))
    assert desk.done(three) == []
    assert desk.done(two, "rejected", "corrupt") == []
    released = [command.item for command in desk.done(one) if isinstance(command, Release)]
    assert [(item.arrival.frame, item.outcome, item.reason, item.result) for item in released] == [
        (1, "done", "", "of 1"),
        (2, "rejected", "corrupt", "of 2"),
        (3, "done", "", "of 3"),
    ]
    assert desk.it.cameras["door"].ledger().as_dict() == {
        "captured": 3,
        "done": 2,
        "superseded": 0,
        "rejected": 1,
        "rejected_corrupt": 1,
        "expired": 0,
        "lost_worker": 0,
        "lost_link": 0,
        "in_flight": 0,
    }


def test_a_late_or_invented_answer_changes_nothing() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    (assign,) = desk.frame()
    assert desk.it.done("w1", assign.ticket + 1, "done", "", None, 0) == []
    assert desk.it.done("nobody", assign.ticket, "done", "", None, 0) == []
    assert shown(desk.done(assign)) == ["release door 1 done"]
    assert desk.done(assign) == []
    assert desk.it.cameras["door"].ledger().done == 1


def test_live_a_dead_worker_s_frame_is_lost() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    (assign,) = desk.frame()
    assert shown(desk.it.gone("w1", "ended", 0)) == ["fence w1 ended", "release door 1 lost_worker"]
    assert desk.it.gone("w1", "ended", 0) == []
    assert desk.done(assign) == []
    assert desk.it.cameras["door"].ledger().lost_worker == 1


def test_under_wait_a_dead_worker_s_frame_goes_to_another_one_once() -> None:
    desk = Desk()
    desk.join(policy="wait")
    desk.it.ready("w1", 0)
    desk.frame()
    desk.it.ready("w2", 0)
    assert shown(desk.it.gone("w1", "silent", 0)) == ["fence w1 silent", "w2 gets door 1"]
    desk.frame()
    assert shown(desk.it.gone("w2", "silent", 0)) == ["fence w2 silent", "release door 1 rejected poisoned"]
    assert shown(desk.it.ready("w3", 0)) == ["w3 gets door 2"]
    assert desk.it.cameras["door"].ledger().rejected == {"poisoned": 1}


def test_a_worker_that_cannot_be_reached_does_not_count_as_a_try() -> None:
    for policy in ("wait", "drop_oldest"):
        desk = Desk()
        desk.join(policy=policy)  # type: ignore[arg-type]
        desk.frame()
        for number in range(5):
            (assign,) = desk.it.ready(f"w{number}", 0)
            assert isinstance(assign, Assign)
            commands = desk.it.unreachable(f"w{number}", [assign.ticket], 0)
            assert shown(commands) == [f"fence w{number} unreachable"]
        commands = desk.it.ready("w9", 0)
        assert shown(commands) == ["w9 gets door 1"]
        assert shown(desk.done(commands[0])) == ["release door 1 done"]


def test_a_frame_that_a_worker_cannot_open_is_given_out_again() -> None:
    for policy in ("wait", "drop_oldest"):
        desk = Desk()
        desk.join(policy=policy)  # type: ignore[arg-type]
        desk.frame()
        commands = desk.it.ready("w1", 0)
        assign = commands[0]
        assert isinstance(assign, Assign)
        assert desk.it.returned("w1", assign.ticket + 1, 0) == [], "an answer to another frame"
        for _ in range(5):
            commands = desk.it.returned("w1", assign.ticket, 0)
            assert shown(commands) == ["w1 gets door 1"]
            assign = commands[0]
            assert isinstance(assign, Assign)
            assert assign.item.tries == 1
        assert desk.it.returned("w2", assign.ticket, 0) == []
        assert shown(desk.done(assign)) == ["release door 1 done"]


def test_a_deadline_begins_when_the_worker_has_the_frame() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("far", 0)
    (assign,) = desk.frame()
    assert isinstance(assign, Assign)
    for now in (1.0, 2.0, 2.5):
        assert desk.it.heard("far", now)
        assert desk.it.tick(now) == [], "the frame is on its way"
    assert desk.it.pinged("far", assign.ticket + 1, 0, 2.5) is None, "not this frame"
    assert desk.it.pinged("far", assign.ticket, 0, 2.5) == 2.5
    assert desk.it.pinged("far", assign.ticket, 0, 3.0) is None, "the transfer was confirmed before"
    for now in (3.0, 4.0, 4.5):
        assert desk.it.heard("far", now)
        assert desk.it.tick(now) == []
    assert shown(desk.it.tick(4.6)) == ["fence far deadline", "release door 1 lost_worker"]


def test_a_frame_that_never_arrives_is_given_up_with_its_worker() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("far", 0)
    desk.frame()
    for now in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert desk.it.heard("far", now)
        assert desk.it.tick(now) == []
    assert shown(desk.it.tick(5.1)) == ["fence far deadline", "release door 1 lost_worker"]


def test_a_frame_that_was_on_its_way_when_the_connection_broke_gets_no_more_time() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("far", 0)
    desk.frame()
    assert desk.it.heard("far", 0.5)
    assert desk.it.pinged("far", 0, 1, 0.5) is None
    for now in (1.5, 2.5):
        assert desk.it.heard("far", now)
        assert desk.it.pinged("far", 0, 1, now) is None
        assert desk.it.tick(now) == []
    assert shown(desk.it.tick(2.6)) == ["fence far deadline", "release door 1 lost_worker"]


def test_the_time_of_a_request_is_known_until_the_frame_arrives() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    assert desk.it.cameras["door"].asked is None
    desk.now = 1.5
    assert shown(desk.offer()) == ["ask door"]
    assert desk.it.cameras["door"].asked == 1.5
    desk.frame()
    assert desk.it.cameras["door"].asked is None


# Workers that take several frames at a time


def test_a_worker_gets_as_many_frames_as_it_takes_and_the_emptiest_one_is_first() -> None:
    desk = Desk()
    for camera in ("a", "b", "c", "d"):
        desk.join(camera)
        desk.offer(camera)
    assert shown(desk.it.ready("many", 0, 3)) == ["ask a", "ask b", "ask c"]
    assert shown(desk.frame("a")) == ["many gets a 1"]
    assert shown(desk.it.ready("one", 1.0)) == ["ask d"], "three were asked for already"
    assert shown(desk.frame("b")) == ["one gets b 1"], "it holds none"
    assert shown(desk.frame("c")) == ["many gets c 1"]
    assert shown(desk.frame("d")) == ["many gets d 1"]
    assert {name: credit.room for name, credit in desk.it.workers.items()} == {"many": 0, "one": 0}
    desk.offer("a")
    assert desk.it.tick(1.0) == [], "no worker has room"


def test_a_dead_worker_loses_all_its_frames_and_each_is_accounted_for() -> None:
    desk = Desk()
    for camera in ("a", "b"):
        desk.join(camera)
    desk.it.ready("many", 0, 4)
    for camera in ("a", "b", "a"):
        desk.frame(camera)
    commands = desk.it.gone("many", "silent", 0)
    assert shown(commands) == [
        "fence many silent",
        "release a 1 lost_worker",
        "release b 1 lost_worker",
        "release a 2 lost_worker",
    ]
    assert desk.it.cameras["a"].ledger().lost_worker == 2


def test_under_wait_a_worker_holds_one_frame_so_that_only_the_guilty_one_is_poisoned() -> None:
    desk = Desk()
    for camera in ("film", "tape"):
        desk.join(camera, "wait")
    desk.it.ready("many", 0, 8)
    assert shown(desk.frame("film")) == ["many gets film 1"]
    assert desk.frame("tape") == [], "it waits until the worker is idle"
    assert shown(desk.it.gone("many", "silent", 0)) == ["fence many silent"]
    assert shown(desk.it.ready("next", 0, 8)) == ["next gets film 1"], "it was asked for first"
    assert shown(desk.it.gone("next", "silent", 0)) == ["fence next silent", "release film 1 rejected poisoned"]
    (assign,) = desk.it.ready("last", 0, 8)
    assert shown([assign]) == ["last gets tape 1"]
    assert shown(desk.done(assign)) == ["release tape 1 done"]


def test_a_frame_under_wait_gets_its_turn_between_live_ones() -> None:
    desk = Desk()
    desk.join("film", "wait")
    desk.now = 0.5
    for camera in ("a", "b"):
        desk.join(camera)
    desk.it.ready("many", 0, 2)
    desk.now = 1.0
    assigned = desk.frame("a")
    assert shown(assigned) == ["many gets a 1"]
    assert desk.frame("film") == [], "the worker must be idle"
    desk.now = 1.5
    assert desk.frame("b") == [], "although there is room, it is the film's turn"
    commands = desk.done(assigned[0])
    assert shown(commands) == ["release a 1 done", "many gets film 1"]
    assert shown(desk.done(commands[1])) == ["release film 1 done", "many gets b 1"]


def test_a_ping_confirms_all_frames_up_to_its_own() -> None:
    desk = Desk()
    for camera in ("a", "b", "c"):
        desk.join(camera)
    desk.it.ready("far", 0, 4)
    tickets = []
    for camera in ("a", "b", "c"):
        (assign,) = desk.frame(camera)
        assert isinstance(assign, Assign)
        tickets.append(assign.ticket)
    assert desk.it.pinged("far", tickets[1], 0, 1.0) == 1.0
    assert desk.it.pinged("far", tickets[0], 0, 1.0) is None, "it was confirmed with the later one"
    assert desk.it.pinged("far", tickets[2], 0, 1.2) == pytest.approx(0.2), "its transfer began after the others'"
    desk.it.heard("far", 3.1)
    assert shown(desk.it.tick(3.1))[0] == "fence far deadline", "the deadline of the first two"


def test_frames_that_were_not_sent_or_not_begun_wait_again_in_their_order() -> None:
    for end in (
        lambda it, tickets: it.ended("many", 0),
        lambda it, tickets: it.unreachable("many", tickets, 0),
    ):
        desk = Desk()
        desk.join()
        desk.it.ready("many", 0, 4)
        assigned = [desk.frame()[0] for _ in range(3)]
        tickets = [assign.ticket for assign in assigned if isinstance(assign, Assign)]
        assert len(end(desk.it, tickets)) == 1
        commands = desk.it.ready("next", 0, 2)
        assert shown(commands) == ["next gets door 1", "next gets door 2"]
        assert shown(desk.done(commands[0])) == ["release door 1 done", "next gets door 3"]


def test_silence_and_deadlines_end_a_worker() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("slow", 0)
    (assign,) = desk.frame()
    assert isinstance(assign, Assign)
    assert desk.it.pinged("slow", assign.ticket, 0, 0) == 0
    desk.it.ready("mute", 0)
    for now in (1.0, 1.4):
        assert desk.it.heard("slow", now)
        assert desk.it.tick(now) == []
    assert shown(desk.it.tick(1.6)) == ["fence mute silent"]
    assert not desk.it.heard("mute", 1.6)
    assert desk.it.heard("slow", 1.9)
    assert desk.it.tick(2.0) == []
    assert shown(desk.it.tick(2.1)) == ["fence slow deadline", "release door 1 lost_worker"]


def test_a_live_frame_that_nobody_took_expires_and_a_waiting_one_does_not() -> None:
    desk = Desk()
    desk.join("live")
    desk.join("file", policy="wait")
    desk.frame("live")
    desk.frame("file")
    assert desk.it.tick(1.0) == []
    assert shown(desk.it.tick(1.1)) == ["release live 1 expired"]
    assert shown(desk.it.ready("w1", 1.1)) == ["w1 gets file 1"]


def test_a_frame_can_be_refused_at_once() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    assert shown(desk.frame(refused="corrupt")) == ["release door 1 rejected corrupt"]
    assert desk.it.cameras["door"].reported() == {"rejected_corrupt": 1}


def test_of_two_dead_workers_the_second_is_not_given_the_first_one_s_frame() -> None:
    """Both are found silent in the same tick, and only one of them held the frame."""
    desk = Desk()
    desk.join(policy="wait")
    desk.it.ready("w1", 0)
    desk.frame()
    desk.it.ready("w2", 0)
    assert shown(desk.it.tick(1.6)) == ["fence w1 silent", "fence w2 silent"]
    commands = desk.it.ready("w3", 1.6)
    assert shown(commands) == ["w3 gets door 1"]
    assert shown(desk.done(commands[0])) == ["release door 1 done"]


# Totals and takeovers


def test_what_was_sent_and_is_not_here_is_lost_on_the_link() -> None:
    desk = Desk()
    desk.join()
    desk.it.offer("door", Totals(captured=9, superseded=3, rejected=1, sent=4), full=True, now=0)
    ledger = desk.it.cameras["door"].ledger()
    assert (ledger.captured, ledger.superseded, ledger.rejected, ledger.lost_link) == (9, 3, {"capture": 1}, 4)
    assert ledger.in_flight == 1
    assert ledger.balanced()


def test_a_new_capture_goes_on_with_the_camera_s_ledger() -> None:
    desk = Desk()
    desk.join()
    desk.it.ready("w1", 0)
    (assign,) = desk.frame()
    desk.it.offer("door", Totals(captured=4, superseded=2, sent=1), full=True, now=0)
    desk.sent.clear()
    desk.join()
    assert desk.it.cameras["door"].ledger().lost_link == 1, "the frame in the old capture's slot"
    assert desk.it.cameras["door"].reported() == {}
    desk.done(assign)
    assert desk.it.cameras["door"].reported() == {}, "that frame is of the earlier capture"
    ledger = desk.it.cameras["door"].ledger()
    assert (ledger.captured, ledger.done, ledger.superseded, ledger.in_flight) == (4, 1, 2, 0)


def test_a_new_aggregator_takes_reported_outcomes_from_the_capture_and_loses_the_rest() -> None:
    desk = Desk()
    told = {"done": 5, "lost_worker": 1, "rejected_corrupt": 2}
    desk.it.joined("door", "wait", Totals(captured=12, superseded=1, sent=10), told, 0)
    ledger = desk.it.cameras["door"].ledger()
    assert (ledger.done, ledger.lost_worker, ledger.rejected, ledger.lost_link) == (5, 1, {"corrupt": 2}, 2)
    assert ledger.in_flight == 1
    assert ledger.balanced()
    assert desk.it.cameras["door"].reported() == told | {"lost_link": 2}


def test_leaving_twice_counts_once() -> None:
    desk = Desk()
    desk.join()
    desk.it.offer("door", Totals(captured=3, superseded=1, rejected=1), full=True, now=0)
    for _ in range(2):
        desk.it.left("door")
        assert desk.it.cameras["door"].ledger().as_dict()["lost_link"] == 1
        assert desk.it.cameras["door"].ledger().captured == 3


def test_a_ledger_that_does_not_add_up_is_not_balanced() -> None:
    assert Ledger().balanced()
    assert not Ledger(captured=1).balanced()
    assert Ledger(captured=2, rejected={"corrupt": 1}, in_flight=1).balanced()
    original = Ledger(rejected={"corrupt": 1})
    original.copy().count("rejected", "corrupt")
    assert original.rejected == {"corrupt": 1}


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (3, 1), (2, 3)])
def test_what_is_not_done_yet_is_never_more_than_workers_and_cameras(workers: int, most: int) -> None:
    """Frames wait in the one slot of their capture and not in the dispatcher."""
    desk = Desk(depth=8)
    for camera in ("a", "b"):
        desk.join(camera)
    for number in range(workers):
        desk.it.ready(f"w{number}", 0, most)
    assigned: list[Command] = []
    numbers = random.Random(1)
    for desk.now in (i / 20 for i in range(400)):
        for camera in ("a", "b"):
            for command in desk.offer(camera):
                if isinstance(command, Ask):
                    assigned += [c for c in desk.frame(command.camera) if isinstance(c, Assign)]
        under_way = sum(len(desk.it.cameras[camera].unresolved) for camera in ("a", "b"))
        assert len(assigned) <= workers * most
        assert under_way <= 16
        for number in range(workers):
            desk.it.heard(f"w{number}", desk.now)
        if assigned and numbers.random() < 0.5:
            more = desk.done(assigned.pop(numbers.randrange(len(assigned))))
            for command in more:
                if isinstance(command, Ask):
                    assigned += [c for c in desk.frame(command.camera) if isinstance(c, Assign)]


def test_pixels_are_dropped_once_a_frame_is_resolved_even_if_older_frames_delay_its_release() -> None:
    dispatcher = Dispatcher(DispatchSettings(), 4)
    dispatcher.joined("door", "wait", Totals(), {}, 0.0)
    for name in ("w1", "w2"):
        dispatcher.ready(name, 0.0)
    assigns = []
    for seq in (1, 2, 3):
        assigns += dispatcher.frame("door", arrived(seq, 0.0), f"pixels {seq}", Totals(seq, 0, 0, seq), 0.0)
    first, second = (command for command in assigns if isinstance(command, Assign))
    assert len(dispatcher.cameras["door"].waiting) == 1
    dispatcher.done(second.worker, second.ticket, "done", "", None, 0.1)
    assert not dispatcher.cameras["door"].waiting
    assert (second.item.frame, second.item.arrival.frame) == (None, 2)
    assert first.item.frame == "pixels 1"
