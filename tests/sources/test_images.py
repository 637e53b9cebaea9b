from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from fer_stream.errors import SourceError
from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.images import load
from fer_stream.sources.media import open_source

GREY = np.full((30, 40, 3), 100, np.uint8)


@pytest.fixture
def folder(tmp_path):
    for n in (1, 2, 10, 9, 100):
        cv2.imwrite(str(tmp_path / f"frame{n}.png"), np.full((30, 40, 3), n, np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "old.png").mkdir()
    return tmp_path


def read_all(source, limit=100):
    pictures = []
    while len(pictures) < limit and (picture := source.read()) is not None:
        pictures.append(picture)
    return pictures


def test_a_folder_is_read_in_natural_order(folder):
    source = open_source(str(folder), CameraSettings())
    assert not source.live
    assert source.frames == 5
    pictures = read_all(source)
    assert [picture.image[0, 0, 0] for picture in pictures] == [1, 2, 9, 10, 100]
    assert [picture.offset for picture in pictures] == [n * 40_000_000 for n in range(5)]


def test_rate_and_loop(folder):
    source = open_source(str(folder), CameraSettings(rate=3, loop=True))
    assert source.frames is None
    pictures = read_all(source, 12)
    assert [picture.image[0, 0, 0] for picture in pictures] == ([1, 2, 9, 10, 100] * 3)[:12]
    assert [picture.offset for picture in pictures] == [round(n * 1e9 / 3) for n in range(12)]
    source.close()
    source.close()
    assert source.read() is None


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("colour.png", GREY),
        ("colour.JPG", GREY),
        ("grey.png", GREY[:, :, 0]),
        ("opaque.png", np.dstack([GREY, np.full((30, 40), 255, np.uint8)])),
        ("deep.png", GREY[:, :, 0].astype(np.uint16) * 257),
    ],
)
def test_one_image_of_any_kind_becomes_bgr(tmp_path, name, image):
    cv2.imwrite(str(tmp_path / name), image)
    (picture,) = read_all(open_source(str(tmp_path / name), CameraSettings()))
    assert picture.offset == 0
    assert picture.image.dtype == np.uint8
    assert picture.image.flags.c_contiguous
    np.testing.assert_array_equal(picture.image, GREY)


def test_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(SourceError, match="contains no images"):
        open_source(str(tmp_path), CameraSettings())


def test_a_damaged_image_is_named(folder):
    path = folder / "frame9.png"
    path.write_bytes(path.read_bytes()[:20])
    source = open_source(str(folder), CameraSettings())
    with pytest.raises(SourceError, match=r"frame9\.png' cannot be read: its format is unknown"):
        read_all(source)


@pytest.mark.parametrize("name", ["bomb.png", "bomb.jpg"])
def test_a_small_file_that_claims_to_be_huge_is_refused(tmp_path, name):
    path = tmp_path / name
    cv2.imwrite(str(path), np.zeros((8000, 8000), np.uint8))
    assert path.stat().st_size < 1_000_000
    # In a separate process, because OpenCV reads its limits from the environment when it is imported.
    program = """
import sys
from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.media import open_source
open_source(sys.argv[1], CameraSettings()).read()
"""
    result = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert "SourceError: the image" in result.stderr
    assert "a picture of 8000x8000 is over the limit of" in result.stderr


def test_a_file_name_that_is_not_utf8_is_read_but_not_loaded(tmp_path):
    name = os.fsdecode(b"bad\xff.png")
    cv2.imwrite(str(tmp_path / "good.png"), np.full((8, 8, 3), 77, np.uint8))
    (tmp_path / "good.png").rename(tmp_path / name)
    picture = open_source(str(tmp_path / name), CameraSettings()).read()
    assert picture is not None
    assert picture.image.mean() == 77
    with pytest.raises(
        SourceError, match="its name is not UTF-8; rename it"
    ):  # load() is used where the name is written to JSON
        load(tmp_path / name)
