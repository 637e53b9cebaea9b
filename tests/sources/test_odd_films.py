"""Videos with faults or changes inside: holes, joints, changing sizes, late streams, missing ends."""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from films import Film, read, read_bars, shown

from fer_stream.errors import SourceError
from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.media import open_source
from fer_stream.sources.truncation import MIN_ZEROS, missing

if TYPE_CHECKING:
    from pathlib import Path


def test_pictures_after_a_long_hole_in_a_transport_stream_are_read(tmp_path: Path) -> None:
    path = Film("ts", count=40, keys=10).write(tmp_path / "film.ts")
    data = path.read_bytes()
    half = len(data) // 188 // 2 * 188
    path.write_bytes(data[:half] + bytes(500_000) + data[half:])  # FFmpeg searches 64 KiB, then says "try again"
    assert shown(read(path))[-1] == 39


def test_pictures_after_any_error_of_a_decoder_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = Film("mov", "prores_ks", count=10).write(tmp_path / "film.mov")
    data = bytearray(path.read_bytes())
    begin = data.index(b"icpf", len(data) // 2)  # ProRes raises EPERM if a picture begins otherwise
    data[begin : begin + 200] = bytes(200)
    path.write_bytes(data)
    numbers = shown(read(path))
    assert len(numbers) == 9
    assert numbers[-1] == 9
    assert "damaged pictures that were left out" in caplog.text


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_joint_with_another_size_loses_no_picture(
    codec: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [
        Film("ts", codec, width=width, height=height).write(tmp_path / f"{width}.ts").read_bytes()
        for width, height in ((320, 240), (480, 368))
    ]
    path = tmp_path / "film.ts"
    path.write_bytes(b"".join(parts))
    pictures = read(path)
    assert shown(pictures) == [*range(20), *range(20)]
    assert [picture.size for picture in pictures] == [(320, 240)] * 20 + [(480, 368)] * 20
    assert "damaged" not in caplog.text


@pytest.mark.parametrize(("codec", "interlaced"), [("libx264", False), ("mpeg2video", False), ("mpeg2video", True)])
def test_pixels_that_become_wider_inside_a_video(codec: str, interlaced: bool, tmp_path: Path) -> None:
    shapes = {Fraction(1): 320, Fraction(4, 3): 428}
    path = tmp_path / "film.ts"
    parts = [
        Film("ts", codec, width=width, aspect=ratio, interlaced=interlaced).write(tmp_path / f"{width}.ts")
        for ratio, width in shapes.items()
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    pictures = read(path)
    assert shown(pictures) == 2 * list(range(20))
    assert [picture.size[0] for picture in pictures] == [320] * 20 + [428] * 20


def test_a_joint_of_interlaced_and_progressive_video_loses_no_picture(tmp_path: Path) -> None:
    parts = [
        Film("ts", "mpeg2video", interlaced=interlaced).write(tmp_path / f"{interlaced}.ts").read_bytes()
        for interlaced in (True, False)
    ]
    path = tmp_path / "film.ts"
    path.write_bytes(parts[0] + parts[1] + parts[0])
    assert shown(read(path)) == 3 * list(range(20))


def test_an_only_picture_is_at_the_beginning(tmp_path: Path) -> None:
    path = Film("mpg", "mpeg2video", count=1).write(tmp_path / "film.mpg")
    assert [picture.offset for picture in read(path)] == [0]


def test_a_stream_that_begins_late_does_not_end_the_film(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = Film("flv", rate=1, count=150).write(tmp_path / "film.flv")
    sound = bytes((8, 0, 0, 2, *[0] * 7, 0x2F, 0xFF)) + (13).to_bytes(4, "big")
    path.write_bytes(path.read_bytes() + sound)
    assert shown(read(path)) == list(range(150))
    assert "has streams that begin later than the others" in caplog.text


def test_jpegs_one_after_the_other_are_a_film(tmp_path: Path) -> None:
    path = Film("mjpeg", "mjpeg").write(tmp_path / "film.mjpeg")
    assert shown(read(path, rate=10)) == list(range(20))
    (tmp_path / "photo.jpg").write_bytes(read(path)[0].content.data)  # type: ignore[union-attr]
    assert len(read(tmp_path / "photo.jpg")) == 1


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114)])  # BT.709, BT.601
def test_colours_follow_the_matrix_and_the_range_of_the_video(
    matrix: int, red: float, blue: float, full: bool, tmp_path: Path
) -> None:
    path, colour = tmp_path / "film.mkv", (64, 32, 224)
    b, g, r = (part / 255 for part in colour)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = (b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)
    low, span, swing = (0, 255, 255) if full else (16, 219, 224)
    stored = np.full((96 * 3 // 2, 128), round(low + span * luma), np.uint8)
    stored[96:120], stored[120:] = (round(128 + swing * part) for part in chroma)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"qp": "2"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        picture = av.VideoFrame.from_ndarray(stored, format="yuv420p")
        picture.pts, picture.colorspace, picture.color_range = 0, matrix, 2 if full else 1
        file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    (found,) = read(path)
    assert found.image[48, 64].tolist() == pytest.approx(colour, abs=4)


CONTAINERS = [
    ("mp4", "libx264", {}),
    ("mkv", "libx264", {}),
    ("mkv", "libx264", {"live": "1"}),
    ("avi", "mjpeg", {}),
    ("flv", "libx264", {}),
    ("wmv", "wmv2", {}),
    ("y4m", "wrapped_avframe", {}),
    ("gif", "gif", {}),
    ("ivf", "libvpx", {}),
]


@pytest.mark.parametrize(("container", "codec", "options"), CONTAINERS)
def test_a_film_that_ends_within_a_picture_is_truncated(
    container: str, codec: str, options: dict[str, str], tmp_path: Path
) -> None:
    path = Film(container, codec).write(tmp_path / f"film.{container}", options)
    assert len(read(path)) == 20
    whole = path.read_bytes()
    for size in (len(whole) * 3 // 4, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError, match=r"truncated") as caught:
            read(path)
        assert "0.0%" not in str(caught.value)


def test_no_picture_is_made_up_from_a_part_of_one(tmp_path: Path) -> None:
    path = Film("avi", "mjpeg").write(tmp_path / "film.avi")
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\xff\xd8") + 1500])
    source = open_source(str(path), CameraSettings())
    assert [read_bars(picture.image) for _ in range(19) if (picture := source.read())] == list(range(19))
    with pytest.raises(SourceError, match="picture 19 is the last"):
        source.read()


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
def test_an_end_of_zeros_is_missing_unless_it_was_appended(container: str, tmp_path: Path) -> None:
    path = Film(container, "mpeg4", width=640, height=480, count=60, keys=1).write(tmp_path / f"film.{container}")
    whole, zeros = path.read_bytes(), bytes(2 * MIN_ZEROS)
    path.write_bytes(whole + zeros)
    assert missing(path) == 0
    path.write_bytes(whole[: len(whole) - len(zeros)] + zeros)
    assert missing(path) == pytest.approx(len(zeros) / len(whole), rel=0.5)
    with pytest.raises(SourceError, match="truncated"):
        read(path)


def test_a_header_cut_off_is_called_truncation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    path = Film(count=100).write(tmp_path / "film.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") + 200])
    with pytest.raises(SourceError, match=r"truncated"):
        read(path)


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    path = Film("flv").write(tmp_path / "film.flv")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    source = open_source(str(path), CameraSettings())
    with path.open("ab") as file:
        file.write(whole[len(whole) // 2 :])
    with pytest.raises(SourceError, match="was still being written when it was opened: read it again"):
        list(iter(source.read, None))


def test_a_transport_stream_that_steps_back_by_an_hour_continues(tmp_path: Path) -> None:
    """FFmpeg takes a step back of more than a minute for a wrap of 33 bits, so it becomes one of a day forward."""
    parts = [
        Film("ts").write(tmp_path / f"{start}.ts", {"output_ts_offset": start}).read_bytes() for start in ("3600", "0")
    ]
    path = tmp_path / "film.ts"
    path.write_bytes(b"".join(parts))
    assert [round((picture.offset or 0) / 1e9, 2) for picture in read(path)] == [n / 25 for n in range(40)]
