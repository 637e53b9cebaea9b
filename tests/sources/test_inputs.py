"""Real recordings of unusual kinds: each gives all its pictures, at the player's times, in the true size, upright.

The person in them moves, so a face's position gives the time: at second t its box is near x = 75 + 40 t to 155 + 40 t,
y = 174 to 280. From 3.0 to 4.0 s there is no face.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest

from fer_stream.errors import SourceError
from fer_stream.imaging.geometry import overlap
from fer_stream.inference.detectors.mtcnn import load
from fer_stream.settings.tree import CameraSettings, DetectorSettings
from fer_stream.sources.media import open_source
from fer_stream.types import Box

if TYPE_CHECKING:
    from beside import Beside

    from fer_stream import Picture

VGA = (640, 480)


class Truth(NamedTuple):
    """What a recording contains."""

    count: int
    last: float
    """Second of the last picture."""
    first: float = 0.0
    begin: float = 0.0
    """Second of the scene at the recording's first picture."""
    sizes: tuple[tuple[int, int], ...] = (VGA,)
    left: int = 0
    """Pixels cut off at the left of the last size."""
    speed: float = 1.0
    """Seconds of the scene in a second of the recording: two pictures of it are the fields of one."""


WHOLE = Truth(200, 7.96)
TRUTHS = {
    "plain.mp4": WHOLE,
    "vfr.mp4": Truth(83, 7.9),
    "rot90.mp4": WHOLE,
    "il_h264.mts": Truth(75, 2.96, speed=2),
    "il_mpeg2.mpg": Truth(75, 2.96, speed=2),
    "switch_portrait.mkv": Truth(200, 7.96, sizes=(VGA, (360, 480)), left=140),
    "outlier_future.ts": WHOLE,
    "trimmed.mp4": Truth(75, 2.96, begin=5.0),
    "longaudio.mkv": WHOLE,
    "late.mp4": Truth(200, 9.96, first=2.0, begin=0.0),
    "av1.mp4": Truth(100, 3.96),
    "anim.webp": Truth(71, 7.9, sizes=((320, 240),)),
    "exif3.avif": Truth(1, 0.0),
}


def read(path: object) -> list[Picture]:
    source = open_source(str(path), CameraSettings())
    assert not source.live
    return list(iter(source.read, None))


@pytest.mark.parametrize("name", TRUTHS)
def test_a_recording_gives_its_pictures_at_their_times(
    name: str, beside: Beside, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    truth, pictures = TRUTHS[name], read(beside.input(name))
    assert len(pictures) == truth.count
    times = [(picture.offset or 0) / 1e9 for picture in pictures]
    assert times[0] == pytest.approx(truth.first, abs=0.05)
    assert times[-1] == pytest.approx(truth.last, abs=0.11)
    assert all(0 < after - before <= 1.05 for before, after in pairwise(times))
    sizes = [picture.size for picture in pictures]
    assert tuple(dict.fromkeys(sizes)) == truth.sizes
    warned = [message for message in caplog.messages if "wrong time stamps" in message]
    assert bool(warned) == (name == "outlier_future.ts")
    detector = load(DetectorSettings())
    for at in range(0, len(pictures), max(1, len(pictures) // 8)):
        scene = truth.begin + truth.speed * (times[at] - truth.first)
        found = [face.box for face in detector.detect(pictures[at].image)]
        if 3.05 < scene < 3.95:
            assert not found
        elif not 2.9 < scene < 4.1:
            shift, scale = (truth.left if sizes[at] != VGA else 0), sizes[at][1] / 480
            corners = 75 + 40 * scene - shift, 174, 155 + 40 * scene - shift, 280
            expected = Box(*(scale * corner for corner in corners))
            (box,) = found
            assert overlap(box, expected) > 0.6, (at, scene, box, expected)


def test_a_picture_is_as_wide_as_its_pixels_say(beside: Beside) -> None:
    square, squeezed = (read(beside.input(name)) for name in ("hop.mp4", "hop_sar2.mp4"))
    assert square[0].size == squeezed[0].size
    detector = load(DetectorSettings())
    (plain,), (other,) = (detector.detect(pictures[0].image) for pictures in (square, squeezed))
    assert overlap(plain.box, other.box) > 0.85


def test_pictures_after_a_damaged_part_are_read(beside: Beside, caplog: pytest.LogCaptureFixture) -> None:
    source = open_source(str(beside.input("hole2.mp4")), CameraSettings())
    pictures = list(iter(source.read, None))
    assert 175 <= len(pictures) < 200
    assert pictures[-1].offset == pytest.approx(7.96e9, abs=5e7)
    assert 0 < source.damaged <= 200 - len(pictures)  # type: ignore[attr-defined]
    assert "damaged pictures" in caplog.text


def test_a_sound_file_with_a_cover_picture(beside: Beside) -> None:
    with pytest.raises(SourceError, match=r"song\.mp3' has sound and a cover picture, but no video"):
        read(beside.input("song.mp3"))
