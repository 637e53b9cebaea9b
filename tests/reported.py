"""Reads a report as a reader sees it: its figures, and the table and the drawing of each section."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from drawn import Drawing

if TYPE_CHECKING:
    from collections.abc import Iterator

_EMPTY = {"meta", "link", "br"}
"""Elements without an end."""

_NUMBER = re.compile(r"(?<!&#x)(?<!\d)\d[\d,]*(?:\.\d+)?")

_LITERATURE = "An expression is not a feeling"
"""How the paragraph begins whose numbers are those of papers and laws."""


@dataclass
class Part:
    """A section: its note, its table with the head as the first row, its drawing, and where its links lead."""

    note: str = ""
    alt: str = ""
    """The text that replaces the drawing."""
    table: list[list[str]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    svg: str = ""

    def rows(self) -> list[dict[str, str]]:
        """Return the rows of the table by column."""
        return [dict(zip(self.table[0], row, strict=True)) for row in self.table[1:]]

    def drawing(self, place: int = 0) -> Drawing:
        """Return the drawing; of several pairs of axes, one from the top."""
        return Drawing(self.svg, place)


class Report(HTMLParser):
    """A page.

    Args:
        text: the file's content.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.title = self.lead = self.made = ""
        self.figures: dict[str, str] = {}
        self.parts: dict[str, Part] = {}
        self.warnings: list[str] = []
        self._tags: list[str] = []
        self._key = ""
        self._part = Part()
        drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
        self.feed(re.sub(r"<svg.*?</svg>", "<svg></svg>", text, flags=re.DOTALL))
        self.close()
        for part, svg in zip([part for part in self.parts.values() if part.alt], drawings, strict=True):
            part.svg = svg

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in _EMPTY:
            return
        found = dict(attributes)
        self._tags.append(found.get("class") or tag if tag == "p" else tag)
        if tag == "h2":
            self._part = Part()
        elif tag == "tr":
            self._part.table.append([])
        elif tag in {"td", "th"}:
            self._part.table[-1].append("")
        elif tag == "a":
            self._part.links.append(found["href"] or "")
        elif found.get("role") == "img":
            self._part.alt = found["aria-label"] or ""
        elif self._tags[-1] == "broken":
            self.warnings.append("")
        elif tag == "p" and "footer" in self._tags:
            self.made = ""  # the last paragraph stays

    def handle_endtag(self, tag: str) -> None:
        if self._tags:
            self._tags.pop()

    def handle_data(self, text: str) -> None:
        within = self._tags[-1] if self._tags else ""
        if "footer" in self._tags:
            self.made += text
        elif within == "h1":
            self.title = text
        elif within == "h2":
            self.parts[text] = self._part
        elif within == "lead":
            self.lead = text
        elif within == "note":
            self._part.note = text
        elif within == "dt":
            self._key = text
        elif within == "dd":
            self.figures[self._key] = text
        elif within == "broken":
            self.warnings[-1] += text
        elif within in {"td", "th", "a"}:
            self._part.table[-1][-1] += text


def number(text: str) -> float:
    """Return the number in a cell or a figure, which may have thousands separators and a percent sign."""
    return float(text.replace(",", "").rstrip("%").strip())


def numbers(text: str) -> list[float]:
    """Return the numbers in a sentence."""
    return [float(found.replace(",", "")) for found in re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)]


def falsified(page: str) -> Iterator[tuple[str, str]]:
    """Return the page with a wrong digit in one of its numbers, for each number that a reader sees or hears.

    The first digit is the wrong one. A number in a drawing counts, too; those of papers and laws do not.

    Returns:
        Pairs of what is wrong, and the page's text.
    """
    begin = page.index("<body>")
    for node in re.finditer(r'>([^<>]*\d[^<>]*)<|aria-label="([^"]*\d[^"]*)"', page[begin:]):
        group = 1 if node[1] else 2
        if unescape(node[group]).lstrip().startswith(_LITERATURE) or "stroke-linejoin" in node[group]:
            continue
        for found in _NUMBER.finditer(node[group]):
            at = begin + node.start(group) + found.start()
            wrong = str((int(page[at]) + 5) % 10)
            yield f"{found[0]} -> {wrong}... in {node[group]!r}", page[:at] + wrong + page[at + 1 :]
