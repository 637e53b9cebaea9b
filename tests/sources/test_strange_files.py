"""Files as recorders, cameras and their owners leave them: joined, cut off, or with the wrong suffix."""

from __future__ import annotations

import os
import struct
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from camera_servers import Server, folder
from films import Film, bars, read, read_bars, shown
from PIL import Image

from fer_stream.errors import SourceError
from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.media import open_source
from fer_stream.sources.presentation import UPRIGHT
from fer_stream.sources.presentation import shown as to_show
from fer_stream.sources.truncation import missing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("options", [{}, {"movflags": "frag_keyframe+empty_moov"}, {"live": "1"}])
def test_joined_recordings_are_read_one_after_the_other(options: dict[str, str], tmp_path: Path) -> None:
    suffix = "mkv" if options.get("live") else "mp4"
    parts = [
        Film(suffix, width=width, height=height).write(tmp_path / f"{width}.{suffix}", options).read_bytes()
        for width, height in ((320, 240), (480, 368))
    ]
    path = tmp_path / f"12:30.{suffix}"
    path.write_bytes(b"".join(parts))
    pictures = read(path)
    assert shown(pictures) == 2 * list(range(20))
    assert [picture.size for picture in pictures] == [(320, 240)] * 20 + [(480, 368)] * 20
    assert [round((picture.offset or 0) / 1e9, 2) for picture in pictures] == [number / 25 for number in range(40)]
    source = open_source(str(path), CameraSettings(loop=True))
    repeated = [source.read() for _ in range(50)]
    assert read_bars(repeated[-1].image) == 9  # type: ignore[union-attr]


def test_the_last_of_joined_recordings_is_truncated(tmp_path: Path) -> None:
    for suffix in ("mkv", "mp4"):
        options = {"movflags": "faststart"} if suffix == "mp4" else {}
        whole = Film(suffix).write(tmp_path / f"film.{suffix}", options).read_bytes()
        (tmp_path / f"film.{suffix}").write_bytes(whole + whole[:-500])
        with pytest.raises(SourceError, match=r"truncated: .* missing; picture 3\d is the last"):
            read(tmp_path / f"film.{suffix}")


def test_a_part_that_cannot_be_read_does_not_cost_the_picture_before_it(tmp_path: Path) -> None:
    path = Film().write(tmp_path / "film.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    path.write_bytes(path.read_bytes() + (tmp_path / "sound.mp4").read_bytes())
    source = open_source(str(path), CameraSettings())
    assert len([source.read() for _ in range(20)]) == 20
    with pytest.raises(SourceError, match=r"in a part that was joined, .* but no video; picture 20 is the last"):
        source.read()


@pytest.mark.parametrize("appended", [b"GPSDATA1" * 100, struct.pack(">I4s", 5000, b"free") + bytes(99)])
def test_what_is_appended_to_a_recording_does_not_make_it_truncated(appended: bytes, tmp_path: Path) -> None:
    path = Film().write(tmp_path / "film.mp4")
    path.write_bytes(path.read_bytes() + appended)
    assert shown(read(path)) == list(range(20))


def test_a_recording_without_its_index_is_called_so(tmp_path: Path) -> None:
    path = Film().write(tmp_path / "film.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") - 4])
    with pytest.raises(SourceError, match=r"its index \(moov\) is missing, as if the recorder was stopped"):
        read(path)


def test_an_avi_whose_recorder_was_stopped_within_a_picture(tmp_path: Path) -> None:
    path = Film("avi", "mjpeg").write(tmp_path / "film.avi")
    data = bytearray(path.read_bytes()[: path.read_bytes().rindex(b"idx1")])
    for at in (4, data.index(b"movi") - 4):  # both lengths are written at the end
        data[at : at + 4] = bytes(4)
    path.write_bytes(data)
    assert missing(path) == 0
    assert len(read(path)) == 20
    path.write_bytes(data[:-1000])
    with pytest.raises(SourceError, match="truncated"):
        read(path)


def test_a_video_of_lossless_jpegs_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ljpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "bgr24"
        for number in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(bars(number, 320, 240), format="bgr24")))
    assert shown(read(path)) == [0, 1, 2]


def test_a_saved_stream_of_jpegs_has_a_regular_end(tmp_path: Path) -> None:
    path = Film("mpjpeg", "mjpeg").write(tmp_path / "film.mjpeg")
    assert shown(read(path, rate=10)) == list(range(20))


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "film.mp4")
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        read(tmp_path / "film.mp4")


def test_a_file_that_only_has_the_suffix_of_a_jpeg_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(bytes(5000))
    with pytest.raises(SourceError, match="no picture can be read"):
        read(tmp_path / "photo.jpg")


def test_a_jpeg_that_is_too_long_is_refused_as_other_images_are(tmp_path: Path) -> None:
    for suffix in ("jpg", "png"):
        Image.new("L", (16385, 8)).save(tmp_path / f"long.{suffix}")
        with pytest.raises(SourceError, match="16385x8 is over the limit"):
            read(tmp_path / f"long.{suffix}")


def test_deep_planes_of_a_tiff_are_refused(tmp_path: Path) -> None:
    """OpenCV would show the first plane's rows as if the colours of a pixel were together."""
    planes = np.full((3, 16, 16), 40_000, "<u2")
    planes[1:] = 0
    size, head = planes[0].nbytes, 8 + planes.nbytes
    end = head + 2 + 9 * 12 + 4
    tags = [(256, 16), (257, 16), (258, end), (259, 1), (262, 2), (273, end + 6), (277, 3), (279, end + 18), (284, 2)]
    counts = {258: 3, 273: 3, 279: 3}
    file = struct.pack("<2sHI", b"II", 42, head) + planes.tobytes() + struct.pack("<H", len(tags))
    for tag, value in tags:
        kind = 4 if tag in (273, 279) else 3
        file += struct.pack("<HHII", tag, kind, counts.get(tag, 1), value)
    file += struct.pack("<I3H3I3I", 0, 16, 16, 16, *(8 + size * number for number in range(3)), size, size, size)
    (tmp_path / "deep.tif").write_bytes(file)
    with pytest.raises(SourceError, match="OpenCV cannot read its planes of more than 8 bits"):
        read(tmp_path / "deep.tif")


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"#EXTM3U\n", "a list of other files"),
        (b"IIRO\x08\0\0\0", "the raw picture of a camera"),
        (bytes(128) + b"DICM", "a DICOM image"),
        (b"\xff\x0a\0", "a JPEG XL image"),
    ],
)
def test_what_is_no_video_is_named(head: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(head + bytes(2000) * (head[:1] != b"#"))
    with pytest.raises(SourceError, match=f"is {what}, not a video"):
        read(tmp_path / "film.mp4")


@pytest.mark.parametrize("full", [False, True])
def test_colours_of_ycgco(full: bool, tmp_path: Path) -> None:
    """FFmpeg's scaler does not convert this matrix. It also is that of some screen recorders."""
    path, (b, g, r) = tmp_path / "film.mkv", (64, 32, 224)
    low, span, swing = (0, 255, 255) if full else (16, 219, 224)
    values = (r + 2 * g + b) / 4, (2 * g - r - b) / 4, (r - b) / 2
    scales = (low, span), (128, swing), (128, swing)
    stored = np.empty((3, 64, 64), np.uint8)
    for plane, value, (zero, scale) in zip(stored, values, scales, strict=True):
        plane[:] = round(zero + value * scale / 255)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"qp": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 8, 2 if full else 1
        frame = av.VideoFrame.from_ndarray(stored, format="yuv444p")
        frame.colorspace, frame.color_range = 8, 2 if full else 1
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    (found,) = read(path)
    assert found.image[32, 32].tolist() == pytest.approx([b, g, r], abs=4)


@pytest.mark.parametrize("matrix", [10, 12, 13, 14])
def test_variants_of_bt2020_are_shown(matrix: int) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((3, 16, 16), 128, np.uint8), format="yuv444p")
    frame.colorspace = matrix
    picture = to_show(frame, None, UPRIGHT)
    assert isinstance(picture, np.ndarray)
    assert picture.mean() == pytest.approx(130, abs=1)


def test_a_server_that_does_not_send_parts_of_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Python's server ignores the header Range, so it sends the whole file for each part that a playlist names."""
    Film(width=640, height=480, count=100, keys=1).write(tmp_path / "film.mp4")
    options = {"hls_time": "1", "hls_flags": "single_file", "hls_list_size": "0"}
    Film("hls", count=100, keys=25).write(tmp_path / "film.m3u8", options)
    with Server(folder(tmp_path)) as server:
        source = open_source(f"http://127.0.0.1:{server.port}/film.mp4", CameraSettings())
        with pytest.raises(SourceError, match=r"its index is behind .* may not support HTTP range requests"):
            source.read()
        source = open_source(f"http://127.0.0.1:{server.port}/film.m3u8", CameraSettings())
        assert len(list(iter(source.read, None))) < 100
    assert "the playlist names 4.0 s" in caplog.text


def test_times_of_an_avi_with_two_pictures_in_a_packet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """DivX: a B picture is in the packet of the picture after it, and an empty packet follows."""
    encoder = av.CodecContext.create("mpeg4", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 320, 240, "yuv420p", Fraction(1, 25)
    encoder.max_b_frames = 1
    packets = []
    for number in range(21):
        frame = av.VideoFrame.from_ndarray(bars(number, 320, 240), format="bgr24").reformat(format="yuv420p")
        frame.pts = number
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    first, *others = map(bytes, packets)
    begin = first.index(b"\0\0\1\xb6")
    stored = [first[:begin] + b"\0\0\1\xb2DivX503b1393p" + first[begin:]]
    for forward, between in zip(others[::2], others[1::2], strict=True):
        stored += [forward + between, b"\0\0\1\xb6\x51\x80"]
    with av.open(str(tmp_path / "film.avi"), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 320, 240
        for number, data in enumerate(stored):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), number == 0
            packet.pts = packet.dts = number
            file.mux(packet)
    pictures = read(tmp_path / "film.avi")
    assert shown(pictures) == list(range(21))
    offsets = [picture.offset or 0 for picture in pictures]
    assert {after - before for before, after in pairwise(offsets)} == {40_000_000}
    assert "wrong time stamps" not in caplog.text
