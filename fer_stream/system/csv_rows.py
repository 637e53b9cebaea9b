"""Writes CSV that every program reads."""

from __future__ import annotations

import csv
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_END = "\r\n"


class CsvWriter:
    r"""Writes rows with commas, and line ends of one ``\n``; cells are quoted if they need it.

    Before Python 3.13, `csv.writer` does not quote ``\r`` unless lines end with it, and readers then see a new row.

    Args:
        file: opened with ``newline=""``.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._rows = csv.writer(self, lineterminator=_END)

    def write(self, text: str) -> int:
        """Write a row's text, which `csv.writer` passes here whole."""
        return self._file.write(text.removesuffix(_END) + "\n")

    def writerow(self, row: Iterable[Any]) -> None:
        """Write a row; ``None`` is an empty cell."""
        self._rows.writerow(row)

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write several rows."""
        self._rows.writerows(rows)
