"""The fleet's promises hold in simulated cells, whatever fails: `fleet.world` has the promises and the faults.

The short form runs some seeds of each profile; `make soak` runs a thousand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleet.profiles import PROFILES
from fleet.world import World

if TYPE_CHECKING:
    from scale import Scale


@pytest.mark.parametrize("name", PROFILES)
def test_promises_hold(name: str, scale: Scale) -> None:
    for seed in range(scale.of(4, 1000)):
        try:
            World(seed, PROFILES[name]).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed} of {name!r}: {error}") from error


def test_a_run_depends_on_its_seed_alone() -> None:
    def moves(seed: int) -> list[tuple[float, int, str]]:
        world = World(seed, PROFILES["everything"])
        world.run()
        return world.moves

    assert moves(1) == moves(1) != moves(2)
