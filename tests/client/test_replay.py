"""Where a subscriber stands, what it asks for, and when it asks again."""

from __future__ import annotations

from house import event
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.client.replay import FIRST, LEAST, LONGEST, MOST, OPEN, PATIENCE, SLOW, TRICKLE, Position, Questions
from fer_stream.plugins import Standing


def test_what_follows_is_taken_and_what_was_seen_is_not() -> None:
    position = Position(3)
    assert position.published(event(4))
    assert not position.published(event(4))
    assert not position.published(event(2))
    assert position.published(event(5))
    assert position.cursor == 5


def test_after_a_hole_nothing_is_taken_until_it_is_filled() -> None:
    position = Position(0)
    assert position.published(event(1))
    assert not position.published(event(3))
    assert not position.published(event(4))
    assert position.cursor == 1
    assert [int(e.cursor) for e in position.replayed([event(n) for n in (1, 2, 3, 4)], 4)] == [2, 3, 4]
    assert position.published(event(5))


def test_an_answer_reaches_past_what_is_not_of_this_camera() -> None:
    position = Position(0, "door")
    assert position.replayed([event(2, sequence=1), event(5, sequence=2)], 9) != []
    assert position.cursor == 9
    assert position.published(event(12, sequence=3)), "its camera's next one, whatever the others had in between"
    assert not position.published(event(15, sequence=5))
    assert position.replayed([], 4) == []
    assert position.cursor == 12


def test_of_all_cameras_a_lost_event_of_another_one_is_noticed() -> None:
    """The door's sequence goes on, but cursor 3 was the gate's."""
    position = Position(0)
    assert position.published(event(1, "door", 1))
    assert position.published(event(2, "gate", 1))
    assert not position.published(event(4, "door", 2))
    new = position.replayed([event(3, "gate", 2), event(4, "door", 2)], 4)
    assert [int(e.cursor) for e in new] == [3, 4]


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
            answer = [e for e in mine if after < int(e.cursor) <= upto][: data.draw(st.integers(1, 5))]
            reached = int(answer[-1].cursor) if answer and data.draw(st.booleans()) else upto
            answer = [e for e in mine if after < int(e.cursor) <= reached]
            seen.extend(int(e.cursor) for e in position.replayed(answer, reached))

    for one in mine:
        fate = data.draw(st.sampled_from(["comes", "comes", "lost", "twice"]))
        for _ in range({"comes": 1, "lost": 0, "twice": 2}[fate]):
            if position.published(one):
                seen.append(int(one.cursor))
            elif int(one.cursor) > position.cursor:
                ask(int(one.cursor))
    ask(len(log))
    assert seen == [int(e.cursor) for e in mine if int(e.cursor) > start]


# Questions

UP = Standing(up=True, life=0, received=0)
DOWN = Standing(up=False, life=0, received=0)


def test_a_question_is_asked_again_after_silence_that_grows() -> None:
    questions = Questions(7)
    now, waits = 0.0, []
    for _ in range(8):
        assert questions.due(now, UP) == 0
        questions.ask(5, now, UP)
        wait = questions.due(now, UP)
        assert questions.due(now + wait / 2, UP) == wait / 2
        waits.append(wait)
        now += wait
    assert waits[0] == PATIENCE
    assert waits[:4] == sorted(set(waits[:4]))
    assert waits[-1] == LONGEST
    assert questions.silent(now) == now


def test_bytes_that_arrive_are_no_silence_but_heartbeats_alone_are() -> None:
    questions = Questions(7)
    questions.ask(0, 0.0, UP)
    assert questions.due(1.9, UP._replace(received=TRICKLE)) == PATIENCE, "a long answer is on its way"
    assert questions.silent(1.9) == 0
    assert questions.due(3.8, UP._replace(received=TRICKLE + 100)) < 0.2
    assert questions.due(4.0, UP._replace(received=TRICKLE + 200)) == 0


def test_a_question_that_its_connection_took_along_is_asked_again_at_once() -> None:
    questions = Questions(7)
    questions.ask(0, 0.0, UP)
    assert questions.due(0.1, UP._replace(life=1)) == 0
    again = questions.ask(0, 0.1, DOWN._replace(life=1))
    assert again.size == FIRST, "it says nothing about the link's speed"
    assert questions.due(100.0, DOWN._replace(life=1)) > 0, "it waits for a connection, and is sent then"
    assert questions.due(101.0, UP._replace(life=1)) > 0


def test_late_answers_count_and_strange_ones_do_not() -> None:
    questions = Questions(7)
    first = questions.ask(5, 0.0, UP)
    second = questions.ask(5, 2.0, UP)
    assert questions.answered(first.ticket, 100, 3.0) == first
    assert questions.answered(first.ticket, 100, 3.0) is None, "twice"
    assert questions.answered(second.ticket + 1, 100, 3.0) is None
    questions.settle()
    assert questions.due(3.0, UP) == 0
    assert questions.answered(second.ticket, 100, 9.0) == second
    third = questions.ask(6, 9.0, UP)
    questions.forget()
    assert questions.answered(third.ticket, 100, 9.5) is None


def test_old_questions_are_forgotten_when_there_are_many() -> None:
    questions = Questions(7)
    asked = [questions.ask(0, float(n), UP) for n in range(OPEN + 3)]
    assert [question for question in asked if questions.answered(question.ticket, 0, 99.0)] == asked[3:]


def answer(questions: Questions, seconds: float, share: float = 1.0, now: float = 0.0) -> int:
    """Ask, have it answered after some seconds with this share of the bytes, and return how many were asked for."""
    question = questions.ask(0, now, UP)
    questions.answered(question.ticket, round(share * question.size), now + seconds)
    questions.settle()
    return question.size


def test_more_is_asked_for_where_answers_are_quick_and_less_where_they_are_slow() -> None:
    questions = Questions(7)
    assert [answer(questions, 0.01) for _ in range(6)] == [FIRST * 2**n for n in range(4)] + [FIRST * 16, MOST]
    assert answer(questions, SLOW - 1) == answer(questions, SLOW + 1) == MOST
    for _ in range(10):
        answer(questions, SLOW + 1)
    assert answer(questions, 0.1, share=0.1) == LEAST
    assert answer(questions, 0.1) == LEAST, "a short answer was quick because it is short"
    assert answer(questions, 0.1) == 2 * LEAST


def test_after_a_slow_answer_the_next_one_has_time() -> None:
    questions = Questions(7)
    answer(questions, 9.0)
    questions.ask(0, 10.0, UP)
    assert questions.due(10.0, UP) == 18.0
