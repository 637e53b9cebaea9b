"""The table of faults in docs/faults.md: one row for each fault, replaced when the fault is tried again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

HEAD = "| fault | what happened | figure | held | command, day |\n|---|---|---|---|---|\n"
PROPERTY = "fault"
"""Name of a row in a test's user properties; the report carries them from the xdist worker that ran the test."""

BEGIN, END = "<!-- rows -->\n", "<!-- end of rows -->\n"


class Tell(Protocol):
    """Adds a row: the fault, what happened, the figure, and pairs of a value and its limit."""

    def __call__(self, fault: str, happened: str, figure: str, *limits: tuple[float, float]) -> None: ...


class Row(NamedTuple):
    fault: str
    happened: str
    figure: str
    held: bool
    command: str

    def text(self) -> str:
        day = time.strftime("%Y-%m-%d", time.gmtime())
        cells = (self.fault, self.happened, self.figure, "yes" if self.held else "**no**", f"`{self.command}`, {day}")
        return "| " + " | ".join(cells) + " |\n"


def told(reports: Iterable[pytest.TestReport]) -> list[Row]:
    """Return the rows of tests that have run."""
    return [
        Row(*value)
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]


def text(rows: list[Row]) -> str:
    return HEAD + "".join(row.text() for row in rows)


def write(page: Path, rows: list[Row]) -> None:
    """Write rows into the page's table; each replaces an earlier row of the same fault."""
    whole = page.read_text()
    before, _, rest = whole.partition(BEGIN)
    old, _, after = rest.partition(END)
    known = {line.split(" | ")[0].removeprefix("| "): line for line in old.splitlines(keepends=True)[2:]}
    known |= {row.fault: row.text() for row in rows}
    page.write_text(before + BEGIN + HEAD + "".join(known.values()) + END + after)
