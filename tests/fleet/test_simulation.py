"""The fleet's promises hold in simulated cells, whatever fails: `fleet.world` has the promises and the faults.

The short form runs some seeds of each profile; `make soak` runs thousands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleet.world import Profile, World

if TYPE_CHECKING:
    from scale import Scale

ALL = {
    "crash": 3,
    "machine": 2,
    "pause": 3,
    "isolate": 2,
    "stall": 1,
    "mute": 1,
    "outage": 2,
    "leave": 1,
    "join": 1,
    "jump": 1,
}

PROFILES = {
    "everything": Profile(ALL),
    "everything, often": Profile(ALL, gap=1.5),
    "leaders of the engine die": Profile({"outage": 1, "stall": 1, "jump": 1}),
    "aggregators die and leaders die": Profile({"crash": 1, "machine": 1, "outage": 1}),
    "paused beyond the lease": Profile({"pause": 2, "doze": 1}, gap=6.0),
    "cut off": Profile({"isolate": 1, "mute": 1, "stall": 1}),
    "come and go": Profile({"leave": 1, "join": 1}),
}


@pytest.mark.parametrize("name", PROFILES)
def test_promises_hold(name: str, scale: Scale) -> None:
    for seed in range(scale.of(4, 1000)):
        world = World(seed, PROFILES[name])
        try:
            world.run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed} of {name!r}: {error}") from error


def test_a_run_depends_on_its_seed_alone() -> None:
    def moves(seed: int) -> list[tuple[float, int, str]]:
        world = World(seed, PROFILES["everything"])
        world.run()
        return world.moves

    assert moves(1) == moves(1) != moves(2)
