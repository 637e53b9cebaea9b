"""Reads tables of text as people and programs write them: CSV, TSV and their relatives.

Encodings: UTF-8, with or without a byte order mark, UTF-16, and Windows-1252 (Latin-1) where it is not valid UTF-8.
Delimiters: comma, semicolon or tab. Times: seconds, with a decimal point or comma, ``mm:ss.fff`` or ``hh:mm:ss.fff``.
Every error message names the file and the line. A first line such as ``sep=;`` is left out.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.errors import AnnotationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

MOST_BYTES = 256 * 2**20
"""Size of the largest file that is read: 256 MiB."""

MOST_SECONDS = 1e8
"""Greatest time, in seconds from the film's beginning: three years."""

MOST_NAMED = 20
"""Columns that a message lists at most."""

MISSING = frozenset({"", "n/a", "na", "nan", "null", "none"})
"""Texts of cells without a value, in lower case."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FOREIGN = (
    (b"PK\x03\x04", "a spreadsheet or an archive"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet of an old format"),
    (b"%PDF-", "a PDF"),
)
"""The first bytes of files that are mistaken for tables."""

_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,4}):([0-5]?\d(?:[.,]\d*)?)", re.ASCII)
_SEPARATOR = re.compile(r"\A\ufeff?sep=[^\r\n]?(?=[\r\n])", re.IGNORECASE)
"""A first line in which Excel is told the delimiter; an empty one takes its place."""


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        AnnotationError: it cannot be read, is empty, or is larger than `MOST_BYTES`.
    """
    try:
        if path.is_dir():
            raise AnnotationError(f"{path} is a folder, not a file")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise AnnotationError(f"{path} has {size / 2**20:,.0f} MiB, more than {MOST_BYTES // 2**20}: split it")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise AnnotationError(f"{path} cannot be read: {reason}") from error
    if not content.strip():
        raise AnnotationError(f"{path} is empty")
    return content


def read_text(path: Path) -> str:
    """Return a file's text, which may have any of the encodings above.

    Raises:
        AnnotationError: as `read_bytes`, or the file is not text, or has a byte order mark only.
    """
    content = read_bytes(path)
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if what := next((what for mark, what in _FOREIGN if content.startswith(mark)), None):
        raise AnnotationError(f"{path} is {what}: save the table as CSV, in UTF-8")
    if marked is None and content[:2].count(0) == 1:  # text in Latin letters, two bytes each, without a mark
        marked = "utf-16-le" if content[1] == 0 else "utf-16-be"
    for encoding in [marked] if marked else ["utf-8", "cp1252", "latin-1"]:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            continue
        if not text.strip("\ufeff \t\r\n"):
            raise AnnotationError(f"{path} is empty")
        return _SEPARATOR.sub("", text)
    raise AnnotationError(f"{path} is not text: give a table as CSV or TSV, in UTF-8")


class Row(NamedTuple):
    """One row below the heading: its line in the file, from 1, and its cells by the columns' names in lower case."""

    line: int
    cells: Mapping[str, str]


class Sheet:
    """A table with a heading, as `read_sheet` finds it.

    ``names`` are the columns as the file writes them; they are found by their names in lower case.
    """

    def __init__(self, path: Path, heading: tuple[int, Sequence[str]], body: Sequence[tuple[int, list[str]]]) -> None:
        self.path = path
        self.names = tuple(name.strip() for name in heading[1])
        self._line, self._body = heading[0], body
        self._keys = [name.lower() for name in self.names]

    def __contains__(self, column: str) -> bool:
        return column in self._keys

    def column(self, what: str, *names: str, needed: bool = True) -> str:
        """Return which of the names is a column; ``""`` if none is and it is not ``needed``.

        Raises:
            AnnotationError: several of the names are columns, or one is there twice, or none is and it is ``needed``.
        """
        found = [key for key in self._keys if key in names]
        if len(found) > 1:
            raise AnnotationError(
                f"{self.path}, line {self._line}: {_listed(found)} could both be {what}: rename or remove one"
            )
        if not found and needed and any(map(_is_time, self._keys)):
            raise AnnotationError(_headless(self.path))
        if not found and needed:
            raise AnnotationError(
                f"{self.path}, line {self._line}: there is no column for {what}, such as {names[0]!r}; the columns "
                f"are {_listed([_short(name) or '(no name)' for name in self.names])}"
            )
        return found[0] if found else ""

    def rows(self) -> Iterator[Row]:
        """Yield the rows that are not empty.

        Raises:
            AnnotationError: a row has more cells than the heading, or fewer.
        """
        width = len(self._keys)
        for line, cells in self._body:
            while len(cells) > width and not cells[-1].strip():
                cells.pop()
            if len(cells) != width:
                hint = ": a decimal comma needs another delimiter, or quotes" if len(cells) > width else ""
                raise AnnotationError(
                    f"{self.path}, line {line} has {len(cells)} cells, but the heading has {width}{hint}"
                )
            yield Row(line, dict(zip(self._keys, (cell.strip() for cell in cells), strict=True)))

    def seconds(self, row: Row, column: str) -> float:
        """Return the time in a cell, in seconds.

        Raises:
            AnnotationError: the cell has no time.
        """
        try:
            return seconds(row.cells[column])
        except ValueError as error:
            raise AnnotationError(f"{self.path}, line {row.line}, column {column}: {error}") from None

    def text(self, row: Row, column: str) -> str:
        """Return the text in a cell.

        Raises:
            AnnotationError: it is empty.
        """
        if row.cells[column].lower() in MISSING:
            raise AnnotationError(f"{self.path}, line {row.line}: the column {column} is empty")
        return row.cells[column]


def read_sheet(path: Path, header: Collection[str] = ()) -> Sheet:
    """Return the table in a file.

    The heading is the first line that is not empty; with ``header``, the first one with all these names (in lower
    case), because some programs write lines about the observation above it.

    Raises:
        AnnotationError: the file cannot be read, or has no heading.
    """
    return parse_sheet(path, read_text(path), header)


def parse_sheet(path: Path, text: str, header: Collection[str] = ()) -> Sheet:
    """As `read_sheet`, for the file's ``text``."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for delimiter in _delimiters(text) if header else _delimiters(text)[:1]:
        rows = _cells(path, text, delimiter)
        for at, (line, cells) in enumerate(rows if header else rows[:1]):
            names = {cell.strip().lower() for cell in cells}
            if names.issuperset(header) and (header or not all(map(_is_time, names))):
                return Sheet(path, (line, cells), rows[at + 1 :])
    raise AnnotationError(_headless(path, header))


def _headless(path: Path, header: Collection[str] = ()) -> str:
    wanted = f"the columns {', '.join(sorted(header))}" if header else "the names of the columns"
    return f"{path} has no heading with {wanted}: add one as the first line"


def _delimiters(text: str) -> list[str]:
    """Return the delimiters, the likeliest first: the one that the first line with any has most often."""
    for line in text.split("\n"):
        bare = re.sub(r'"[^"]*"', "", line)
        if any(bare.count(each) for each in "\t;,"):
            return sorted("\t;,", key=lambda each: -bare.count(each))
    return [","]


def _cells(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise AnnotationError(f"{path}, line {line}: {error}; is a quotation mark not closed?") from error
    return rows


def _is_time(text: str) -> bool:
    try:
        seconds(text)
    except ValueError:
        return False
    return True


def seconds(text: str) -> float:
    """Return a time in seconds: ``12.5``, ``12,5``, ``0:12.5`` or ``0:00:12.5``.

    Raises:
        ValueError: it is none of these; the message is a sentence.
    """
    if len(text) <= 40:  # before a pattern sees it
        if _NUMBER.fullmatch(text):
            found = float(text.replace(",", "."))
            if math.isfinite(found) and abs(found) <= MOST_SECONDS:
                return found
            raise ValueError(f"{text!r} is too far from the film's beginning: give seconds of the film's clock")
        if clock := _CLOCK.fullmatch(text):
            hours, minutes, rest = clock[1] or "0", clock[2], clock[3].replace(",", ".")
            if (not clock[1] or int(minutes) < 60) and len(hours) <= 4:
                return int(hours) * 3600 + int(minutes) * 60 + float(rest)
    raise ValueError(f"{text!r:.60} is not a time: give seconds, such as 83.5, or 1:23.5, or 0:01:23.5")


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"


def _listed(names: Sequence[str]) -> str:
    names = names if len(names) <= MOST_NAMED else [*names[:MOST_NAMED], f"{len(names) - MOST_NAMED} more"]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
