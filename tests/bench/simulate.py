"""Simulate fleets in virtual time, and print how soon partitions and captures are back.

    python tests/bench/simulate.py 200

runs 200 seeds of each profile of faults, in some ten minutes, and checks every promise. Then it lets a machine die in
200 quiet cells.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fleet.profiles import PROFILES
from fleet.world import Profile, World

QUIET = Profile(hosts=(4, 4), partitions=(32, 32), cameras=(40, 40), workers=(8, 8))
STEP = 0.02
"""Seconds between two looks at a cell after a death."""


def death(seed: int) -> tuple[list[float], list[float]]:
    """Let one of four machines die; return the seconds until each of its partitions and captures is back."""
    world = World(seed, QUIET)
    world.engine.lost = 0.0  # no other fault
    world.loop.run(40.0 + world.numbers.random())
    victim = world.numbers.choice(list(world.nodes.values()))
    partitions = {one.partition for one in victim.member.partitions if one.state == "owned"}
    captures = {peer for peer in world.captures if peer.node is victim}
    world.kill(victim, quietly=True)
    world.off.add(victim.host)
    died = world.loop.now
    owned, welcome = [], []
    while partitions or captures:
        world.loop.run(world.loop.now + STEP)
        for number in [number for number in partitions if world.owner(number)]:
            partitions.remove(number)
            owned.append(world.loop.now - died)
        for peer in [peer for peer in captures if peer.node and peer.node is not victim]:
            captures.remove(peer)
            welcome.append(world.loop.now - died)
    return owned, welcome


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, help="seeds of each profile")
    runs = parser.parse_args().runs
    print("| faults | runs | faults tried | owners changed | unowned at most | captures away at most |")
    print("|---|---|---|---|---|---|")
    for name, profile in PROFILES.items():
        faults: Counter[str] = Counter()
        moves, unowned, away = 0, 0.0, 0.0
        for seed in range(runs):
            world = World(seed, profile)
            world.run()
            faults += world.faults
            moves += len(world.moves)
            unowned, away = max(unowned, world.worst["found"]), max(away, world.worst["joined"])
        print(f"| {name} | {runs} | {faults.total()} | {moves} | {unowned:.1f} s | {away:.1f} s |", flush=True)
    owned, welcome = [], []
    for seed in range(runs):
        some, others = death(seed)
        owned += some
        welcome += others
    print("\n| after a machine's death | median | 95% below | longest |\n|---|---|---|---|")
    for what, times in (("partition owned", owned), ("capture welcome", welcome)):
        late = statistics.quantiles(times, n=20)[-1]
        print(f"| {what} | {statistics.median(times):.1f} s | {late:.1f} s | {max(times):.1f} s |")


if __name__ == "__main__":
    main()
