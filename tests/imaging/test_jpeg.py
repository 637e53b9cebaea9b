"""A JPEG is known from its header alone: what may be passed on, what not, and what is none."""

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
    """A JPEG with another byte in its start of frame, counted from the marker."""
    data = bytearray(jpeg())
    data[data.index(b"\xff\xc0") + at] = value
    return bytes(data)


@pytest.mark.parametrize(
    "flags", [(), (cv2.IMWRITE_JPEG_OPTIMIZE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 1), (cv2.IMWRITE_JPEG_QUALITY, 5)]
)
@pytest.mark.parametrize("grey", [False, True])
def test_what_a_camera_sends_has_a_size_and_pixels(flags: tuple[int, ...], grey: bool) -> None:
    data = jpeg(37, 21, flags, grey)
    it = Jpeg(data)
    assert it.data is data
    assert it.shape == (21, 37, 3)
    assert it.plain
    np.testing.assert_array_equal(it.decode(), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    assert it.decode() is it.decode(), "once"


def test_tables_of_motion_jpeg_may_be_left_out() -> None:
    """As webcams do (AVI1): every decoder knows them."""
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
    ids=["12 bits", "CMYK", "arithmetic", "lossless", "turned", "Exif", "two frames", "progressive", "scans"],
)
def test_what_others_may_show_otherwise_is_not_plain(data: bytes) -> None:
    assert Jpeg(data).shape == (48, 64, 3)
    assert not Jpeg(data).plain


def test_one_that_no_message_holds_is_not_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg()
    monkeypatch.setattr("fer_stream.imaging.jpeg.MAX_BYTES", len(data))
    assert Jpeg(data).plain
    assert not Jpeg(data[:-2] + b"\0" + data[-2:]).plain


def test_one_that_is_turned_comes_the_right_way_up() -> None:
    upright, turned = Jpeg(jpeg()).decode(), Jpeg(inserted(jpeg(), exif(6))).decode()
    np.testing.assert_array_equal(turned, cv2.rotate(upright, cv2.ROTATE_90_CLOCKWISE))


@pytest.mark.parametrize("length", [0, 1, 2, 100, 600, 1000, len(jpeg()) - 2, len(jpeg()) - 1])
def test_one_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(WireError, match="JPEG"):
        _ = Jpeg(jpeg()[:length]).shape
    with pytest.raises(WireError, match="does not decode"):
        Jpeg(jpeg()[: length // 2]).decode()


def test_the_end_of_a_picture_within_is_not_its_own() -> None:
    """Cameras put a small picture for their menu into a segment."""
    nested = inserted(jpeg(), b"\xff\xe2" + struct.pack("!H", 2 + len(jpeg(8, 8))) + jpeg(8, 8))
    assert Jpeg(nested).shape == (48, 64, 3)
    with pytest.raises(WireError, match="cut short"):
        _ = Jpeg(nested[:-2]).shape


def test_a_header_within_what_is_no_marker_is_not_hidden() -> None:
    """Decoders look for the next marker there, and would find another size."""
    with pytest.raises(WireError, match="broken marker"):
        _ = Jpeg(inserted(jpeg(), b"\xff\x00" + segments(jpeg(640, 480))[0xC0][2:])).shape


def test_what_lies_behind_the_end_does_no_harm() -> None:
    assert Jpeg(jpeg() + bytes(13)).shape == (48, 64, 3)


@pytest.mark.parametrize("data", [b"", b"no JPEG", b"\xff\xd8" + b"\xff" * 1000, bytes(1000)])
def test_anything_can_be_given_and_what_is_none_is_refused(data: bytes) -> None:
    for look in (lambda: Jpeg(data).shape, lambda: Jpeg(data).decode()):
        with pytest.raises(WireError):
            look()


def claims(suffix: str, width: int, height: int) -> bytes:
    """A small picture whose header says that it is of another size."""
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
    """OpenCV's own limit is set in our own processes alone; in others a file of 5 KB could take gigabytes."""
    assert Jpeg(claims(suffix, 64, 64)).decode().shape == (64, 64, 3)
    with pytest.raises(WireError, match=r"a picture of 16000x13000 is over the limit of 50000000 pixels"):
        Jpeg(claims(suffix, 16_000, 13_000)).decode()


def test_pictures_and_frames_have_pixels_whatever_they_hold() -> None:
    pixels = Jpeg(jpeg()).decode()
    for content in (pixels, Jpeg(jpeg())):
        for it in (Picture(content), Frame("door", 1, Nanoseconds(0), content)):
            assert it.size == (64, 48)
            assert it.content is content
            np.testing.assert_array_equal(it.image, pixels)
    assert Picture(pixels).image is pixels


# Sizes from headers


@pytest.mark.parametrize("flags", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)])
def test_the_size_of_a_real_jpeg(flags: tuple[int, ...]) -> None:
    assert header_size(jpeg(37, 21, flags)) == (37, 21)
    assert header_size(memoryview(jpeg(640, 8, flags))) == (640, 8)


def test_fill_bytes_and_comments_before_the_size() -> None:
    plain = jpeg(37, 21)
    comment = b"\xff\xfe" + struct.pack("!H", 2 + 4) + b"\xff\xc0ab"
    assert header_size(plain[:2] + b"\xff\xff\xff" + comment + b"\xff\x01" + plain[2:]) == (37, 21)


def test_a_small_jpeg_that_would_decode_to_gigabytes_is_known_before() -> None:
    plain = bytearray(jpeg(37, 21))
    at = plain.index(b"\xff\xc0")
    plain[at + 5 : at + 9] = struct.pack("!HH", 65_500, 65_500)
    with pytest.raises(WireError, match="65500x65500 is over the limit"):
        check_size(*header_size(plain))


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\x89PNG\r\n", b"\xff\xd8" + bytes(20), b"\xff\xd8\xff\xe0" * 3])
def test_what_has_no_jpeg_size_is_refused(data: bytes) -> None:
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
