"""JPEGs in a stream, a file or a folder are passed on unchanged; other pictures, and unusual JPEGs, are decoded."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pytest
from camera_servers import Camera, Server, folder
from jpegs import exif, film, inserted, jpeg, without_tables

from fer_stream import Jpeg, Picture
from fer_stream.errors import SourceError, WireError
from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.media import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PICTURES = [jpeg(seed=seed) for seed in range(4)]
HALVES = jpeg(64, 24) + jpeg(64, 24, seed=1)
"""Two interlaced fields in one packet, as from a television camera: FFmpeg weaves them."""


def read(address: object, count: int = 1000, **settings: object) -> list[Picture]:
    source = open_source(str(address), CameraSettings(**settings))  # type: ignore[arg-type]
    found: list[Picture] = []
    try:
        while len(found) < count and (picture := source.read()) is not None:
            found.append(picture)
    finally:
        source.close()
    return found


def sent(pictures: list[Picture]) -> list[bytes | None]:
    """Return each picture's JPEG, or ``None`` if it was decoded."""
    return [picture.content.data if isinstance(picture.content, Jpeg) else None for picture in pictures]


def shown(path: Path) -> list[np.ndarray]:
    """Return the pictures as FFmpeg decodes them."""
    capture, found = cv2.VideoCapture(f"file:{path}", cv2.CAP_FFMPEG), []
    while (got := capture.read())[0]:
        found.append(got[1])
    return found


@pytest.fixture
def camera() -> Iterator[Camera]:
    found = Camera(PICTURES, rate=100)
    yield found
    found.vanish()


def test_a_camera_that_sends_jpegs(camera: Camera) -> None:
    pictures = read(f"http://127.0.0.1:{camera.port}/", 8)
    assert sent(pictures) == PICTURES * 2
    assert [picture.offset for picture in pictures] == [None] * 8


def test_a_camera_that_changes_its_resolution(camera: Camera) -> None:
    camera.pictures = [jpeg(), jpeg(128, 96), jpeg(32, 16)]
    assert [picture.size for picture in read(f"http://127.0.0.1:{camera.port}/", 3)] == [(64, 48), (128, 96), (32, 16)]


def test_a_camera_without_tables(camera: Camera) -> None:
    camera.pictures = [without_tables(jpeg())]
    (picture,) = read(f"http://127.0.0.1:{camera.port}/", 1)
    assert isinstance(picture.content, Jpeg)
    np.testing.assert_array_equal(picture.image, Jpeg(jpeg()).decode())


def test_damaged_jpegs_of_a_stream_are_passed_on_and_detected_later(camera: Camera) -> None:
    camera.pictures = [jpeg(), jpeg()[:1000], b"no JPEG at all", jpeg()]
    pictures = read(f"http://127.0.0.1:{camera.port}/", 4)
    assert sent(pictures) == camera.pictures
    for broken in pictures[1:3]:
        with pytest.raises(WireError, match="JPEG"):
            _ = broken.size


def test_closing_ends_a_wait_for_packets() -> None:
    camera, results = Camera(PICTURES, rate=100), []
    try:
        source = open_source(f"http://127.0.0.1:{camera.port}/", CameraSettings(read_timeout=2))
        assert source.read() is not None
        camera.hang()

        def wait() -> None:
            while (picture := source.read()) is not None:
                results.append(picture)
            results.append(None)

        thread = threading.Thread(target=wait)
        thread.start()
        source.close()
        thread.join(30)
        assert results[-1] is None
    finally:
        camera.vanish()


@pytest.mark.parametrize("rate", [None, 10.0])
def test_a_video_of_jpegs_keeps_its_time_stamps(tmp_path: Path, rate: float | None) -> None:
    pictures = read(film(tmp_path / "film.avi", PICTURES), rate=rate)
    assert sent(pictures) == PICTURES
    assert [picture.offset for picture in pictures] == [n * (100 if rate else 50) * 1_000_000 for n in range(4)]


def test_a_video_of_jpegs_loops_from_a_server(tmp_path: Path) -> None:
    film(tmp_path / "film.avi", PICTURES)
    with Server(folder(tmp_path)) as server:  # type: ignore[arg-type]
        pictures = read(f"http://127.0.0.1:{server.port}/film.avi", 10, loop=True)
    assert sent(pictures) == (PICTURES * 3)[:10]
    assert [picture.offset for picture in pictures] == [n * 50_000_000 for n in range(10)]


def test_a_video_of_jpegs_without_tables_and_with_empty_packets(tmp_path: Path) -> None:
    bare = without_tables(jpeg())
    pictures = read(film(tmp_path / "film.avi", [bare, b"", bare, bare]))
    assert sent(pictures) == [bare] * 3
    assert [picture.offset for picture in pictures] == [0, 100_000_000, 150_000_000]


@pytest.mark.parametrize("name", ["film.mkv", "film.mov"])
def test_other_containers_of_jpegs(make_video: Callable[..., Path], name: str) -> None:
    written = make_video("film.mkv")
    if name.endswith(".mov"):
        with av.open(str(written)) as given, av.open(str(written.with_suffix(".mov")), "w") as out:
            stream = out.add_stream_from_template(given.streams.video[0])
            for packet in given.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
    pictures = read(written.with_name(name))
    assert len(pictures) == 40
    assert all(isinstance(picture.content, Jpeg) and picture.content.plain for picture in pictures)
    assert [picture.offset for picture in pictures] == [n * 50_000_000 for n in range(40)]


@pytest.mark.parametrize("name", ["film.mp4", "film.ts"])
def test_videos_of_other_codecs_are_decoded(make_video: Callable[..., Path], name: str) -> None:
    assert sent(read(make_video(name))) == [None] * 40


def test_the_fields_of_an_interlaced_video_of_jpegs_are_joined(tmp_path: Path) -> None:
    path = film(tmp_path / "film.avi", [HALVES] * 3)
    pictures = read(path)
    assert sent(pictures) == [None] * 3
    assert [picture.offset for picture in pictures] == [n * 50_000_000 for n in range(3)]
    for picture, image in zip(pictures, shown(path), strict=True):
        assert picture.size == (64, 48)
        assert np.abs(picture.image.astype(int) - image).max() <= 2, "conversions to BGR round differently"


def test_a_jpeg_with_exif_data_is_turned(tmp_path: Path) -> None:
    turned = inserted(jpeg(), exif(6))
    for picture in read(film(tmp_path / "film.avi", [turned] * 3)):
        assert picture.image.shape == (64, 48, 3)
        np.testing.assert_array_equal(picture.image, Jpeg(turned).decode())


def test_hardware_decoding_returns_pixels(tmp_path: Path) -> None:
    assert sent(read(film(tmp_path / "film.avi", PICTURES), hardware_decoding=True)) == [None] * 4


def test_the_two_decoders_differ_by_little(tmp_path: Path) -> None:
    """Grey pictures differ by up to two levels (FFmpeg truncates), colours by more (FFmpeg does not smooth chroma)."""
    path = film(tmp_path / "film.avi", [jpeg(grey=True)] * 2)
    for picture, image in zip(read(path), shown(path), strict=True):
        assert np.abs(picture.image.astype(int) - image).max() <= 2


def test_images(tmp_path: Path) -> None:
    turned = inserted(jpeg(), exif(6))
    for name, data in {"1.jpg": PICTURES[0], "2.JPEG": PICTURES[1], "3.jpg": turned, "4.png": PICTURES[2]}.items():
        (tmp_path / name).write_bytes(data)
    pictures = read(tmp_path)
    assert sent(pictures) == [PICTURES[0], PICTURES[1], None, PICTURES[2]], "the content counts, not the name"
    assert pictures[2].size == (48, 64)
    np.testing.assert_array_equal(pictures[2].image, cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("data", [jpeg()[:1000], jpeg()[:-1], jpeg()[:100], b"\xff\xd8\xff"])
def test_the_error_of_a_truncated_image_names_the_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "cut.jpg").write_bytes(data)
    with pytest.raises(SourceError, match=r"cut\.jpg' cannot be read: a picture that does not decode: "):
        read(tmp_path)
