"""A long film takes no more memory than a short one, and its progress is printed."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from bench.long_film import loop, measure

if TYPE_CHECKING:
    from pathlib import Path

PAUSE = 10
"""Seconds between two lines of progress."""


def test_memory_does_not_grow_with_the_film(clip: Path, tmp_path: Path) -> None:
    """In two hours it grew by 2 MiB, and drawing the report took 104 MiB: docs/how-to/recordings.md."""
    film = tmp_path / "film.mp4"
    frames = loop(clip, film, 240)
    found = measure(film, tmp_path / "out", [])
    assert found.frames == frames == 3600
    assert median(found.tenths[5:]) < median(found.tenths[1:4]) + 10, f"MiB: {found.tenths}"
    assert found.peak < 450
    assert found.progress == sorted(found.progress)
    if found.seconds > 3 * PAUSE:
        assert found.progress, "a line every ten seconds"
        assert 0 < found.progress[0] < frames
