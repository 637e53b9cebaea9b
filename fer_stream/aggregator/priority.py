"""A priority queue whose members can change their rank or leave: a heap with lazy deletion."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
RankT = TypeVar("RankT", tuple[float, str], tuple[float, int], tuple[int, float, str])

SPARE = 16
"""The heap is rebuilt when it has more than two entries per member plus this many."""


class PriorityQueue(Generic[KeyT, RankT]):
    """Keys in order of rank, lowest first. Ranks must be unique among the members.

    `put` and `discard` leave outdated entries in the heap; `first` drops those it meets. Each operation costs
    O(log n) amortised.
    """

    def __init__(self) -> None:
        self._ranks: dict[KeyT, RankT] = {}
        self._heap: list[tuple[RankT, KeyT]] = []

    def __len__(self) -> int:
        return len(self._ranks)

    def __contains__(self, key: KeyT) -> bool:
        return key in self._ranks

    def put(self, key: KeyT, rank: RankT) -> None:
        """Add a key, or change its rank."""
        if self._ranks.get(key) == rank:
            return
        self._ranks[key] = rank
        if len(self._heap) > 2 * len(self._ranks) + SPARE:
            self._heap = [(known, member) for member, known in self._ranks.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (rank, key))

    def discard(self, key: KeyT) -> None:
        """Remove a key if it is a member."""
        self._ranks.pop(key, None)

    def first(self) -> tuple[KeyT, RankT] | None:
        """Return the key of the lowest rank, with its rank, or ``None`` if there is no member."""
        heap = self._heap
        while heap:
            rank, key = heap[0]
            if self._ranks.get(key) == rank:
                return key, rank
            heapq.heappop(heap)
        return None
