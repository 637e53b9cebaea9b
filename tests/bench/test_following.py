"""Following finds the same faces as a search of every frame, at a fraction of its cost; checked as a ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bench.following import compare, f1

if TYPE_CHECKING:
    from pathlib import Path

    from beside import Beside


def test_following_finds_the_same_faces_for_less(clip: Path) -> None:
    """One portrait is in view, and another one enters."""
    follows(clip, 0.97, 3.0)


@pytest.mark.parametrize(
    ("name", "least", "ratio"),
    [
        ("head-pose-face-detection-female-and-male.gif", 0.97, 3.4),
        ("classroom.gif", 0.94, 4.0),
        ("face-demographics-walking.gif", 0.94, 2.8),
    ],
)
def test_following_finds_the_same_real_faces_for_less(beside: Beside, name: str, least: float, ratio: float) -> None:
    """The ratios are those of docs/benchmarks.md."""
    follows(beside.clip(name), least, ratio)


def follows(film: Path, least: float, ratio: float) -> None:
    """Check that following has at least this F1, and costs at most twice as much as measured."""
    found = compare(film, depth=3)
    assert found.faces_f1 >= least
    assert found.late <= 0.25
    assert found.ratio >= ratio / 2


def test_f1_is_1_if_there_is_nothing_to_find() -> None:
    assert f1(0, 0, 0) == 1.0
    assert f1(3, 4, 2) == 1.0
