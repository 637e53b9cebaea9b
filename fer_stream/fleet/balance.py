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
"""Idle workers from which an aggregator gives one to an aggregator that has none idle. It keeps one."""

SHORT = 1.5
"""Factor by which the workers per load of two aggregators must differ, after the move, if neither has an idle one."""


def claimants(partition: int, members: Iterable[str]) -> list[str]:
    """Return aggregators in the order in which they claim an orphaned partition (rendezvous hashing).

    The order of the others does not change when one joins or leaves, and the partitions of a dead one spread over all.
    """
    return sorted(members, key=lambda member: blake2b(f"{partition} {member}".encode(), digest_size=8).digest())


def gift(me: str, loads: Mapping[str, float], weights: Mapping[int, float]) -> tuple[int, str] | None:
    """Return the partition that this aggregator should give away, and to whom; ``None``: nothing to improve.

    The heaviest aggregator gives to the lightest, the second heaviest to the second lightest, and so on, so that an
    aggregator receives from one at a time.

    Args:
        me: this aggregator's id.
        loads: the load of each aggregator that lives and stays, by id; with this one's.
        weights: the load of each partition that this aggregator can give.
    """
    partner = _partner(me, sorted(loads, key=lambda member: (loads[member], member)))
    if partner is None:
        return None
    difference = loads[me] - loads[partner]
    if difference <= UNEVEN * sum(loads.values()) / len(loads):
        return None
    fitting = [
        (abs(weight - difference / 2), number) for number, weight in weights.items() if weight <= FITS * difference
    ]
    return (min(fitting)[1], partner) if fitting else None


def spare_worker(me: str, statuses: Mapping[str, Status]) -> str | None:
    """Return the aggregator to which this one should give a worker, or ``None``.

    Args:
        me: this aggregator's id.
        statuses: of each aggregator that lives and stays, with this one's.
    """
    needy = sorted((wealth(s), member) for member, s in statuses.items() if not s.idle and s.load > 0)
    rich = sorted(((-s.idle, -wealth(s), member) for member, s in statuses.items() if s.idle >= SPARE))
    givers = [member for _, _, member in rich]
    if me in givers and givers.index(me) < len(needy):
        return needy[givers.index(me)][1]
    if givers or not needy:
        return None
    poorest, richest = needy[0][1], max((wealth(s), member) for member, s in statuses.items())[1]
    mine, other = statuses[me], statuses[poorest]
    after = (mine.workers - 1) * other.load >= SHORT * (other.workers + 1) * mine.load
    return poorest if me == richest != poorest and mine.workers > 1 and after else None


def wealth(status: Status) -> float:
    """Return an aggregator's workers per load."""
    return status.workers / max(status.load, 1.0)


def _partner(me: str, ascending: list[str]) -> str | None:
    rank = len(ascending) - 1 - ascending.index(me)
    return ascending[rank] if rank < len(ascending) // 2 else None
