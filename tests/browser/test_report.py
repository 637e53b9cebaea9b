"""The report on a recording in a browser: it requests no other file, shows all tracks, and is used by keyboard."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from processes import Cli, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, clip: Path) -> Path:
    folder = tmp_path_factory.mktemp("report")
    cli = Cli(folder, tiny_model)
    assert cli.run("analyze", clip, "--output", "out", "--workers", 1).popen.returncode == 0
    cli.close()
    return folder / "out" / "report.html"


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_the_report_is_self_contained_and_accessible(
    report: Path,
    report_page: Callable[[Path, str, int], Page],
    contrasts: Callable[[Page], list[tuple[float, str]]],
    scheme: str,
    width: int,
) -> None:
    shown = report_page(report, scheme, width)
    drawings = shown.locator("figure > [role=img]")
    expect(drawings).to_have_count(4)
    for drawing in drawings.all():
        assert drawing.get_attribute("aria-label")
        box = drawing.locator("svg").bounding_box()
        assert box is not None
        assert box["width"] >= 700, "the text is readable on a phone too"
    with (report.parent / "faces.csv").open() as stream:
        tracks = {row["track"] for row in csv.DictReader(stream) if row["track"]}
    texts = shown.locator("svg text").all_text_contents()
    assert {*tracks, "happy", "uncertain"} <= set(texts)
    assert [text for ratio, text in contrasts(shown) if ratio < 4.5] == []

    reached: list[str] = []
    while "BODY" not in reached:  # until the focus leaves the last element
        shown.keyboard.press("Tab")
        reached.append(shown.evaluate("document.activeElement.tagName"))
        if reached[-1] == "SUMMARY":
            shown.keyboard.press("Enter")
        elif reached[-1] == "FIGURE":
            shown.keyboard.press("ArrowRight")
            wait_for(lambda: shown.evaluate("document.activeElement.scrollLeft > 0"), "the figure to scroll")
    assert reached.count("SUMMARY") == 4, "each table opens by keyboard"
    assert reached.count("FIGURE") == (4 if width == 390 else 0), "figures wider than the page scroll by keyboard"
    expect(shown.locator("details[open] table")).to_have_count(4)
    rows = shown.get_by_role("table").first.get_by_role("row")
    assert {row.split()[0] for row in rows.all_inner_texts()[1:]} == tracks
    assert shown.get_by_role("cell", name="happy").first.is_visible()
    assert [text for ratio, text in contrasts(shown) if ratio < 4.5] == []
