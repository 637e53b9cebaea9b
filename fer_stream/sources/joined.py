"""Recordings that were joined byte by byte in one file, as by ``cat a.mp4 b.mp4``, or lack their beginning."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fer_stream.sources.truncation import boxes, is_iso, is_matroska, segments

if TYPE_CHECKING:
    from pathlib import Path


def addresses(path: Path) -> list[str]:
    """Return FFmpeg's addresses of the recordings in a file. Of MP4 and Matroska, FFmpeg would only read the first.

    Other formats are joined by their demuxers, or give one address.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(8)
        begins = [0]
        if is_matroska(head):
            begins = segments(file, size)[0]
        elif is_iso(head):
            index = False  # whether the recording that began last has its index
            for kind, begin, _ in boxes(file, size):
                if kind == b"ftyp" and index:
                    begins.append(begin)
                    index = False
                index |= kind == b"moov"
            if not index:  # the last one cannot be opened alone
                begins = begins[:-1] or [0]
    if len(begins) == 1:
        return [f"file:{path}"]  # without "file:", FFmpeg takes "12:30.mp4" for a protocol
    ends = [*begins[1:], size]
    return [f"subfile,,start,{begin},end,{end},,:file:{path}" for begin, end in zip(begins, ends, strict=True)]


def lacks_index(path: Path) -> bool:
    """Return whether an MP4 has content, but not the box ``moov`` that describes it."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return is_iso(file.read(8)) and b"moov" not in {kind for kind, _, end in boxes(file, size) if end <= size}
    except OSError:
        return False
