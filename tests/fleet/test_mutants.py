"""The simulation finds wrong rules: each mutant breaks its property within some runs, in which the right rules hold."""

from __future__ import annotations

import pytest
from fleet.mutants import MUTANTS, Mutant
from fleet.world import World

RUNS = 150
"""Most runs until a mutant must have been found. Most need one."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_it_is_found(mutant: Mutant) -> None:
    with pytest.MonkeyPatch.context() as patch:
        profile, (error, first) = mutant(patch), MUTANTS[mutant]
        for seed in range(first, first + RUNS):
            try:
                World(seed, profile).run()
            except AssertionError as found:
                if error in str(found):
                    break
        else:
            pytest.fail(f"{mutant.__name__} is not found in {RUNS} runs")
    World(seed, profile).run()
