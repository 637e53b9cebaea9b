"""JPEGs, modified JPEGs, and films whose packets are JPEGs."""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@cache
def jpeg(width: int = 64, height: int = 48, flags: tuple[int, ...] = (), grey: bool = False, seed: int = 0) -> bytes:
    """Return a smooth random picture in colour or grey."""
    rough = np.random.default_rng(seed).integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    image = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".jpg", image[:, :, 0] if grey else image, list(flags))[1])


def segments(data: bytes) -> dict[int, bytes]:
    """Return the header's segments by marker, those with the same marker joined; the scan's entry has the rest."""
    found: dict[int, bytes] = {}
    at = 2
    while data[at + 1] != 0xDA:
        end = at + 2 + struct.unpack_from("!H", data, at + 2)[0]
        found[data[at + 1]] = found.get(data[at + 1], b"") + data[at:end]
        at = end
    return found | {0xDA: data[at:]}


def undecodable(data: bytes) -> bytes:
    """Return a JPEG with a complete header that cannot be decoded: its quantization tables are missing."""
    return data[:2] + b"".join(part for marker, part in segments(data).items() if marker != 0xDB)


def inserted(data: bytes, segment: bytes) -> bytes:
    """Return a JPEG with an additional segment at its beginning."""
    return data[:2] + segment + data[2:]


def exif(orientation: int) -> bytes:
    """Return an Exif segment with an orientation."""
    tiff = b"MM\0*" + struct.pack("!IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return b"\xff\xe1" + struct.pack("!H", 2 + 6 + len(tiff)) + b"Exif\0\0" + tiff


def without_tables(data: bytes) -> bytes:
    """Return a JPEG as in a webcam's AVI file: without the Huffman tables, which are the standard ones."""
    kept = segments(data) | {0xE0: b"\xff\xe0\x00\x10AVI1" + bytes(10)}
    return data[:2] + b"".join(part for marker, part in kept.items() if marker != 0xC4)


def film(path: Path, packets: Sequence[bytes], width: int = 64, height: int = 48, rate: int = 20) -> Path:
    """Write an AVI file whose pictures are these packets."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)

    head = struct.pack("<14I", 1_000_000 // rate, 0, 0, 16, len(packets), 0, 1, 1 << 20, width, height, 0, 0, 0, 0)
    stream = b"vidsMJPG" + struct.pack("<IHH8I", 0, 0, 0, 0, 1, rate, 0, len(packets), 1 << 20, 2**32 - 1, 0)
    stream += struct.pack("<4h", 0, 0, width, height)
    form = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
    streams = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", form))
    data, index = b"movi", b""
    for packet in packets:
        index += struct.pack("<4s3I", b"00dc", 16, len(data), len(packet))
        data += chunk(b"00dc", packet)
    lists = chunk(b"LIST", b"hdrl" + chunk(b"avih", head) + streams) + chunk(b"LIST", data)
    path.write_bytes(chunk(b"RIFF", b"AVI " + lists + chunk(b"idx1", index)))
    return path
