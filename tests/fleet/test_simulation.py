"""The fleet's promises hold in simulated cells, whatever fails: `fleet.world` has the promises and the faults.

The short form runs some seeds of each profile; `make soak` runs a thousand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleet.profiles import PROFILES
from fleet.world import Profile, World

if TYPE_CHECKING:
    from scale import Scale


@pytest.mark.parametrize("name", PROFILES)
def test_promises_hold(name: str, scale: Scale) -> None:
    for seed in range(scale.of(4, 1000)):
        try:
            World(seed, PROFILES[name]).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed} of {name!r}: {error}") from error


def test_a_supervisor_that_saw_its_aggregator_die_does_not_wait_for_the_lease() -> None:
    for seed in range(3):
        world = World(seed, Profile(hosts=(3, 3), partitions=(16, 16)))
        world.engine.lost = 0.0  # a lost answer would cost a second
        world.loop.run(30.0)
        victim = world.nodes["h1"]
        lost = [one.partition for one in victim.member.partitions if one.state == "owned"]
        assert lost
        world.kill(victim)
        world.loop.run(31.0)
        world.start("h1", former=victim.me)
        world.loop.run(31.5)
        assert {world.owner(number) for number in lost} == {world.nodes["h1"]}


def test_a_run_depends_on_its_seed_alone() -> None:
    def moves(seed: int) -> list[tuple[float, int, str]]:
        world = World(seed, PROFILES["everything"])
        world.run()
        return world.moves

    assert moves(1) == moves(1) != moves(2)
