"""How much of a file is missing at its end, from the sizes in its own structure.

A container's frame count and duration are not used: with an edit list, longer sound or a late first picture, both
differ from the pictures that are shown.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FREE, _CONTENT = (b"free", b"skip"), (b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"styp", b"uuid", b"meta")
"""Kinds of boxes: free space, and those that a video consists of."""

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

_DV_FRAME = {0: 120_000, 1: 144_000}
"""Bytes of a DV frame, by the header's flag for 50 Hz."""

MAX_BOXES = 100_000
"""Maximum number of boxes or chunks that are read. A video written in fragments has thousands."""

MAX_PARTS = 10 * MAX_BOXES
"""Maximum number of the smaller parts that are read: tags of FLV, pictures of IVF, elements of Matroska."""

MIN_ZEROS = 1 << 16
"""From this number on, zero bytes at the end are not content: a copy that had reserved its space was interrupted."""

MIN_SHOWN = 0.0005
"""The smallest fraction that a message rounds to 0.1%."""


def missing(path: Path) -> float:
    """Return the fraction of a file that is missing at its end, or zeroed there; 0 if it is complete or gives no sizes.

    Known formats are MP4 and MOV, AVI and WebP (RIFF), Matroska and WebM, GIF (which does not say how much is missing),
    FLV, Ogg, WMV (ASF), Y4M, IVF and DV.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(8192)
        file.seek(0)
        if head[:4] == b"RIFF":
            end = _riff(file)
        elif is_iso(head):
            end = _boxes(file, size)
        elif is_matroska(head):
            end = segments(file, size)[1]
        elif head[:3] == b"GIF":
            file.seek(max(0, size - 1024))
            return 0.0 if b";" in file.read().rstrip(b"\0")[-1:] else 1 / size
        elif head[:3] == b"FLV":
            end = _flv(file, size)
        elif head[:4] == b"DKIF":
            end = _ivf(file)
        elif head[:4] == b"OggS":
            end = _ogg(file, size)
        elif head[:16] == _ASF:
            end = _asf(head)
        elif head[:9] == b"YUV4MPEG2":
            begin = head.find(b"FRAME\n")
            end = _repeated(size, begin, _next(file, begin + 1, b"FRAME\n") - begin)
        elif head[:3] == b"\x1f\x07\x00":  # the header section of DV
            end = _repeated(size, 0, _DV_FRAME[head[3] >> 7])
        else:
            return 0.0
        return max(0, end - (size - _zeros(file, size))) / max(1, end)


def is_iso(head: bytes) -> bool:
    """Return whether a file with this beginning consists of boxes, as MP4 and MOV do."""
    return head[4:8] in (*_CONTENT, *_FREE, b"wide")


def is_matroska(head: bytes) -> bool:
    """Return whether a file with this beginning is Matroska or WebM."""
    return head[:4] == _EBML.to_bytes(4, "big")


def loss_in_words(fraction: float) -> str:
    """Return in words how much of a file is missing."""
    return f"at least {fraction:.1%} of it is missing" if fraction >= MIN_SHOWN else "its end is missing"


def _zeros(file: BinaryIO, size: int) -> int:
    """Return how many bytes at the end are zero; 0 if they are fewer than `MIN_ZEROS`."""
    file.seek(max(0, size - MIN_ZEROS))
    if file.read().strip(b"\0"):
        return 0
    low, high = 0, size // MIN_ZEROS  # find the first of the blocks that are zero
    while low < high:
        middle = (low + high) // 2
        file.seek(middle * MIN_ZEROS)
        if file.read(MIN_ZEROS).strip(b"\0"):
            low = middle + 1
        else:
            high = middle
    return size - low * MIN_ZEROS


def _next(file: BinaryIO, begin: int, mark: bytes) -> int:
    """Return the position of the first ``mark`` after ``begin``, or ``begin`` if it is not in the next 64 MiB."""
    file.seek(begin)
    found = file.read(1 << 26).find(mark)
    return begin + max(0, found)


def _repeated(size: int, begin: int, length: int) -> int:
    """Return where the last of several parts of the same length ends."""
    return begin + -(-(size - begin) // length) * length


def _flv(file: BinaryIO, size: int) -> int:
    """Return where the last tag ends. After each tag, its length is repeated."""
    file.seek(max(0, size - 4))
    before = size - 4 - int.from_bytes(file.read(4), "big")
    file.seek(max(0, before))
    if before > 0 and before + 15 + int.from_bytes(file.read(4)[1:], "big") == size:
        return size
    end = 13
    for _ in range(MAX_PARTS):
        file.seek(end)
        head = file.read(11)
        if not head or head[0] & 0x1F not in (8, 9, 18):  # something else was appended
            return end
        end += 15 + int.from_bytes(head[1:4], "big")
    return 0


def _ivf(file: BinaryIO) -> int:
    """Return where the last picture ends. Each has a header of 12 bytes."""
    end = 32
    for _ in range(MAX_PARTS):
        file.seek(end)
        head = file.read(12)
        if not head.strip(b"\0"):
            return end
        end += 12 + int.from_bytes(head[:4], "little")
    return 0


def _ogg(file: BinaryIO, size: int) -> int:
    """Return where the last page ends (RFC 3533, 6)."""
    begin = max(0, size - 2 * 65_307)  # a page has at most 65,307 bytes
    file.seek(begin)
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return size + (at >= 0)
    table = tail[at + 27 : at + 27 + tail[at + 26]]
    return begin + at + 27 + tail[at + 26] + sum(table)


def _asf(head: bytes) -> int:
    """Return the size that the header gives; 0 if it gives none, as in a broadcast."""
    at = head.find(_ASF_PROPERTIES)
    if not 0 <= at <= len(head) - 92 or head[at + 88] & 1:
        return 0
    return int(struct.unpack_from("<Q", head, at + 40)[0])


def _riff(file: BinaryIO) -> int:
    """Return where the RIFF chunks end: a long AVI has several."""
    end = 0
    for _ in range(MAX_BOXES):
        file.seek(end)
        head = file.read(8)
        if len(head) < 8 or head[:4] != b"RIFF":
            break
        length = struct.unpack("<4xI", head)[0]
        if length in (0, 0xFFFFFFFF):  # the recorder was stopped before it wrote the length
            return _chunks(file, end + 12)
        end += 8 + length + length % 2
    return end


def _chunks(file: BinaryIO, begin: int) -> int:
    """Return where the last chunk ends in an AVI whose lists may have no length."""
    end = begin
    for _ in range(MAX_PARTS):
        file.seek(end)
        head = file.read(8)
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        if len(head) < 8 or not kind.isalnum():  # the end, or something else was appended
            return end
        if kind == b"LIST" and file.read(4) in (b"movi", b"rec "):
            end += 12
        else:
            end += 8 + length + length % 2
    return 0


def _boxes(file: BinaryIO, size: int) -> int:
    """Return where the last top-level box that is not free space ends in an ISO file (ISO/IEC 14496-12, 4.2)."""
    end = 0
    for kind, _, following in boxes(file, size):
        if following <= size or kind in _CONTENT:  # otherwise something else was appended, or free space is cut off
            end = end if kind in _FREE else following
    return end


def boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each top-level box in an ISO file, its beginning, and its end, which may be beyond the file."""
    end = 0
    for _ in range(MAX_BOXES):
        if end >= size:
            return
        file.seek(end)
        head = file.read(16)
        if len(head) < 8:
            if head.strip(b"\0"):
                yield b"mdat", end, end + 8  # a box whose kind is cut off
            return
        length, kind = struct.unpack_from(">I4s", head)
        if length == 1 and len(head) == 16:
            length = struct.unpack_from(">Q", head, 8)[0]
        if not kind.isalnum() or 0 < length < 8:  # something else was appended
            return
        begin, end = end, end + length if length else size  # 0: up to the end of the file
        yield kind, begin, end


def segments(file: BinaryIO, size: int) -> tuple[list[int], int]:
    """Return where each of the joined recordings in a Matroska file begins, and where the last one ends."""
    begins, end = [0], 0
    while len(begins) < MAX_BOXES:
        end = _matroska(file, size, begins[-1])
        file.seek(end)
        if end <= begins[-1] or not is_matroska(file.read(4)):
            break
        begins.append(end)
    return begins, end


def _matroska(file: BinaryIO, size: int, begin: int) -> int:
    """Return where the last element of a recording ends (RFC 8794, 4 to 6).

    Segments and clusters may have an unknown length.
    """
    end = begin
    for _ in range(MAX_PARTS):
        file.seek(end)
        identifier = _number(file, keep=True)
        if identifier is None or (identifier == _EBML and end > begin):  # the end, or something else was appended
            return end
        length = _number(file, keep=False)
        if length is not None:
            end = file.tell() + length
            if identifier == _SEGMENT:
                return end
        elif identifier in (_SEGMENT, _CLUSTER):
            end = file.tell()
        else:
            return min(size, end)
    return 0


def _number(file: BinaryIO, *, keep: bool) -> int | None:
    """Read a variable-size integer; ``None`` if it is unknown or cut off. ``keep`` its length marker, as ids do."""
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
