"""Who claims, who gives, and who gets a worker."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.fleet import balance
from fer_stream.fleet.records import Place, Status


def test_orphans_spread_over_all_and_the_order_of_the_others_stays() -> None:
    members = [f"a{n}" for n in range(8)]
    orders = {number: balance.claimants(number, members) for number in range(256)}
    first = Counter(order[0] for order in orders.values())
    assert min(first.values()) > 256 / 8 / 2
    for number, order in orders.items():
        assert balance.claimants(number, members[1:]) == [member for member in order if member != "a0"]


def test_the_heaviest_is_paired_with_the_lightest() -> None:
    loads = {"a": 5.0, "b": 1.0, "c": 3.0, "d": 9.0}
    assert balance.partners("d", loads) == ("b", "b", 0)
    assert balance.partners("a", loads) == ("c", "b", 1)
    assert balance.partners("b", loads) == ("d", "b", 3)


def test_a_gift_halves_the_difference_as_well_as_it_can() -> None:
    assert balance.gift(10.0, 2.0, {0: 1.0, 1: 4.0, 2: 6.0}) == 1
    assert balance.gift(10.0, 2.0, {0: 6.5}) is None, "the other one would be the heavier one by as much"
    assert balance.gift(2.0, 10.0, {0: 1.0}) is None
    assert balance.gift(2.0, 1.0, {}) is None


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_gifts_come_to_an_end_with_even_loads(seed: int) -> None:
    numbers = random.Random(seed)
    members = [f"a{n}" for n in range(numbers.randint(2, 20))]
    weights = {number: numbers.uniform(1, 80) for number in range(256)}
    owners = {number: numbers.choice(members[: numbers.randint(1, len(members))]) for number in weights}
    for _ in range(2 * 256):
        loads = {m: sum(weights[n] for n in weights if owners[n] == m) for m in members}
        if not balance.uneven(loads):
            break
        giver, taker = max(members, key=lambda m: loads[m]), min(members, key=lambda m: loads[m])
        given = balance.gift(loads[giver], loads[taker], {n: weights[n] for n in weights if owners[n] == giver})
        assert given is not None, "256 partitions are fine enough"
        owners[given] = taker
    assert max(loads.values()) - min(loads.values()) <= 0.2 * sum(loads.values()) / len(loads)


def status(cameras: int, workers: int, idle: int) -> Status:
    return Status(Place("tcp://x"), 8.0 + cameras, workers, idle, cameras=cameras)


def test_an_idle_worker_goes_where_none_is_idle() -> None:
    statuses = {"a": status(10, 8, 3), "b": status(10, 2, 0), "c": status(10, 3, 0), "d": status(10, 4, 1)}
    assert balance.spare_worker("a", statuses) == "b", "who has the fewest workers for its load"
    assert balance.spare_worker("d", statuses) is None, "who has one idle keeps it"
    assert balance.spare_worker("b", statuses) is None


def test_two_givers_do_not_give_to_one() -> None:
    statuses = {"a": status(10, 8, 3), "b": status(10, 8, 2), "c": status(10, 1, 0)}
    assert balance.spare_worker("a", statuses) == "c"
    assert balance.spare_worker("b", statuses) is None
    statuses["d"] = status(10, 2, 0)
    assert balance.spare_worker("b", statuses) == "d"


def test_without_idle_workers_a_newcomer_gets_some() -> None:
    statuses = {"a": status(20, 8, 0), "b": status(10, 0, 0)}
    assert balance.spare_worker("a", statuses) == "b"
    statuses = {"a": status(20, 6, 0), "b": status(10, 2, 0)}
    assert balance.spare_worker("a", statuses) is None, "near enough"
    statuses = {"a": status(20, 1, 0), "b": status(10, 0, 0)}
    assert balance.spare_worker("a", statuses) is None, "the last one stays"


def test_who_has_no_camera_needs_no_worker() -> None:
    assert balance.spare_worker("a", {"a": status(10, 8, 4), "b": status(0, 0, 0)}) is None


@pytest.mark.parametrize("workers", [0, 1])
def test_who_has_no_camera_gives_its_last_worker(workers: int) -> None:
    statuses = {"a": status(0, 1, 1), "b": status(1, workers, 0)}
    assert balance.spare_worker("a", statuses) == "b"
    assert balance.spare_worker("b", statuses) is None


def test_who_has_cameras_and_no_worker_gets_one_of_two_busy_ones() -> None:
    statuses = {"a": status(1, 2, 0), "b": status(1, 0, 0)}
    assert balance.spare_worker("a", statuses) == "b"


@given(st.integers(0, 2**32))
def test_workers_come_to_rest(seed: int) -> None:
    """With demand that stays the same, no worker moves for ever."""
    numbers = random.Random(seed)
    busy = {f"a{n}": numbers.randint(0, 12) for n in range(numbers.randint(2, 8))}
    workers = {member: numbers.randint(0, 12) for member in busy}
    for _ in range(100):
        statuses = {m: status(busy[m], workers[m], max(0, workers[m] - busy[m])) for m in busy}
        moves = [(m, to) for m in busy if (to := balance.spare_worker(m, statuses)) is not None]
        if not moves:
            return
        assert len({to for _, to in moves}) == len(moves)
        for giver, to in moves:
            workers[giver] -= 1
            workers[to] += 1
    raise AssertionError(f"workers still move: {workers} for {busy}")
