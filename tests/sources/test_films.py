"""Videos of many kinds: every picture is read once, whole, upright, with square pixels, at its own time."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from films import Film, read_bars
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.media import open_source

if TYPE_CHECKING:
    from pathlib import Path

CODECS = {
    "mp4": ["libx264", "mpeg4"],
    "mkv": ["libx264", "mpeg4", "mjpeg", "mpeg2video"],
    "mov": ["libx264", "mjpeg"],
    "ts": ["libx264", "mpeg2video"],
    "avi": ["mpeg4", "mjpeg"],
}

ASPECTS = [Fraction(1), Fraction(2), Fraction(4, 3), Fraction(8, 9)]


@st.composite
def films(draw: st.DrawFn) -> Film:
    container = draw(st.sampled_from(sorted(CODECS)))
    codec = draw(st.sampled_from(CODECS[container]))
    rotation = draw(st.sampled_from([0, 90, 180, 270])) if container in ("mp4", "mov") else 0
    squeezed = not rotation and codec != "mpeg2video"  # MPEG-2 stores only a few aspect ratios
    return Film(
        container=container,
        codec=codec,
        width=2 * draw(st.integers(64, 200)),
        height=4 * draw(st.integers(24, 60)),
        rate=draw(st.sampled_from([10, 15, 24, 25, 30, 50])),
        count=draw(st.integers(6, 30)),
        rotation=rotation,
        aspect=draw(st.sampled_from(ASPECTS)) if squeezed else Fraction(1),
        interlaced=codec == "libx264" and not rotation and draw(st.booleans()),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(film=films())
def test_every_picture_comes_once_as_a_player_shows_it(film: Film, tmp_path: Path) -> None:
    path = film.write(tmp_path / f"film.{film.container}")
    source = open_source(str(path), CameraSettings())
    pictures = list(iter(source.read, None))
    assert [read_bars(picture.image) for picture in pictures] == list(range(film.count))
    steps = [after.offset - before.offset for before, after in pairwise(pictures)]
    assert all(abs(step - 1e9 / film.rate) < 2e6 for step in steps)
    height, width = pictures[0].image.shape[:2]
    assert width / height == pytest.approx(film.width / film.height, rel=0.03)
