"""Which aggregator takes an orphaned partition, who gives one to whom, and who gives a worker. Pure functions.

Every aggregator computes with its own view of the others. Views may differ for a moment: then two claim one partition,
and the engine's compare-and-set decides, or nobody does, and the next in order claims a little later.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fer_stream.fleet.records import Status

UNEVEN = 0.15
"""Difference between two aggregators' loads, as a share of the mean load, from which the heavier one gives. The promise
is 20%; the rest is for loads that change before they are reported."""

FITS = 0.75
"""Greatest share of that difference that the given partition may weigh. Below 1, so that a move always brings the two
nearer to each other, and no partition ever comes back: the sum of the squared loads falls with each move."""

SPARE = 2
"""Idle workers from which an aggregator with cameras gives one to an aggregator that has none idle. It keeps one."""

SHORT = 1.5
"""Factor by which the workers per camera of two aggregators must differ, after the move, if neither has an idle one and
both have workers."""


def claimants(partition: int, members: Iterable[str]) -> list[str]:
    """Return aggregators in the order in which they claim an orphaned partition (rendezvous hashing).

    The order of the others does not change when one joins or leaves, and the partitions of a dead one spread over all.
    """
    return sorted(members, key=lambda member: blake2b(f"{partition} {member}".encode(), digest_size=8).digest())


def uneven(loads: Mapping[str, float]) -> bool:
    """Return whether the loads differ so much that a partition should move."""
    return max(loads.values()) - min(loads.values()) > UNEVEN * sum(loads.values()) / len(loads)


def partners(me: str, loads: Mapping[str, float]) -> tuple[str, str, int]:
    """Return the aggregator that this one is paired with, the lightest of all, and this one's rank (0: the heaviest).

    The heaviest is paired with the lightest, the second heaviest with the second lightest, and so on, so that each
    receives from one at a time.
    """
    ascending = sorted(loads, key=lambda member: (loads[member], member))
    index = ascending.index(me)
    return ascending[-1 - index], ascending[0], len(ascending) - 1 - index


def gift(mine: float, other: float, weights: Mapping[int, float]) -> int | None:
    """Return the partition that an aggregator with the load ``mine`` should give to one with the load ``other``.

    ``None``: none of those with these ``weights`` would bring them nearer to each other.
    """
    difference = mine - other
    fitting = [(abs(weight - difference / 2), n) for n, weight in weights.items() if weight <= FITS * difference]
    return min(fitting)[1] if fitting else None


def spare_worker(me: str, statuses: Mapping[str, Status]) -> str | None:
    """Return the aggregator to which this one should give a worker, or ``None``.

    An aggregator with cameras and without an idle worker gets one, those with the fewest workers per camera first: from
    one that has several idle, or no camera; otherwise from the one with the most workers per camera, if it can.

    Args:
        me: this aggregator's id.
        statuses: of each aggregator that lives and stays, with this one's.
    """
    needy = sorted((wealth(s), member) for member, s in statuses.items() if not s.idle and s.cameras)
    rich = sorted(
        (-s.idle, -wealth(s), member) for member, s in statuses.items() if s.idle >= (SPARE if s.cameras else 1)
    )
    givers = [member for _, _, member in rich]
    if me in givers and givers.index(me) < len(needy):
        return needy[givers.index(me)][1]
    if givers or not needy:
        return None
    poorest, richest = needy[0][1], max((wealth(s), member) for member, s in statuses.items())[1]
    mine, other = statuses[me], statuses[poorest]
    short = not other.workers or (mine.workers - 1) * other.cameras >= SHORT * (other.workers + 1) * mine.cameras
    return poorest if me == richest != poorest and mine.workers > 1 and short else None


def wealth(status: Status) -> float:
    """Return an aggregator's workers per camera."""
    return status.workers / max(status.cameras, 1)
