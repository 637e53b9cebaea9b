"""Following must find what a search of every frame finds, for a fraction of its cost: a ratio, not a time."""

from __future__ import annotations

import beside
import pytest
from bench.following import compare, f1


@pytest.mark.parametrize(
    ("clip", "least", "ratio"),
    [
        ("head-pose-face-detection-female-and-male.gif", 0.97, 3.4),
        ("classroom.gif", 0.94, 4.0),
        ("face-demographics-walking.gif", 0.94, 2.8),
    ],
)
def test_following_finds_the_same_faces_for_less(clip: str, least: float, ratio: float) -> None:
    found = compare(beside.clip(clip), depth=3)
    assert found.faces_f1 >= least
    assert found.late <= 0.25
    assert found.ratio >= ratio / 2, "half of what docs/benchmarks.md says"


def test_f1_is_1_where_there_is_nothing_to_find() -> None:
    assert f1(0, 0, 0) == 1.0
    assert f1(3, 4, 2) == 1.0
