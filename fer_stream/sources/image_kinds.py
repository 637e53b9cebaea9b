"""What kind of image a file is, by its content, and how many pictures it has."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from fer_stream.errors import WireError
from fer_stream.imaging.jpeg import END, START, header_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = 64
"""Number of bytes at a file's beginning from which its kind is known."""

PNG_TABLES = 4096
"""Number of bytes at a PNG's beginning that contain the chunk of an animation (acTL)."""

MAX_JPEG = 1 << 24
"""Number of bytes at a file's beginning in which the second JPEG of a film is searched for."""

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    *((b"P%d" % number, "pnm") for number in range(1, 7)),
)

_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"hevc": "heic", b"hevx": "heic"}
"""Brands of images and image sequences (ISO/IEC 23008-12)."""

_METADATA = 1 << 20
"""Number of bytes at a JPEG's beginning that contain its metadata."""

MAX_PAGES = 100_000
"""Maximum number of a TIFF's pages that are read."""

MAX_TAGS = 512
"""Maximum number of a page's tags that are read."""

WIDTH, HEIGHT = 0x0100, 0x0101
"""TIFF's tags of the size."""

SUBFILE, PARTS = 0x00FE, 0x014A
"""TIFF's tags: the kind of a page (1: a smaller copy), and further directories, such as that of raw pixels."""

PLANES = 0x011C
"""TIFF's tag of how colours are stored: 1: together, 2: each in its own plane."""

_ASCII, _SHORT = 2, 3
"""TIFF's numbers of the types of texts and of 16-bit values."""


def kind(path: Path) -> str:
    """Return the kind of image in a file; an empty text if it is no image, or a GIF, which is read as a video.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return kind_of(file.read(HEAD))


def kind_of(head: bytes) -> str:
    """Return the kind of image that begins with these bytes, or an empty text."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, HEAD, 4))]
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "")
    for magic, name in _MAGIC:
        if head.startswith(magic):
            plain = name != "pnm" or head[2:3].isspace()
            return name if plain else ""
    return ""


def is_image(path: Path) -> bool:
    """Return whether `Images` reads this file."""
    try:
        return path.is_file() and bool(kind(path))
    except OSError:  # not readable: the caller will open it, and get the reason
        return False


def is_film(path: Path) -> bool:
    """Return whether a file has JPEGs of the same size one after the other, as a video has (``.mjpeg``).

    A photo may contain a second JPEG, too: a preview, which has another size, or a stereo pair, which is marked (MPF).
    """
    try:
        if not path.is_file():  # a named pipe would block
            return False
        with path.open("rb") as file:
            data = file.read(MAX_JPEG)
        if kind_of(data[:HEAD]) != "jpeg" or b"MPF\0" in data[:_METADATA]:
            return False
        end = data.find(END + START) + len(END)
        return end >= len(END) and header_size(data[:end]) == header_size(data[end:])
    except (OSError, WireError):
        return False


def is_animation(path: Path) -> bool:
    """Return whether an image file has several pictures: an animation, a film, or a TIFF of several pages."""
    try:
        data = path.read_bytes() if is_image(path) else b""
    except OSError:
        return False
    what = kind_of(data[:HEAD])
    several = what == "tiff" and sum(not one.get(SUBFILE, 0) & 1 for one in directories(data)) > 1
    return several or animated(data, what) or (what == "jpeg" and is_film(path))


def animated(data: bytes, what: str) -> bool:
    """Return whether an image is an animated WebP, PNG or AVIF; ``what`` is its kind (`kind_of`)."""
    return (
        (what == "webp" and b"ANMF" in data)
        or (what == "png" and b"acTL" in data[:PNG_TABLES])
        or (what == "avif" and b"avis" in data[:HEAD])
    )


def directories(data: bytes) -> Iterator[dict[int, int]]:
    """Yield a TIFF's directories, one for each page: tags with their first values; ``{}`` for one that is cut off."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    number, offset, size = ("Q", "Q", 20) if big else ("H", "I", 12)
    seen: set[int] = set()
    following = 8 if big else 4
    while len(seen) < MAX_PAGES:
        found: dict[int, int] = {}
        try:
            (at,) = struct.unpack_from(order + offset, data, following)
            if not at or at in seen:
                return
            seen.add(at)
            (count,) = struct.unpack_from(order + number, data, at)
            at += struct.calcsize(number)
            following = at + count * size
            for entry in range(at, min(following, at + MAX_TAGS * size), size):
                tag, form = struct.unpack_from(order + "HH", data, entry)
                place = entry + size - struct.calcsize(offset)
                (found[tag],) = struct.unpack_from(order + ("H" if form == _SHORT else "I"), data, place)
        except struct.error:
            yield {}
            return
        yield found


def ascii_values(data: bytes) -> dict[int, str]:
    """Return the texts in the first directory of a TIFF, or of Exif data, which have the same form, by their tags."""
    order = "<" if data[:2] == b"II" else ">"
    found: dict[int, str] = {}
    try:
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        for entry in range(at + 2, at + 2 + 12 * min(count, MAX_TAGS), 12):
            tag, form, size = struct.unpack_from(order + "HHI", data, entry)
            if form == _ASCII:
                (where,) = (entry + 8,) if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)
                found[tag] = data[where : where + size].split(b"\0")[0].decode("latin-1").strip()
    except struct.error:  # cut off, or no such data
        pass
    return found
