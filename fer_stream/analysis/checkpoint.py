"""Stores the result of each frame on disk, without pixels, so that an interrupted analysis can resume."""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_HEAD = struct.Struct("<II")
"""Header of a stored answer: its length and its CRC-32."""

_MAGIC = b"fer-stream answers\n"


def _check(answer: bytes) -> int:
    # Start at 1: the CRC-32 of an empty answer is then not 0, and zeros that a power failure left are not valid.
    return zlib.crc32(answer, 1)


class Checkpoint:
    """A file with the recognizers' answers for the first frames of one recording, in order.

    ``identity`` names the analysis that the answers belong to. Answers of another analysis are discarded. A damaged or
    truncated answer is discarded with all answers after it.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        head = _MAGIC + identity.encode() + b"\n"
        self._file = path.open("r+b" if path.exists() else "w+b")
        self.left = self._whole(head)
        """Number of answers not recalled yet."""
        self._empty = not self.left
        if not self.left:
            self._file.seek(0)
            self._file.write(head)
        self._file.truncate()
        self._file.seek(len(head))

    @staticmethod
    def ours(path: Path) -> bool:
        """Return whether this class wrote a file, or began to: an interruption may leave an empty file."""
        try:
            if path.is_symlink():
                return False
            with path.open("rb") as file:
                return _MAGIC.startswith(file.read(len(_MAGIC)))
        except OSError:
            return False

    def _whole(self, head: bytes) -> int:
        """Return the number of intact answers, and seek to the end of the last one."""
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
        """Return the next stored answer, in the order of `keep`; ``None`` after the last."""
        if not self.left:
            return None
        self.left -= 1
        size, _ = _HEAD.unpack(self._file.read(_HEAD.size))
        return self._file.read(size)

    def keep(self, answer: bytes) -> None:
        """Append an answer. All stored answers must have been recalled before."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(_HEAD.pack(len(answer), _check(answer)) + answer)
        self._file.flush()
        self._empty = False

    def close(self, *, finished: bool) -> None:
        """Close the file, and delete it if the analysis has ``finished`` or there is no answer to recall."""
        self._file.close()
        if finished or self._empty:
            self._path.unlink(missing_ok=True)
