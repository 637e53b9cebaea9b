"""How much of a file is missing at its end, from the sizes in its own structure.

A container's frame count and duration are not used: with an edit list, longer sound or a late first picture, both
differ from the pictures that are shown.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067

MAX_BOXES = 100_000
"""Maximum number of boxes or chunks that are read. A video written in fragments has thousands."""


def missing(path: Path) -> int:
    """Return how many bytes are missing at a file's end; 0 if it is complete or its format has no sizes.

    Known formats are MP4 and MOV, AVI and WebP (RIFF), Matroska and WebM, and GIF.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        file.seek(0)
        if head[:4] == b"RIFF":
            end = _riff(file, size)
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            end = _boxes(file, size)
        elif head[:4] == _EBML.to_bytes(4, "big"):
            end = _matroska(file)
        elif head[:3] == b"GIF":
            file.seek(max(0, size - 1024))
            return int(b";" not in file.read().rstrip(b"\0")[-1:])
        else:
            return 0
    return max(0, end - size)


def _riff(file: BinaryIO, size: int) -> int:
    """Return where the RIFF chunks end: a long AVI has several."""
    end = 0
    for _ in range(MAX_BOXES):
        file.seek(end)
        head = file.read(8)
        if len(head) < 8 or head[:4] != b"RIFF":
            break
        length = struct.unpack("<4xI", head)[0]
        if length in (0, 0xFFFFFFFF):  # the recorder was stopped before it wrote the length
            return size
        end += 8 + length + length % 2
    return end


def _boxes(file: BinaryIO, size: int) -> int:
    """Return where the last top-level box of an ISO file ends (ISO/IEC 14496-12, 4.2)."""
    end = 0
    for _ in range(MAX_BOXES):
        if end >= size:
            break
        file.seek(end)
        head = file.read(16)
        if len(head) < 8:
            return end + 8
        length, kind = struct.unpack_from(">I4s", head)
        if length == 1 and len(head) == 16:
            length = struct.unpack_from(">Q", head, 8)[0]
        if length == 0:  # up to the end of the file
            return size
        if length < 8 or not kind.isalnum():  # something else was appended
            return size
        end += length
    return end


def _matroska(file: BinaryIO) -> int:
    """Return where the segment ends, 0 where its length is unknown (RFC 8794, 4 to 6)."""
    for _ in range(2):
        identifier = _number(file, keep=True)
        length = _number(file, keep=False)
        if identifier is None or length is None:
            return 0
        if identifier == _SEGMENT:
            return file.tell() + length
        file.seek(length, os.SEEK_CUR)
    return 0


def _number(file: BinaryIO, *, keep: bool) -> int | None:
    """Read a variable-size integer; ``None`` if it is unknown or cut off. ``keep`` keeps the marker, as ids do."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    value = int.from_bytes(first + rest, "big")
    if len(rest) < length - 1:
        return None
    plain = value & ((1 << 7 * length) - 1)
    if not keep and plain == (1 << 7 * length) - 1:
        return None
    return value if keep else plain
