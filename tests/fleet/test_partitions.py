"""Partitions: the hash is fixed for ever, and spreads any names evenly."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fer_stream.fleet.partitions import MOST, partition

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("camera", "count", "expected"),
    [("demo", 1, 0), ("demo", 16, 0), ("demo", 256, 32), ("door", 256, 145), ("site-12.cam-3", 256, 219)],
)
def test_it_never_changes(camera: str, count: int, expected: int) -> None:
    """Compare ``printf demo | b2sum --length 64``, which ends in 0x20."""
    assert partition(camera, count) == expected


@pytest.mark.parametrize("count", [0, -1, MOST + 1])
def test_a_wrong_number_of_partitions(count: int) -> None:
    with pytest.raises(ValueError, match="a cell has 1 to 256 partitions"):
        partition("demo", count)


@pytest.mark.parametrize(
    ("name", "cameras"),
    [
        (lambda n: f"cam-{n}", 1_000_000),
        (lambda n: f"site-{n // 64:05}.door-{n % 64}", 100_000),
        (lambda n: f"{random.Random(n).getrandbits(64):016x}", 10_000),
    ],
    ids=["numbers", "sites", "random"],
)
def test_names_are_spread_like_dice(name: Callable[[int], str], cameras: int) -> None:
    """Chi-squared with 255 degrees of freedom has mean 255 and standard deviation 22.6: six of them either way."""
    sizes = Counter(partition(name(n), MOST) for n in range(cameras))
    mean = cameras / MOST
    chi = sum((sizes[number] - mean) ** 2 / mean for number in range(MOST))
    assert 120 < chi < 391
    if cameras == 1_000_000:
        assert max(sizes.values()) < 1.1 * mean
        assert min(sizes.values()) > 0.9 * mean
