"""The annotated video: what is drawn, what is hidden and for how long, and unusual recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from jpegs import jpeg, undecodable

from fer_stream import Jpeg
from fer_stream.analysis import video
from fer_stream.analysis.observe import Observation
from fer_stream.analysis.video import Video, annotated, fitted
from fer_stream.imaging.palette import colour
from fer_stream.types import Box, Estimate, Face, Frame, Nanoseconds, Probabilities, Track

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BOX = Box(40, 60, 80, 110)


def rough(height: int = 160, width: int = 160) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def seen(number: int, image: NDArray[np.uint8], label: str | None = None, faces: tuple[Box, ...] = ()) -> Observation:
    """Return the observation of frame ``number``, at 10 frames a second."""
    when = Nanoseconds(number * 100_000_000)
    tracks, estimates = (), {}
    if label:
        tracks = (Track(7, Face(BOX, 0.9), when, when),)
        estimates = {7: Estimate(7, Probabilities((label,), (0.8,)), label)}
    return Observation(Frame("film", number + 1, when, image), tracks, estimates, [], faces)


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="bgr24") for frame in film.decode(video=0)]


def write(path: Path, observations: list[Observation], *, show_faces: bool = False) -> list[NDArray[np.uint8]]:
    film = Video(path, path.with_name("none"), show_faces=show_faces)
    for observation in observations:
        film.write(observation)
    film.close()
    film.close()
    return pictures(path)


def roughness(image: NDArray[np.uint8]) -> float:
    inner = image[70:100, 50:70].astype(float)
    return float(np.abs(np.diff(inner, axis=0)).mean())


def test_a_face_has_a_box_in_the_colour_of_its_label() -> None:
    image = np.full((160, 160, 3), 90, np.uint8)
    drawn = annotated(seen(0, image, "happy"), None)
    red, green, blue = bytes.fromhex(colour("happy")[1:])
    assert (drawn[40:60, 40:80] == (blue, green, red)).all(axis=2).any(), "the box"
    blended = drawn[85, 40].astype(int)
    assert np.abs(blended - (blue, green, red)).max() < 40
    assert (drawn[: int(BOX.y1)] != 90).any(), "the text is above the box"
    assert (image == 90).all(), "the frame itself is not changed"
    with pytest.raises(ValueError, match="has no picture"):
        annotated(Observation(None, (), {}, []), None)


def test_a_face_is_hidden_before_and_after_it_is_found(tmp_path: Path) -> None:
    image = rough()
    film = [seen(n, image, faces=(BOX,) if n == 8 else ()) for n in range(17)]
    shown = [roughness(picture) for picture in write(tmp_path / "a.mp4", film)]
    assert len(shown) == 17
    hidden = [n for n, value in enumerate(shown) if value < 0.3 * roughness(image)]
    assert set(range(4, 13)) <= set(hidden), "also 0.4 s before and after it is found"
    assert len(hidden) <= 10
    shown = [roughness(picture) for picture in write(tmp_path / "b.mp4", film, show_faces=True)]
    assert min(shown) > 0.5 * roughness(image)


def test_a_picture_that_does_not_decode_is_left_out(tmp_path: Path) -> None:
    broken = Observation(Frame("film", 1, Nanoseconds(0), Jpeg(undecodable(jpeg()))), (), {}, [])
    film = [broken] + [seen(n, rough()) for n in range(1, 4)]
    film.insert(3, broken)
    assert len(write(tmp_path / "film.mp4", film)) == 3


def test_a_frame_that_was_not_analysed_is_left_out_unless_faces_are_shown(tmp_path: Path) -> None:
    film = [seen(n, rough()) for n in range(5)]
    film[2] = Observation(film[2].frame, (), {}, [], processed=False)
    assert len(write(tmp_path / "a.mp4", film)) == 4
    assert len(write(tmp_path / "b.mp4", film, show_faces=True)) == 5


def test_timestamps_odd_sizes_and_a_change_of_size(tmp_path: Path) -> None:
    film = [seen(n, rough(101, 75)) for n in (0, 1, 5)] + [seen(9, rough(60, 90))]
    assert [picture.shape for picture in write(tmp_path / "film.mp4", film)] == [(100, 74, 3)] * 4
    with av.open(str(tmp_path / "film.mp4")) as read:
        assert [round(frame.time, 2) for frame in read.decode(video=0)] == [0, 0.1, 0.5, 0.9]
        assert read.streams.video[0].codec_context.name == "h264"


def test_without_an_h264_encoder_another_one_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "ENCODERS", {"libnothing": {}, "mpeg4": video.ENCODERS["mpeg4"]})
    assert len(write(tmp_path / "film.mp4", [seen(n, rough()) for n in range(3)])) == 3
    with av.open(str(tmp_path / "film.mp4")) as read:
        assert read.streams.video[0].codec_context.name == "mpeg4"


def test_a_picture_of_another_shape_is_not_squeezed() -> None:
    wide = fitted(np.full((100, 400, 3), 200, np.uint8), 200, 100)
    assert wide.shape == (100, 200, 3)
    assert (wide[25:75] == 200).all()
    assert not wide[:25].any()
    assert not wide[75:].any()
    tall = fitted(np.full((400, 100, 3), 200, np.uint8), 200, 100)
    assert np.flatnonzero(tall[50, :, 0]).tolist() == list(range(87, 112))
