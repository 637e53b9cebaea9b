"""A subscriber's position, the size of its requests, and when it repeats them."""

from __future__ import annotations

from itertools import count

from house import event
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.client.replay import (
    FIRST,
    LEAST,
    LONGEST,
    MOST,
    OPEN,
    PATIENCE,
    SLOW,
    TRICKLE,
    Position,
    ReplayRequests,
)
from fer_stream.plugins import ConnectionState


def test_the_next_event_is_accepted_and_a_seen_one_is_not() -> None:
    position = Position(3)
    assert position.published(event(4))
    assert not position.published(event(4))
    assert not position.published(event(2))
    assert position.published(event(5))
    assert position.cursor == 5


def test_after_a_gap_no_event_is_accepted_until_it_is_filled() -> None:
    position = Position(0)
    assert position.published(event(1))
    assert not position.published(event(3))
    assert not position.published(event(4))
    assert position.cursor == 1
    assert [int(e.cursor) for e in position.replayed([event(n) for n in (1, 2, 3, 4)], 4)] == [2, 3, 4]
    assert position.published(event(5))


def test_an_answer_covers_the_events_of_other_cameras() -> None:
    position = Position(0, "door")
    assert position.replayed([event(2, sequence=1), event(5, sequence=2)], 9) != []
    assert position.cursor == 9
    assert position.published(event(12, sequence=3)), "the camera's next event, with events of others in between"
    assert not position.published(event(15, sequence=5))
    assert position.replayed([], 4) == []
    assert position.cursor == 12


def test_with_all_cameras_a_lost_event_of_another_camera_is_noticed() -> None:
    """The door's sequence continues, but cursor 3 was the gate's."""
    position = Position(0)
    assert position.published(event(1, "door", 1))
    assert position.published(event(2, "gate", 1))
    assert not position.published(event(4, "door", 2))
    new = position.replayed([event(3, "gate", 2), event(4, "door", 2)], 4)
    assert [int(e.cursor) for e in new] == [3, 4]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(["door", "gate"]), max_size=40), st.data())
def test_every_event_is_seen_once_with_any_losses_and_repetitions(cameras: list[str], data: st.DataObject) -> None:
    only = data.draw(st.sampled_from([None, "door"]))
    counts = {"door": 0, "gate": 0}
    log = []
    for cursor, camera in enumerate(cameras, 1):
        counts[camera] += 1
        log.append(event(cursor, camera, counts[camera]))
    mine = [e for e in log if only in (None, e.camera)]
    start = data.draw(st.integers(0, len(log)))
    position = Position(start, only)
    seen: list[int] = []

    def ask(upto: int) -> None:
        while position.cursor < upto:
            after = position.cursor
            answer = [e for e in mine if after < int(e.cursor) <= upto][: data.draw(st.integers(1, 5))]
            reached = int(answer[-1].cursor) if answer and data.draw(st.booleans()) else upto
            answer = [e for e in mine if after < int(e.cursor) <= reached]
            seen.extend(int(e.cursor) for e in position.replayed(answer, reached))

    for published in mine:
        fate = data.draw(st.sampled_from(["comes", "comes", "lost", "twice"]))
        for _ in range({"comes": 1, "lost": 0, "twice": 2}[fate]):
            if position.published(published):
                seen.append(int(published.cursor))
            elif int(published.cursor) > position.cursor:
                ask(int(published.cursor))
    ask(len(log))
    assert seen == [int(e.cursor) for e in mine if int(e.cursor) > start]


# ReplayRequests

UP = ConnectionState(up=True, number=0, received=0)
DOWN = ConnectionState(up=False, number=0, received=0)


def test_a_request_is_repeated_after_a_growing_timeout() -> None:
    requests = ReplayRequests(count(7))
    now, waits = 0.0, []
    for _ in range(8):
        assert requests.due(now, UP) == 0
        requests.ask(5, now, UP)
        wait = requests.due(now, UP)
        assert requests.due(now + wait / 2, UP) == wait / 2
        waits.append(wait)
        now += wait
    assert waits[0] == PATIENCE
    assert waits[:4] == sorted(set(waits[:4]))
    assert waits[-1] == LONGEST
    assert requests.silent(now) == now


def test_only_more_bytes_than_heartbeats_extend_the_timeout() -> None:
    requests = ReplayRequests(count(7))
    requests.ask(0, 0.0, UP)
    assert requests.due(1.9, UP._replace(received=TRICKLE)) == PATIENCE, "a long answer is arriving"
    assert requests.silent(1.9) == 0
    assert requests.due(3.8, UP._replace(received=TRICKLE + 100)) < 0.2
    assert requests.due(4.0, UP._replace(received=TRICKLE + 200)) == 0


def test_a_request_lost_with_its_connection_is_repeated_at_once() -> None:
    requests = ReplayRequests(count(7))
    requests.ask(0, 0.0, UP)
    assert requests.due(0.1, UP._replace(number=1)) == 0
    again = requests.ask(0, 0.1, DOWN._replace(number=1))
    assert again.size == FIRST, "a lost connection does not change the size"
    assert requests.due(100.0, DOWN._replace(number=1)) > 0, "the timeout starts with the next connection"
    assert requests.due(101.0, UP._replace(number=1)) > 0


def test_late_answers_are_used_and_unknown_ones_are_not() -> None:
    requests = ReplayRequests(count(7))
    first = requests.ask(5, 0.0, UP)
    second = requests.ask(5, 2.0, UP)
    assert requests.answered(first.ticket, 100, 3.0) == first
    assert requests.answered(first.ticket, 100, 3.0) is None, "twice"
    assert requests.answered(second.ticket + 1, 100, 3.0) is None
    requests.settle()
    assert requests.due(3.0, UP) == 0
    assert requests.answered(second.ticket, 100, 9.0) == second
    third = requests.ask(6, 9.0, UP)
    requests.forget()
    assert requests.answered(third.ticket, 100, 9.5) is None


def test_only_the_latest_requests_are_remembered() -> None:
    requests = ReplayRequests(count(7))
    asked = [requests.ask(0, float(n), UP) for n in range(OPEN + 3)]
    assert [request for request in asked if requests.answered(request.ticket, 0, 99.0)] == asked[3:]


def answer(requests: ReplayRequests, seconds: float, share: float = 1.0, now: float = 0.0) -> int:
    """Send a request that is answered after ``seconds`` with this share of its bytes; return the requested bytes."""
    request = requests.ask(0, now, UP)
    requests.answered(request.ticket, round(share * request.size), now + seconds)
    requests.settle()
    return request.size


def test_the_request_size_grows_with_fast_answers_and_shrinks_with_slow_ones() -> None:
    requests = ReplayRequests(count(7))
    assert [answer(requests, 0.01) for _ in range(6)] == [FIRST * 2**n for n in range(4)] + [FIRST * 16, MOST]
    assert answer(requests, SLOW - 1) == answer(requests, SLOW + 1) == MOST
    for _ in range(10):
        answer(requests, SLOW + 1)
    assert answer(requests, 0.1, share=0.1) == LEAST
    assert answer(requests, 0.1) == LEAST, "a short answer says nothing about the speed"
    assert answer(requests, 0.1) == 2 * LEAST


def test_after_a_slow_answer_the_timeout_is_longer() -> None:
    requests = ReplayRequests(count(7))
    answer(requests, 9.0)
    requests.ask(0, 10.0, UP)
    assert requests.due(10.0, UP) == 18.0
