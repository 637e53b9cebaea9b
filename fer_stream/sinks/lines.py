"""Writes complete lines to a file, pipe or terminal, even if a single write fails or is partial."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO


class Lines:
    """Writes lines without a buffer. If an error cuts a line short, its rest is written before the next line."""

    def __init__(self, raw: BinaryIO) -> None:
        """Write to ``raw``, an unbuffered binary stream."""
        self._raw = raw
        self._rest = b""

    def write(self, text: str) -> None:
        """Write one line; this blocks while the reader does not read.

        Raises:
            OSError: the line cannot be written, or not completely.
        """
        self._write_rest()
        line = text.encode() + b"\n"
        self._rest = line
        try:
            self._write_rest()
        except OSError:
            if self._rest == line:  # nothing was written, so the whole line counts as not delivered
                self._rest = b""
            raise

    def _write_rest(self) -> None:
        while self._rest:
            written = self._raw.write(self._rest)
            if written is None:  # another program has set the stream to non-blocking
                select.select([], [self._raw], [])
                continue
            self._rest = self._rest[written:]

    def close(self) -> None:
        """Close the stream; a second call does nothing."""
        self._raw.close()
