"""What was found in each frame, on disk and without a pixel: an analysis that was cut off goes on from it."""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_HEAD = struct.Struct("<II")
"""Of an answer: its length, and its CRC-32."""


_MAGIC = b"fer-stream answers\n"


def _check(answer: bytes) -> int:
    return zlib.crc32(answer, 1)  # not 0 of nothing: a disk that lost its power may have left zeros


class Checkpoint:
    """What workers answered for the first frames of one recording, in order.

    ``identity`` says what they are answers to; those to anything else are thrown away, and so is what is damaged or cut
    off, with all after it.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        head = _MAGIC + identity.encode() + b"\n"
        self._file = path.open("r+b" if path.exists() else "w+b")
        self.left = self._whole(head)
        """How many there still are to recall."""
        if not self.left:
            self._file.seek(0)
            self._file.write(head)
        self._file.truncate()
        self._file.seek(len(head))

    @staticmethod
    def ours(path: Path) -> bool:
        """Tell whether a file is one that this class wrote."""
        try:
            if path.is_symlink():
                return False
            with path.open("rb") as file:
                return file.read(len(_MAGIC)) == _MAGIC
        except OSError:
            return False

    def _whole(self, head: bytes) -> int:
        """Return how many whole answers the file holds, and stand behind the last of them."""
        if self._file.read(len(head)) != head:
            return 0
        count, end = 0, len(head)
        while len(found := self._file.read(_HEAD.size)) == _HEAD.size:
            size, check = _HEAD.unpack(found)
            if len(answer := self._file.read(size)) < size or _check(answer) != check:
                break
            count, end = count + 1, self._file.tell()
        self._file.seek(end)
        return count

    def recall(self) -> bytes | None:
        """Return the next answer that was kept, in the order of `keep`; ``None`` after the last."""
        if not self.left:
            return None
        self.left -= 1
        size, _ = _HEAD.unpack(self._file.read(_HEAD.size))
        return self._file.read(size)

    def keep(self, answer: bytes) -> None:
        """Add an answer. All kept ones have been recalled."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(_HEAD.pack(len(answer), _check(answer)) + answer)
        self._file.flush()

    def close(self, *, finished: bool) -> None:
        """Close the file, and delete it once it is of no more use."""
        self._file.close()
        if finished:
            self._path.unlink(missing_ok=True)
