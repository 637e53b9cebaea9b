"""Which machine captures which camera. A pure function, which every machine of a cell computes for itself.

A camera that is pinned belongs to its machine, and to no other if that one is not there. All others are spread by
weighted rendezvous hashing with bounded loads. Each pair of a camera and a machine has a *cost*, a random number that
depends on their names alone, and is smaller on average for a machine with more capacity. The pairs are taken from the
cheapest on: a camera gets the machine if it has none yet and the machine has room. There are two rounds, and room in a
round is limited: first up to the lower bound of each machine's load, then up to the upper one.

So loads differ little, and few cameras move when a machine comes or goes: those that are without a machine or take the
newcomer, and some that make room for others.
"""

from __future__ import annotations

import heapq
import math
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

SLACK = 0.08
"""Greatest difference of a machine's load from its share, as a part of its share, but for rounding."""


def assign(cameras: Mapping[str, str], machines: Mapping[str, float]) -> dict[str, str]:
    """Return the machine of each camera; a camera without one is left out.

    Args:
        cameras: the machine that each camera is pinned to, or an empty text for any.
        machines: the capacity of each machine that is there, such as its number of cores; above 0.
    """
    found = {camera: machine for camera, machine in cameras.items() if machine in machines}
    free = sorted(camera for camera, machine in cameras.items() if not machine)
    names = sorted(machines)
    if not free or not names:
        return found
    pinned = dict.fromkeys(names, 0)
    for machine in found.values():
        pinned[machine] += 1
    weights = [machines[name] for name in names]
    share = _share(len(free), weights, [pinned[name] for name in names])
    least = [max(0, math.floor((1 - SLACK) * share * w) - pinned[name]) for name, w in zip(names, weights, strict=True)]
    most = [max(0, math.ceil((1 + SLACK) * share * w) - pinned[name]) for name, w in zip(names, weights, strict=True)]
    costs = _costs(free, names, np.array(weights))
    chosen = _match(range(len(free)), costs, least)
    rest = [number for number in range(len(free)) if number not in chosen]
    chosen |= _match(rest, costs, [high - low for low, high in zip(least, most, strict=True)])
    return found | {free[number]: names[place] for number, place in chosen.items()}


def _share(count: int, weights: Sequence[float], pinned: Sequence[int]) -> float:
    """Return the load per capacity of all machines that take any of ``count`` cameras besides their pinned ones.

    A machine whose pinned cameras are more than its share takes none, and the others share the rest.
    """
    order = sorted(range(len(weights)), key=lambda place: pinned[place] / weights[place])
    capacity, cameras, level = 0.0, float(count), 0.0
    for rank, place in enumerate(order):
        capacity += weights[place]
        cameras += pinned[place]
        level = cameras / capacity
        if rank + 1 < len(order) and level <= pinned[order[rank + 1]] / weights[order[rank + 1]]:
            break
    return level


def _costs(cameras: Sequence[str], machines: Sequence[str], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cost of each pair, float64 ``[cameras, machines]``, distributed exponentially (rate: ``weights``)."""
    mixed = _hashes(cameras)[:, None] ^ _hashes(machines)[None, :]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # SplitMix64's finalizer
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    costs: NDArray[np.float64] = -np.log((mixed >> np.uint64(11)).astype(np.float64) / 2**53 + 2**-54) / weights
    return costs


def _hashes(names: Iterable[str]) -> NDArray[np.uint64]:
    hashes = (int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") for name in names)
    return np.fromiter(hashes, np.uint64)


def _match(cameras: Iterable[int], costs: NDArray[np.float64], rooms: Sequence[int]) -> dict[int, int]:
    """Return the place of each camera that gets one.

    Each camera asks for the cheapest place, then for the next one; a full place sends its dearest camera on. As both
    sides look at the same costs, this is the same as taking all pairs from the cheapest on, and quicker.
    """
    taken: list[list[tuple[float, int]]] = [[] for _ in rooms]
    asking = list(cameras)
    order = np.argsort(costs, axis=1)
    turn = dict.fromkeys(asking, 0)
    while asking:
        camera = asking.pop()
        while turn[camera] < len(rooms):
            place = int(order[camera, turn[camera]])
            turn[camera] += 1
            if not rooms[place]:
                continue
            offer = (-float(costs[camera, place]), camera)
            if len(taken[place]) < rooms[place]:
                heapq.heappush(taken[place], offer)
                break
            camera = heapq.heappushpop(taken[place], offer)[1]
    return {camera: place for place, kept in enumerate(taken) for _, camera in kept}
