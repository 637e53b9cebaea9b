from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image, TiffImagePlugin

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


def test_a_damaged_image_of_a_folder_is_left_out_named_and_counted(folder, caplog):
    path = folder / "frame9.png"
    path.write_bytes(path.read_bytes()[:20])
    source = open_source(str(folder), CameraSettings())
    assert [picture.image[0, 0, 0] for picture in read_all(source, 4)] == [1, 2, 10, 100]
    assert source.damaged == 1
    assert caplog.messages[-1].startswith("left out: the image")
    with pytest.raises(SourceError, match=r"1 of 5 images .* left out; .*frame9\.png' cannot be read: its format is"):
        source.read()


def test_a_folder_whose_images_are_all_damaged_is_an_error(tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for settings in (CameraSettings(), CameraSettings(loop=True)):
        with pytest.raises(SourceError, match=r"cut\.png' cannot be read: its format is unknown"):
            open_source(str(tmp_path), settings).read()


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


RAMP = np.add.outer(np.arange(30) * 3, np.arange(40) * 4)[:, :, None].repeat(3, axis=2).astype(np.uint8)
RAMP[:8, :8] = 255, 0, 0
OPACITY = np.broadcast_to((np.arange(40) * 6).astype(np.uint8), (30, 40))
CLEAR = np.dstack([RAMP, OPACITY])[:, :, [2, 1, 0, 3]]
OVER_GREY = np.rint(RAMP * (OPACITY / 255)[..., None] + 127 * (1 - OPACITY / 255)[..., None])


def pictures_of(path):
    return [(picture.image, picture.offset) for picture in read_all(open_source(str(path), CameraSettings()))]


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.jp2", "a.avif"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_transparency_and_orientation(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"tiffinfo": {0x0112: orientation}} if name == "a.tif" else {"exif": exif}
    if name == "a.jp2":
        how, orientation = {}, 1
    Image.fromarray(CLEAR).save(tmp_path / name, **how, **({"lossless": True} if name == "a.webp" else {}))
    ((image, _),) = pictures_of(tmp_path / name)
    upright = {1: OVER_GREY, 3: OVER_GREY[::-1, ::-1], 6: np.rot90(OVER_GREY, -1)}[orientation]
    assert np.abs(image - upright).mean() < (8 if name == "a.avif" else 1)


def test_an_animated_avif(tmp_path):
    images = [Image.fromarray(np.full((32, 48, 3), 40 * n, np.uint8)) for n in range(1, 6)]
    durations = [100, 200, 50, 300, 100]
    images[0].save(tmp_path / "a.avif", save_all=True, append_images=images[1:], duration=durations)
    found = pictures_of(tmp_path / "a.avif")
    assert [round(image.mean() / 40) for image, _ in found] == [1, 2, 3, 4, 5]
    assert [offset // 1_000_000 for _, offset in found] == [0, 100, 300, 350, 650]
    data = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "cut.avif").write_bytes(data[:-40])
    with pytest.raises(SourceError, match=r"cut\.avif' cannot be read: the AVIF is (truncated|damaged)"):
        pictures_of(tmp_path / "cut.avif")


def test_a_long_animation_is_decoded_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("fer_stream.sources.image_files.AT_ONCE", 2 * 4 * 30 * 40)
    images = [Image.fromarray(GREY + n) for n in range(5)]
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:], duration=[100, 0, 50, 300, 100])
    found = pictures_of(tmp_path / "a.png")
    assert [image[0, 0, 0] for image, _ in found] == [100, 101, 102, 103, 104]
    assert [offset // 1_000_000 for _, offset in found] == [0, 100, 200, 250, 550]


def test_times_increase_after_an_animation_in_a_folder(tmp_path):
    images = [Image.fromarray(GREY + 50 * n) for n in range(3)]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], duration=1000, lossless=True)
    images[0].save(tmp_path / "b.png")
    assert [offset // 1_000_000 for _, offset in pictures_of(tmp_path)] == [0, 1000, 2000, 3000]


@pytest.mark.parametrize("big", [False, True])
def test_the_pages_of_a_tiff(tmp_path, big):
    pages = [Image.fromarray(RAMP), Image.fromarray(RAMP[:20, :10, 0]), Image.fromarray(RAMP[::-1])]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], big_tiff=big)
    found = [image for image, _ in pictures_of(tmp_path / "a.tif")]
    assert [image.shape for image in found] == [(30, 40, 3), (20, 10, 3), (30, 40, 3)]
    np.testing.assert_array_equal(found[2], RAMP[::-1, :, ::-1])
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[:-300])
    source = open_source(str(tmp_path / "cut.tif"), CameraSettings())
    assert [source.read().image.shape for _ in range(2)] == [(30, 40, 3), (20, 10, 3)]
    with pytest.raises(SourceError, match="page 3 is damaged"):
        source.read()


def test_a_tiff_of_grey_floats_and_one_of_integers(tmp_path):
    Image.fromarray((RAMP[:, :, 1] / 255).astype(np.float32)).save(tmp_path / "float.tif")
    ((image, _),) = pictures_of(tmp_path / "float.tif")
    np.testing.assert_array_equal(image[:, :, 1], RAMP[:, :, 1])
    Image.fromarray(RAMP[:, :, 1].astype(np.int32)).save(tmp_path / "int.tif")
    with pytest.raises(SourceError, match="its values are of type int32; store 8 or 16 bits"):
        pictures_of(tmp_path / "int.tif")


def test_smaller_copies_and_raw_pixels_in_a_tiff(tmp_path):
    small = {0x00FE: 1}
    Image.fromarray(RAMP).save(tmp_path / "a.tif", save_all=True, append_images=[])
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "a.tif")) as file:
        Image.fromarray(RAMP[::2, ::2]).save(file, "TIFF", tiffinfo=small)
    assert [image.shape for image, _ in pictures_of(tmp_path / "a.tif")] == [(30, 40, 3)]
    Image.fromarray(RAMP[::2, ::2]).save(tmp_path / "a.dng", "TIFF", tiffinfo=small | {0x014A: 8})
    with pytest.raises(SourceError, match="it is the raw picture of a camera: convert it"):
        pictures_of(tmp_path / "a.dng")


@pytest.mark.parametrize("white", [100, 255, 1000, 65535])
def test_the_white_of_a_pnm(tmp_path, white):
    values = np.array([0, white // 2, white]).astype(np.uint8 if white < 256 else ">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 # grey\n3 1\n%d\n" % white + values.tobytes())
    (tmp_path / "b.pgm").write_bytes(b"P2\n3 1\n%d\n0 %d %d\n" % (white, white // 2, white))
    for image, _ in pictures_of(tmp_path):
        np.testing.assert_allclose(image[0, :, 0], [0, 127.5, 255], atol=1)


def test_a_jpeg_2000_without_a_container(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.j2k")
    ((image, _),) = pictures_of(tmp_path / "a.j2k")
    np.testing.assert_array_equal(image, RAMP[:, :, ::-1])


def test_jpegs_one_after_the_other_are_a_video_and_those_of_an_mpo_are_not(tmp_path):
    images = [Image.fromarray(GREY + 20 * n) for n in range(4)]
    for n, image in enumerate(images):
        image.save(tmp_path / f"{n}.jpg")
    (tmp_path / "video").write_bytes(b"".join((tmp_path / f"{n}.jpg").read_bytes() for n in range(4)))
    assert [round(image.mean()) for image, _ in pictures_of(tmp_path / "video")] == [100, 120, 140, 160]
    images[0].save(tmp_path / "a.mpo", save_all=True, append_images=images[1:])
    assert [round(image.mean()) for image, _ in pictures_of(tmp_path / "a.mpo")] == [100]


def test_documents_with_pictures_are_no_videos(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.pdf")
    with pytest.raises(SourceError, match=r"a\.pdf' is a PDF document, not a video"):
        open_source(str(tmp_path / "a.pdf"), CameraSettings())


def test_a_grey_heic(tmp_path):
    pillow_heif.from_bytes("L", (40, 30), RAMP[:, :, 1].tobytes()).save(tmp_path / "a.heic", quality=95)
    ((image, _),) = pictures_of(tmp_path / "a.heic")
    assert np.abs(image[:, :, 1].astype(int) - RAMP[:, :, 1]).mean() < 3


def test_a_jpeg_of_12_bits_is_not_called_damaged(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.jpg")
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    data[data.index(b"\xff\xc0") + 4] = 12
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(SourceError, match="it has 12 bits a colour"):
        pictures_of(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["a.avif", "a.tif"])
def test_the_size_of_an_avif_and_of_later_pages_is_limited(tmp_path, monkeypatch, name):
    monkeypatch.setattr("fer_stream.imaging.limits.MAX_PIXELS", 40 * 30)
    large = Image.fromarray(RAMP.repeat(2, axis=0))
    if name == "a.avif":
        large.save(tmp_path / name)
    else:
        Image.fromarray(RAMP).save(tmp_path / name, save_all=True, append_images=[large])
    with pytest.raises(SourceError, match="a picture of 40x60 is over the limit"):
        pictures_of(tmp_path / name)


def test_an_icon_is_read_in_its_largest_size(tmp_path):
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "a.ico", sizes=[(16, 16), (64, 64)])
    ((image, _),) = pictures_of(tmp_path / "a.ico")
    assert image.shape == (64, 64, 3)


def test_an_unreadable_image_of_a_folder_is_named(tmp_path, monkeypatch, caplog):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith((".jpg", ".txt")))
    for name in ("b.jpg", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        SourceError, match=r"1 of 2 images of the folder were left out; the image .*b\.jpg' cannot be read"
    ):
        pictures_of(tmp_path)
    assert "c.txt" in caplog.messages[0]
    assert "b.jpg' cannot be read" in caplog.messages[1]
