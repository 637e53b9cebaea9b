"""Reads a report as a reader sees it: its figures, and the table and the drawing of each section."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Part(NamedTuple):
    """A section: its table with the head as the first row, the texts of its drawing, and where its links lead."""

    table: list[list[str]]
    drawn: list[str]
    links: list[str]

    def rows(self) -> list[dict[str, str]]:
        """Return the rows of the table by column."""
        return [dict(zip(self.table[0], row, strict=True)) for row in self.table[1:]]


class Report(HTMLParser):
    """The page in a file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.figures: dict[str, str] = {}
        self.parts: dict[str, Part] = {}
        self.warnings: list[str] = []
        self._tags: list[str] = []
        self._key = ""
        self._part = Part([], [], [])
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in {"meta", "link", "br"}:
            return
        found = dict(attributes)
        self._tags.append("warning" if found.get("class") == "broken" else tag)
        if tag == "h2":
            self._part = Part([], [], [])
        elif tag == "tr":
            self._part.table.append([])
        elif tag in {"td", "th"}:
            self._part.table[-1].append("")
        elif tag == "a":
            self._part.links.append(found["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        if self._tags:
            self._tags.pop()

    def handle_data(self, text: str) -> None:
        within = self._tags[-1] if self._tags else ""
        if within == "h2":
            self.parts[text] = self._part
        elif within == "dt":
            self._key = text
        elif within == "dd":
            self.figures[self._key] = text
        elif within == "warning":
            self.warnings.append(text)
        elif within in {"td", "th", "a"}:
            self._part.table[-1][-1] += text
        elif "svg" in self._tags and within == "text":
            self._part.drawn.append(text.strip())


def number(text: str) -> float:
    """Return the number in a cell or a figure, which may have thousands separators and a percent sign."""
    return float(text.replace(",", "").rstrip("%").strip())
