"""Videos of many kinds: every picture is read once, whole, upright, with square pixels, at its own time."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import av
import av.stream
import numpy as np
import pytest
from films import Film, read, read_bars, shown
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_stream import Jpeg
from fer_stream.errors import SourceError, WireError
from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.media import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream import Picture

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
        mirrored=container in ("mp4", "mov") and draw(st.booleans()),
        aspect=draw(st.sampled_from(ASPECTS)) if squeezed else Fraction(1),
        interlaced=codec == "libx264" and container != "mp4" and not rotation and draw(st.booleans()),
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


@pytest.mark.parametrize(("container", "codec"), [("mkv", "libx264"), ("mpg", "mpeg2video")])
def test_the_fields_of_an_interlaced_video_are_not_mixed(container: str, codec: str, tmp_path: Path) -> None:
    """A moving edge is elsewhere in each field, so mixed fields would look like a comb."""
    path = tmp_path / f"film.{container}"
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25, width=320, height=240, pix_fmt="yuv420p", options={"flags": "+ildct"})
        stream.codec_context.bit_rate = 4_000_000
        for number in range(20):
            image = np.full((240, 320, 3), 40, np.uint8)
            image[::2, : 60 + 8 * number] = image[1::2, : 64 + 8 * number] = 200
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with av.open(str(path)) as file:
        assert any(frame.interlaced_frame for frame in file.decode(video=0))
    pictures = read(path)
    assert len(pictures) == 20
    for picture in pictures[2:-2]:
        grey = picture.image[20:220, :, 1].astype(int)
        assert np.abs(np.diff(grey, axis=0)).max() < 60


def test_a_jpeg_video_that_is_turned_by_its_container_is_decoded(tmp_path: Path) -> None:
    pictures = read(Film("mov", "mjpeg", rotation=90).write(tmp_path / "film.mov"))
    assert shown(pictures) == list(range(20))
    assert not any(isinstance(picture.content, Jpeg) for picture in pictures)


def test_the_default_stream_is_read_and_the_others_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = joined(tmp_path / "two.mkv", Film(width=160, height=120), Film(count=10), default=1)
    assert len(read(path)) == 10
    assert "has other video streams, which --stream chooses: stream 0 (160x120, h264)" in caplog.text
    assert read(path, stream=0)[0].size == (160, 120)
    with pytest.raises(SourceError, match=r"has no video stream 2; it has stream 0 \(160x120, h264\); stream 1 \(320"):
        read(path, stream=2)


def joined(path: Path, *films: Film, default: int) -> Path:
    """Write a file with several video streams."""
    with ExitStack() as last:
        out = last.enter_context(av.open(str(path), "w"))
        inputs = [
            last.enter_context(av.open(str(film.write(path.with_name(f"{at}.mkv"))))) for at, film in enumerate(films)
        ]
        streams = [out.add_stream_from_template(one.streams.video[0]) for one in inputs]
        for at, stream in enumerate(streams):
            stream.disposition = av.stream.Disposition.default if at == default else av.stream.Disposition(0)
        for one, stream in zip(inputs, streams, strict=True):
            for packet in one.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
    return path


def test_raw_h264_needs_a_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = Film("h264", rate=10).write(tmp_path / "film.h264")
    pictures = read(path)
    assert shown(pictures) == list(range(20))
    assert "has no time stamps: 25 frames/s are assumed; set rate to the true one" in caplog.text
    caplog.clear()
    assert [picture.offset for picture in read(path, rate=10)] == [n * 100_000_000 for n in range(20)]
    assert "no time stamps" not in caplog.text


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}])
def test_a_truncated_mp4_is_never_taken_for_a_whole_one(options: dict[str, str], tmp_path: Path) -> None:
    path = Film(count=100).write(tmp_path / "film.mp4", options)
    assert len(read(path)) == 100
    whole = path.read_bytes()
    for share in (0.5, 0.8, 0.97):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(SourceError, match="is truncated"):
            read(path)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mjpeg"])
def test_pictures_after_damage_are_read(codec: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = Film("mkv", codec, count=200, keys=20).write(tmp_path / "film.mkv")
    data = bytearray(path.read_bytes())
    begin = len(data) // 3
    data[begin : begin + len(data) // 20] = bytes(len(data) // 20)
    path.write_bytes(data)
    source = open_source(str(path), CameraSettings())
    pictures = [picture for picture in iter(source.read, None) if whole(picture)]
    assert 140 <= len(pictures) < 200
    assert read_bars(pictures[-1].image) == 199
    assert (pictures[-1].offset or 0) / 1e9 == pytest.approx(199 / 25, abs=0.02)


def whole(picture: Picture) -> bool:
    try:
        return bool(picture.image.size)
    except WireError:
        return False
