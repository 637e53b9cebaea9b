"""The history page in a real browser: what it draws and lists, moving by keyboard, and marking a wrong label."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from journals import event
from playwright.sync_api import expect
from processes import Cli, free_port, wait_for

from fer_stream.client.annotations import stored_annotations
from fer_stream.journal.sqlite import Writer
from fer_stream.settings import tree
from fer_stream.types import AnnotationQuery, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page
    from processes import Process

    from fer_stream.types import Event

TOKEN = "0123456789abcdef-anna"
EVIL = "<img src=x onerror=\"document.title='hacked'\">"


def since(second: int, made: Event) -> Event:
    """The same event, of a face or an interval that began then."""
    return replace(made, data=replace(made.data, start_time=Nanoseconds(second * 1_000_000_000)))  # type: ignore[type-var, call-arg]


class Past:
    """An aggregator and a page, of a journal in which one face at the door is happy, and the hall is offline."""

    def __init__(self, folder: Path, short: Path, model: Path) -> None:
        self.cli = Cli(folder, model)
        self.settings = tree.load({"address": f"ipc://{short}", "journal.path": short / "events.db"})
        with Writer(short / "events.db") as journal:
            journal.append(
                [
                    event("camera.online", frame=0),
                    since(1, event("face.entered", track=1, frame=1)),
                    since(2, event("emotion.started", track=1, frame=2)),
                    since(2, event("emotion.ended", track=1, frame=30)),
                    since(1, event("face.left", track=1, frame=40)),
                    event("camera.online", "hall", frame=10),
                    event("camera.offline", "hall", frame=20),
                    event("camera.offline", frame=60),
                ]
            )
        token = folder / "anna.token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        port = free_port()
        (folder / "live.toml").write_text(f'live.bind = "127.0.0.1:{port}"\nlive.annotators.anna = "{token}"\n')
        self.url = f"http://127.0.0.1:{port}/"
        self.aggregator = self.start_aggregator()
        live = self.cli.start("live", "--config", folder / "live.toml", "--connect", self.settings.address)
        live.until(lambda: "the live page is at" in live.out, "the page")

    def start_aggregator(self) -> Process:
        journal = self.settings.journal.path
        started = self.cli.start("aggregator", "--bind", self.settings.address, "--journal", journal)
        started.until_said("ready at")
        return started


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Past]:
    with tempfile.TemporaryDirectory(prefix="f-", dir="/tmp") as short:
        made = Past(tmp_path_factory.mktemp("past"), Path(short), tiny_model)
        yield made
        made.cli.close()


def rows(page: Page) -> list[str]:
    return page.locator("#spans tbody tr").all_inner_texts()


def shoot(page: Page, name: str) -> None:
    """Keep a picture for people, if they ask for it."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_the_latest_events_are_shown_to_the_second(past: Past, page: Callable[..., Page]) -> None:
    opened = page(past.url + "history.html", timezone_id="Asia/Kolkata", locale="en-GB")
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")
    expect(opened.locator("#zone")).to_have_text(re.compile("times in Asia/(Kolkata|Calcutta)"))
    found = rows(opened)
    assert [("happy" in row, "uncertain" in row) for row in found] == [(False, True), (True, False), (False, True)]
    assert "1 Jan 1970, 05:30:02" in found[1]
    expect(opened.locator("#legend")).to_contain_text("unknown, or events missing")
    opened.locator("#filter [name=label]").select_option("happy")
    assert len(rows(opened)) == 1
    opened.locator("#filter [name=track]").fill("7")
    assert rows(opened) == []
    shoot(opened, "history")


def test_by_keyboard_and_at_360_pixels(past: Past, page: Callable[..., Page]) -> None:
    small = {"width": 360, "height": 740}
    opened = page(past.url, viewport=small, color_scheme="light", timezone_id="UTC", locale="en-GB")
    opened.get_by_role("link", name="History").click()
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    shoot(opened, "history-360")
    canvas = opened.locator("#timeline")
    canvas.focus()
    before = canvas.get_attribute("aria-label")
    canvas.press("+")
    expect(canvas).not_to_have_attribute("aria-label", before or "")
    nearer = canvas.get_attribute("aria-label")
    canvas.press("ArrowRight")
    expect(canvas).not_to_have_attribute("aria-label", nearer or "")
    opened.get_by_role("button", name="Day").click()
    expect(canvas).to_have_attribute("aria-label", re.compile("3 intervals"))
    opened.get_by_role("link", name="Live").click()
    expect(opened).to_have_title("fer_stream live")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_every_text_can_be_read(
    past: Past, page: Callable[..., Page], contrasts: Callable[[Page], list[tuple[float, str]]], scheme: str
) -> None:
    opened = page(past.url + "history.html", color_scheme=scheme)
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")
    opened.get_by_role("button", name=re.compile("Select happy")).click()
    assert [text for ratio, text in contrasts(opened) if ratio < 4.5] == []


def test_a_wrong_label_is_marked(past: Past, page: Callable[..., Page]) -> None:
    opened = page(past.url + "history.html", timezone_id="UTC", locale="en-GB")
    opened.get_by_role("button", name=re.compile("Select happy")).click()
    expect(opened.locator("#annotate")).to_be_hidden()
    opened.locator("#enter [name=token]").fill(TOKEN)
    opened.locator("#enter button").click()
    expect(opened).to_have_url(past.url + "history.html")
    opened.get_by_role("button", name=re.compile("Select happy")).click()
    opened.locator("#annotate [name=label]").select_option("wrong")
    opened.locator("#annotate [name=note]").fill(EVIL)
    opened.locator("#annotate button").click()
    expect(opened.locator("#sent")).to_contain_text("Stored as annotation 1, by anna: wrong")
    expect(opened.locator("#spans")).to_contain_text(f"wrong (anna): {EVIL}")
    expect(opened.locator("#selected")).to_contain_text("Marked as wrong by anna")
    expect(opened).to_have_title("fer_stream history")
    shoot(opened, "history-marked")
    (made,) = stored_annotations(past.settings, AnnotationQuery())
    assert (made.camera, made.track, made.label, made.previous, made.note) == ("door", 1, "wrong", "happy", EVIL)
    assert (made.start, made.end) == (2_000_000_000, 30_000_000_000)


def test_a_click_on_the_drawing_selects(past: Past, page: Callable[..., Page]) -> None:
    opened = page(past.url + "history.html")
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")
    box = opened.locator("#timeline").bounding_box()
    assert box is not None
    opened.mouse.click(box["x"] + box["width"] / 3, box["y"] + 22 + 18 + 9)
    expect(opened.locator("#selected")).to_contain_text("door, track 1")
    expect(opened.locator("#selected")).to_contain_text("happy")
    opened.mouse.wheel(0, -200)
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")


def test_without_an_aggregator_the_page_says_so_and_goes_on(past: Past, page: Callable[..., Page]) -> None:
    opened = page(past.url + "history.html")
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")
    past.aggregator.stop()
    opened.get_by_role("button", name="Zoom in").click()
    expect(opened.locator("#state")).to_have_attribute("data-state", "error")
    expect(opened.locator("#state")).to_contain_text("no aggregator answers")
    past.aggregator = past.start_aggregator()

    def shown() -> bool:
        opened.get_by_role("button", name="Zoom out").click()
        opened.wait_for_timeout(1000)
        return opened.locator("#state").get_attribute("data-state") == "shown"

    wait_for(shown, "the history again")
