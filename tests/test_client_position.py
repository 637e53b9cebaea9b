"""Where a subscriber stands: what is new to it, and what may be missing."""

from __future__ import annotations

from house import event
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.journal import gap
from fer_stream.replay import Position
from fer_stream.subscription import wanted


def test_what_follows_is_taken_and_what_was_seen_is_not() -> None:
    position = Position(3)
    assert position.live(event(4))
    assert not position.live(event(4))
    assert not position.live(event(2))
    assert position.live(event(5))
    assert position.cursor == 5


def test_after_a_hole_nothing_is_taken_until_it_is_filled() -> None:
    position = Position(0)
    assert position.live(event(1))
    assert not position.live(event(3))
    assert not position.live(event(4))
    assert position.cursor == 1
    assert [e.cursor for e in position.replayed([event(n) for n in (1, 2, 3, 4)], 4)] == [2, 3, 4]
    assert position.live(event(5))


def test_an_answer_reaches_past_what_is_not_of_this_camera() -> None:
    position = Position(0, "door")
    assert position.replayed([event(2, sequence=1), event(5, sequence=2)], 9) != []
    assert position.cursor == 9
    assert position.live(event(12, sequence=3)), "its camera's next one, whatever the others had in between"
    assert not position.live(event(15, sequence=5))
    assert position.replayed([], 4) == []
    assert position.cursor == 12


def test_of_all_cameras_a_lost_event_of_another_one_is_noticed() -> None:
    """The door's sequence goes on, but cursor 3 was the gate's."""
    position = Position(0)
    assert position.live(event(1, "door", 1))
    assert position.live(event(2, "gate", 1))
    assert not position.live(event(4, "door", 2))
    new = position.replayed([event(3, "gate", 2), event(4, "door", 2)], 4)
    assert [e.cursor for e in new] == [3, 4]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(["door", "gate"]), max_size=40), st.data())
def test_whatever_is_lost_or_repeated_on_the_way_every_event_is_seen_once(
    cameras: list[str], data: st.DataObject
) -> None:
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
            answer = [e for e in mine if after < e.cursor <= upto][: data.draw(st.integers(1, 5))]
            reached = answer[-1].cursor if answer and data.draw(st.booleans()) else upto
            answer = [e for e in mine if after < e.cursor <= reached]
            seen.extend(e.cursor for e in position.replayed(answer, reached))

    for one in mine:
        fate = data.draw(st.sampled_from(["comes", "comes", "lost", "twice"]))
        for _ in range({"comes": 1, "lost": 0, "twice": 2}[fate]):
            if position.live(one):
                seen.append(one.cursor)
            elif one.cursor > position.cursor:
                ask(one.cursor)
    ask(len(log))
    assert seen == [e.cursor for e in mine if e.cursor > start]


def test_a_gap_concerns_everybody() -> None:
    assert wanted(gap(0, 5, "retention"), ["face"])
    assert wanted(event(1), [])
    assert wanted(event(1), ["camera"])
    assert wanted(event(1), ["face", "camera.reset"])
    assert not wanted(event(1), ["camera.online"])
    assert not wanted(event(1), ["cam"])
