"""The report on a recording in a browser: it requests no other file, shows all tracks, and is used by keyboard."""

from __future__ import annotations

import csv
import shutil
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


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, clip: Path) -> Path:
    """The report on two films with trials, compared with a coder; one film's name is long and has a blank."""
    folder = tmp_path_factory.mktemp("study")
    cli = Cli(folder, tiny_model)
    other = folder / "the evening session with all participants of group.avi"
    shutil.copy(clip, other)
    (folder / "trials.csv").write_text("start,end,name\n0,1,greeting\n1,3,task\n")
    (folder / "anna.csv").write_text(
        "film,start,end,label\n" + "".join(f"{path.stem},0.5,2,happy\n{path.stem},2,3,sad\n" for path in (clip, other))
    )
    assert cli.run("analyze", clip, other, "--output", "out", "--markers", "trials.csv").popen.returncode == 0
    done = cli.run("agree", "out", "anna.csv", "--track", 1, "--output", "out/agreement")
    assert done.popen.returncode == 0, done.err
    cli.close()
    return folder / "out" / "report.html"


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1200)])
def test_the_report_on_several_films(
    study: Path,
    report_page: Callable[[Path, str, int], Page],
    scheme: str,
    width: int,
) -> None:
    shown = report_page(study, scheme, width)
    assert shown.locator("h2").all_inner_texts() == [
        "Films", "Trials", "Agreement with coders", "Agreement of all raters",
    ]  # fmt: skip
    links = shown.get_by_role("table").get_by_role("link")
    expect(links).to_have_count(3)
    for number in range(3):
        expect(links.nth(number)).to_be_visible()
        name = links.nth(number).inner_text()
        links.nth(number).click()
        heading = "portraits, the" if name == "fer-stream and anna" else name.replace("-", " ")
        expect(shown.locator("h1")).to_contain_text(heading)
        shown.go_back()
