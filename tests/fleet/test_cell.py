"""A whole cell: 10,000 cameras by name, 256 partitions, 16 aggregators; one joins, one dies, one leaves."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fleet.nodes import Node
from fleet.world import STILL, Profile, World

from fer_stream.fleet.balance import UNEVEN
from fer_stream.fleet.liveness import T
from fer_stream.fleet.partitions import MOST, partition

if TYPE_CHECKING:
    from scale import Scale

CAMERAS = 10_000
SIZES = Counter(partition(f"cam-{n}", MOST) for n in range(CAMERAS))
LOADS = {number: 1.0 + cameras for number, cameras in SIZES.items()}
PROFILE = Profile(hosts=(16, 16), partitions=(MOST, MOST), cameras=(0, 0), workers=(0, 0))


class CellNode(Node):
    """An aggregator with a table of loads instead of captures."""

    def tick(self) -> None:
        self.member.report(LOADS, CAMERAS, 0, 0)
        self.do(self.member.tick(self.clock()))
        if not self.dead:
            self.later(0.1, self.tick)


class Cell(World):
    counted = MOST  # moves before: each partition was taken once

    def loads(self) -> Counter[str]:
        loads = Counter({node.me: 0.0 for node in self.nodes.values() if not node.dead})
        for number, (_, part) in self.engine.parts.items():
            loads[part.owner] += LOADS[number]
        return loads

    def even(self) -> bool:
        loads = self.loads()
        return max(loads.values()) - min(loads.values()) <= 0.2 * sum(loads.values()) / len(loads)

    def moves_until_still(self) -> int:
        """Let time pass until nothing has moved for a while; return how many moves there were since the last call."""
        before = -1
        while before < len(self.moves):
            before = len(self.moves)
            self.loop.run(self.loop.now + STILL)
        moved, self.counted = len(self.moves) - self.counted, len(self.moves)
        return moved

    def settle(self, most: float) -> float:
        """Let time pass until the loads are even; return the seconds."""
        begun = self.loop.now
        while not self.even():
            self.loop.run(self.loop.now + 1.0)
            assert self.loop.now - begun < most, sorted(self.loads().values())
        return self.loop.now - begun


def test_loads_are_within_a_fifth_after_every_change(scale: Scale) -> None:
    assert UNEVEN < 0.2
    for seed in range(scale.of(1, 20)):
        cell = Cell(seed, PROFILE, CellNode)
        cell.loop.run(10.0)
        assert len(cell.moves) == MOST
        cell.settle(60)
        assert cell.moves_until_still() < MOST / 3, "the hash has spread them well already"

        cell.start("new")
        cell.loop.run(cell.loop.now + 2)
        cell.settle(120)
        assert cell.moves_until_still() < 2 * MOST / 16, "a newcomer takes its share, and little else moves"

        victim = cell.nodes["h3"]
        cell.kill(victim, quietly=True)
        cell.loop.run(cell.loop.now + T + 1)
        cell.settle(60)
        assert cell.moves_until_still() < MOST / 3

        cell.nodes["h5"].member.leave()
        while not cell.nodes["h5"].dead:
            cell.loop.run(cell.loop.now + 1)
        cell.settle(60)
