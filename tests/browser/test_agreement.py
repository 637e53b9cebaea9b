"""The report on agreement in a browser: self-contained, readable on a phone and in the dark, used by keyboard."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from fer_stream.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

    ReportPage = Callable[[Path, str, int], Page]
    Contrasts = Callable[[Page], list[tuple[float, str]]]

OURS = "film,start,end,label\na,0,10,happy\na,10,14,sad\nb,0,5,neutral\nb,6,12,happy\nc,0,20,sad\n"
ANNA = "film,start,end,label\na,1,9,happy\na,10,16,sad\nb,0,5,neutral\nb,5,12,surprise\nc,0,20,sad\nc,25,26,angry\n"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agreement")
    (folder / "us.csv").write_text(OURS)
    (folder / "anna.csv").write_text(ANNA)
    assert main(["agree", str(folder / "us.csv"), str(folder / "anna.csv"), "--output", str(folder / "out")]) == 0
    return folder / "out/agreement.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_report_is_read_on_any_screen(
    report: Path, report_page: ReportPage, contrasts: Contrasts, scheme: str, width: int
) -> None:
    shown = report_page(report, scheme, width)
    drawings = shown.locator("figure > [role=img]")
    expect(drawings).to_have_count(2)
    for drawing in drawings.all():
        assert re.search(r"Confusion of us and anna over [\d.]+ s", drawing.get_attribute("aria-label") or "")
        size = drawing.locator("svg text").first.evaluate("text => text.getBoundingClientRect().height")
        assert 11 <= size <= 20, "neither too small to be read nor blown up"
        colours = drawing.locator("svg").evaluate(
            "svg => [getComputedStyle(svg).color, getComputedStyle(document.body).color]"
        )
        assert colours[0] == colours[1], "numbers have the strongest colour, also on full cells"
    row = shown.get_by_role("table").first.get_by_role("row").nth(1)
    assert re.search(r"us / anna\s+3\s+0\.", row.inner_text())

    for summary in shown.locator("summary").all():
        summary.focus()
        shown.keyboard.press("Enter")
    expect(shown.locator("details[open] table")).to_have_count(2)
    assert [text for ratio, text in contrasts(shown) if ratio < 4.5] == []
    expect(shown.get_by_text("anna: angry, surprise are no label of ours")).to_be_visible()
