"""Writes whole lines to a file, pipe or terminal, also if a single write fails or is partial."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO


class Lines:
    """Writes lines at once. If an error cuts a line short, its rest is written before the next line."""

    def __init__(self, raw: BinaryIO) -> None:
        """Take an unbuffered binary stream."""
        self._raw = raw
        self._rest = b""

    def write(self, text: str) -> None:
        """Write one line; it may take as long as the reader does.

        Raises:
            OSError: it cannot be written, or not completely.
        """
        self._write_rest()
        line = text.encode() + b"\n"
        self._rest = line
        try:
            self._write_rest()
        except OSError:
            if self._rest == line:  # nothing of it is there
                self._rest = b""
            raise

    def _write_rest(self) -> None:
        while self._rest:
            written = self._raw.write(self._rest)
            if written is None:  # another program has made the stream non-blocking
                select.select([], [self._raw], [])
                continue
            self._rest = self._rest[written:]

    def close(self) -> None:
        """Close the stream; a second call does nothing."""
        self._raw.close()
