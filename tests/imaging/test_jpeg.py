"""JPEG headers: which JPEGs may be passed on, which not, and which bytes are not a JPEG."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jpegs import exif, inserted, jpeg, segments, without_tables

from fer_stream import Frame, Jpeg, Picture
from fer_stream.errors import WireError
from fer_stream.imaging.jpeg import header_size
from fer_stream.imaging.limits import check_size
from fer_stream.types import Nanoseconds


def changed(at: int, value: int) -> bytes:
    """Return a JPEG with one byte of its start of frame replaced; ``at`` counts from the marker."""
    data = bytearray(jpeg())
    data[data.index(b"\xff\xc0") + at] = value
    return bytes(data)


@pytest.mark.parametrize(
    "flags", [(), (cv2.IMWRITE_JPEG_OPTIMIZE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 1), (cv2.IMWRITE_JPEG_QUALITY, 5)]
)
@pytest.mark.parametrize("grey", [False, True])
def test_a_camera_jpeg_has_a_size_and_pixels(flags: tuple[int, ...], grey: bool) -> None:
    data = jpeg(37, 21, flags, grey)
    picture = Jpeg(data)
    assert picture.data is data
    assert picture.shape == (21, 37, 3)
    assert picture.plain
    np.testing.assert_array_equal(picture.decode(), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    assert picture.decode() is picture.decode(), "the result is cached"


def test_a_motion_jpeg_without_huffman_tables_is_plain() -> None:
    """Webcams leave the standard tables out (AVI1), because every decoder knows them."""
    bare = without_tables(jpeg())
    assert b"\xff\xc4" not in bare
    assert Jpeg(bare).plain
    np.testing.assert_array_equal(Jpeg(bare).decode(), Jpeg(jpeg()).decode())


@pytest.mark.parametrize(
    "data",
    [
        changed(4, 12),  # bits
        changed(9, 4),  # components: CMYK
        changed(1, 0xC9),  # arithmetic coding
        changed(1, 0xC3),  # lossless
        inserted(jpeg(), exif(6)),
        inserted(jpeg(), exif(1)),
        inserted(jpeg(), segments(jpeg())[0xC0]),  # a second start of frame
        jpeg(flags=(cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        jpeg().replace(b"\xff\xda\x00\x0c\x03", b"\xff\xda\x00\x08\x01"),  # a scan of one component, so more follow
    ],
    ids=["12 bits", "CMYK", "arithmetic", "lossless", "rotated", "Exif", "two frames", "progressive", "scans"],
)
def test_a_jpeg_that_decoders_may_show_differently_is_not_plain(data: bytes) -> None:
    assert Jpeg(data).shape == (48, 64, 3)
    assert not Jpeg(data).plain


def test_a_jpeg_over_the_size_limit_is_not_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg()
    monkeypatch.setattr("fer_stream.imaging.jpeg.MAX_BYTES", len(data))
    assert Jpeg(data).plain
    assert not Jpeg(data[:-2] + b"\0" + data[-2:]).plain


def test_the_exif_rotation_is_applied() -> None:
    upright, rotated = Jpeg(jpeg()).decode(), Jpeg(inserted(jpeg(), exif(6))).decode()
    np.testing.assert_array_equal(rotated, cv2.rotate(upright, cv2.ROTATE_90_CLOCKWISE))


@pytest.mark.parametrize("length", [0, 1, 2, 100, 600, 1000, len(jpeg()) - 2, len(jpeg()) - 1])
def test_a_jpeg_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(WireError, match="JPEG"):
        _ = Jpeg(jpeg()[:length]).shape
    with pytest.raises(WireError, match="does not decode"):
        Jpeg(jpeg()[: length // 2]).decode()


def test_the_end_marker_of_an_embedded_thumbnail_does_not_count() -> None:
    """Cameras put a small preview picture into a segment."""
    nested = inserted(jpeg(), b"\xff\xe2" + struct.pack("!H", 2 + len(jpeg(8, 8))) + jpeg(8, 8))
    assert Jpeg(nested).shape == (48, 64, 3)
    with pytest.raises(WireError, match="cut short"):
        _ = Jpeg(nested[:-2]).shape


def test_a_header_behind_an_invalid_marker_is_refused() -> None:
    """Decoders would search for the next marker there, and find another size."""
    with pytest.raises(WireError, match="broken marker"):
        _ = Jpeg(inserted(jpeg(), b"\xff\x00" + segments(jpeg(640, 480))[0xC0][2:])).shape


def test_bytes_after_the_end_are_ignored() -> None:
    assert Jpeg(jpeg() + bytes(13)).shape == (48, 64, 3)


@pytest.mark.parametrize("data", [b"", b"no JPEG", b"\xff\xd8" + b"\xff" * 1000, bytes(1000)])
def test_bytes_that_are_not_a_jpeg_are_refused(data: bytes) -> None:
    for look in (lambda: Jpeg(data).shape, lambda: Jpeg(data).decode()):
        with pytest.raises(WireError):
            look()


def claims(suffix: str, width: int, height: int) -> bytes:
    """Return a small picture whose header claims another size."""
    data: bytes = cv2.imencode(suffix, np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    if suffix == ".ppm":
        return data.replace(b"64 64", b"%d %d" % (width, height), 1)
    if suffix == ".webp":
        sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        return b"RIFF" + struct.pack("<I", 4 + 18 + len(data) - 12) + b"WEBPVP8X\x0a\0\0\0\0\0\0\0" + sizes + data[12:]
    if suffix == ".tif":
        for tag, side in ((256, width), (257, height)):
            data = data.replace(struct.pack("<HHIHH", tag, 3, 1, 64, 0), struct.pack("<HHII", tag, 4, 1, side))
        return data
    order = {".jpg": ">HH", ".bmp": "<ii", ".gif": "<HH"}.get(suffix, ">II")
    first, second = (height, width) if suffix in (".jpg", ".jp2") else (width, height)
    return data.replace(struct.pack(order, 64, 64), struct.pack(order, first, second))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm", ".jp2", ".avif", ".gif"])
def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded(suffix: str) -> None:
    """OpenCV's own limit is set in our processes only; elsewhere a file of 5 KB could take gigabytes."""
    assert Jpeg(claims(suffix, 64, 64)).decode().shape == (64, 64, 3)
    with pytest.raises(WireError, match=r"a picture of 16000x13000 is over the limit of 50000000 pixels"):
        Jpeg(claims(suffix, 16_000, 13_000)).decode()


def test_pictures_and_frames_have_pixels_for_arrays_and_jpegs() -> None:
    pixels = Jpeg(jpeg()).decode()
    for content in (pixels, Jpeg(jpeg())):
        for picture in (Picture(content), Frame("door", 1, Nanoseconds(0), content)):
            assert picture.size == (64, 48)
            assert picture.content is content
            np.testing.assert_array_equal(picture.image, pixels)
    assert Picture(pixels).image is pixels


# Sizes from headers


@pytest.mark.parametrize("flags", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)])
def test_the_size_of_a_real_jpeg(flags: tuple[int, ...]) -> None:
    assert header_size(jpeg(37, 21, flags)) == (37, 21)
    assert header_size(memoryview(jpeg(640, 8, flags))) == (640, 8)


def test_fill_bytes_and_comments_before_the_size_are_skipped() -> None:
    plain = jpeg(37, 21)
    comment = b"\xff\xfe" + struct.pack("!H", 2 + 4) + b"\xff\xc0ab"
    assert header_size(plain[:2] + b"\xff\xff\xff" + comment + b"\xff\x01" + plain[2:]) == (37, 21)


def test_a_small_jpeg_that_would_decode_to_gigabytes_is_refused_by_its_header() -> None:
    plain = bytearray(jpeg(37, 21))
    at = plain.index(b"\xff\xc0")
    plain[at + 5 : at + 9] = struct.pack("!HH", 65_500, 65_500)
    with pytest.raises(WireError, match="65500x65500 is over the limit"):
        check_size(*header_size(plain))


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\x89PNG\r\n", b"\xff\xd8" + bytes(20), b"\xff\xd8\xff\xe0" * 3])
def test_bytes_without_a_jpeg_size_are_refused(data: bytes) -> None:
    with pytest.raises(WireError, match="JPEG"):
        header_size(data)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60), st.data())
def test_mutated_jpegs_have_a_size_or_are_refused(tail: bytes, data: st.DataObject) -> None:
    plain = bytearray(jpeg(16, 16))
    for _ in range(data.draw(st.integers(0, 5))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    for candidate in (bytes(plain), bytes(plain[: data.draw(st.integers(0, len(plain)))]), b"\xff\xd8" + tail):
        try:
            width, height = header_size(candidate)
        except WireError:
            continue
        assert 0 <= width <= 65_535
        assert 0 <= height <= 65_535
