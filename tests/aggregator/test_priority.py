"""A priority queue gives what sorting would give, whatever was changed before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fer_stream.aggregator.priority import PriorityQueue

CHANGES = st.lists(st.tuples(st.sampled_from("abcde"), st.none() | st.integers(0, 3)), max_size=200)


@given(CHANGES)
def test_the_first_is_the_one_of_lowest_rank(changes: list[tuple[str, int | None]]) -> None:
    queue: PriorityQueue[str, tuple[float, str]] = PriorityQueue()
    plain: dict[str, tuple[float, str]] = {}
    for key, since in changes:
        if since is None:
            queue.discard(key)
            plain.pop(key, None)
        else:
            plain[key] = (float(since), key)
            queue.put(key, plain[key])
        assert len(queue) == len(plain)
        assert (key in queue) == (key in plain)
        assert queue.first() == min(plain.items(), key=lambda item: item[1], default=None)


def test_members_that_never_came_first_are_not_kept_when_they_leave() -> None:
    """The heap is rebuilt: otherwise a camera that offers and withdraws without end would fill the memory."""
    alive = []

    class Key:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    queue: PriorityQueue[Key, tuple[float, int]] = PriorityQueue()
    for number in range(1000):
        key = Key()
        queue.put(key, (0.0, number))
        queue.discard(key)
    assert len(alive) < 100
