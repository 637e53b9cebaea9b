"""The history page in a real browser: what it draws and lists, moving by keyboard, and marking a wrong label."""

from __future__ import annotations

import os
import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from journals import event, since
from playwright.sync_api import expect
from processes import Cli, free_port

from fer_stream.client.annotations import stored_annotations
from fer_stream.journal.sqlite import Writer
from fer_stream.settings import tree
from fer_stream.types import AnnotationQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page, Route
    from processes import Process

    from fer_stream.types import Event

TOKEN = "0123456789abcdef-anna"
EVIL = "<img src=x onerror=\"document.title='hacked'\">"


def happy_once() -> list[Event]:
    """One face at the door is happy, and the hall is offline."""
    return [
        event("camera.online", frame=0),
        since(1, event("face.entered", track=1, frame=1)),
        since(2, event("emotion.started", track=1, frame=2)),
        since(2, event("emotion.ended", track=1, frame=30)),
        since(1, event("face.left", track=1, frame=40)),
        event("camera.online", "hall", frame=10),
        event("camera.offline", "hall", frame=20),
        event("camera.offline", frame=60),
    ]


AUTUMN = int(datetime(2026, 10, 25, tzinfo=UTC).timestamp())
"""An hour before the clocks change in Berlin, at 03:00 there."""


def days() -> list[Event]:
    """Three days around the change of clocks: a face a minute, happy or sad for 30 s; 880 minutes are offline."""
    found = [event("camera.online", frame=AUTUMN - 86_400)]
    for number in range(3 * 1440):
        begin, label = AUTUMN - 86_400 + 60 * number, ("happy", "sad")[number % 2]
        if number == 2880:
            found.append(event("camera.online", frame=begin))
        if not 2000 <= number < 2880:
            made = [("face.entered", 5), ("emotion.started", 10), ("emotion.ended", 40), ("face.left", 45)]
            found += [
                since(
                    begin + (5 if kind.startswith("face") else 10),
                    event(kind, track=number + 1, frame=begin + at, label=label),
                )
                for kind, at in made
            ]
        if number == 2000:
            found.append(event("camera.offline", frame=begin))
    return found


class Past:
    """An aggregator and a page, of a journal with some events."""

    def __init__(self, folder: Path, short: Path, model: Path, events: list[Event]) -> None:
        self.cli = Cli(folder, model)
        self.settings = tree.load({"address": f"ipc://{short}", "journal.path": short / "events.db"})
        with Writer(short / "events.db") as journal:
            journal.append(events)
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
        made = Past(tmp_path_factory.mktemp("past"), Path(short), tiny_model, happy_once())
        yield made
        made.cli.close()


@pytest.fixture(scope="module")
def long_past(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Past]:
    with tempfile.TemporaryDirectory(prefix="f-", dir="/tmp") as short:
        made = Past(tmp_path_factory.mktemp("days"), Path(short), tiny_model, days())
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
    expect(opened).to_have_url(re.compile(re.escape(past.url) + "history.html#from=.*&camera=door&track=1&start="))
    expect(opened.locator("#selected")).to_contain_text("happy")  # it is still selected
    expect(opened.locator("#who")).to_have_text("You annotate as anna.")
    opened.locator("#annotate [name=label]").select_option("wrong")
    opened.locator("#annotate [name=note]").fill(EVIL)
    opened.locator("#annotate button").click()
    expect(opened.locator("#sent")).to_contain_text("Stored as annotation 1, by anna: wrong")
    expect(opened.locator("#spans")).to_contain_text(f"wrong (anna): {EVIL}")
    expect(opened.locator("#notes")).to_contain_text(f"wrong ({EVIL})")
    expect(opened).to_have_title("fer_stream history")
    shoot(opened, "history-marked")
    opened.locator("#annotate [name=label]").select_option(label="happy (as shown: confirm)")
    opened.locator("#annotate button").click()
    expect(opened.locator("#notes li")).to_have_count(2)
    expect(opened.locator("#notes li").first).to_contain_text("replaced by a later one")
    opened.keyboard.press("Escape")
    expect(opened.locator("#mark")).to_be_hidden()
    made, right = stored_annotations(past.settings, AnnotationQuery())
    assert (right.label, right.previous, right.start) == ("happy", "happy", made.start)
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
    canvas = opened.locator("#timeline")
    canvas.hover()
    before = canvas.get_attribute("aria-label") or ""
    opened.mouse.wheel(0, 200)  # the page scrolls
    expect(canvas).to_have_attribute("aria-label", before)
    canvas.hover()
    opened.keyboard.down("Control")
    opened.mouse.wheel(0, -200)
    opened.keyboard.up("Control")
    expect(canvas).not_to_have_attribute("aria-label", before)
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")


def test_without_an_aggregator_the_page_says_so_and_goes_on(past: Past, page: Callable[..., Page]) -> None:
    opened = page(past.url + "history.html")
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")
    past.aggregator.stop()
    opened.get_by_role("button", name="Zoom in").click()
    expect(opened.locator("#state")).to_have_attribute("data-state", "error")
    expect(opened.locator("#state")).to_contain_text("no aggregator answers")
    past.aggregator = past.start_aggregator()
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")  # without a hand


def test_a_page_without_the_right_token_says_so(past: Past, page: Callable[..., Page]) -> None:
    opened = page(past.url + "history.html")
    opened.get_by_role("button", name=re.compile("Select happy")).click()
    opened.locator("#enter [name=token]").fill("0123456789abcdef-carla")
    opened.locator("#enter button").click()
    expect(opened.get_by_role("alert")).to_have_text("This is not the token.")
    opened.get_by_label("Token").fill(TOKEN)
    opened.get_by_role("button", name="Enter").click()
    expect(opened.locator("#who")).to_have_text("You annotate as anna.")  # and the interval is still selected


def test_an_empty_period_and_a_wrong_filter_say_so(past: Past, page: Callable[..., Page]) -> None:
    opened = page(past.url + "history.html#from=2001-01-01T00:00:00Z&to=2001-01-02T00:00:00Z", timezone_id="UTC")
    expect(opened.locator("#state")).to_contain_text("No camera was online in this period; the latest event is of ")
    opened.locator("#period [name=to]").fill("2000-01-01T00:00:00")
    opened.get_by_role("button", name="Show").click()
    expect(opened.locator("#state")).to_have_text("The period is empty: its end must be after its beginning")
    opened.get_by_role("button", name="Latest events").click()
    expect(opened.locator("#count")).to_have_text("3 intervals")
    opened.locator("#filter [name=label]").select_option("happy")
    expect(opened.locator("#count")).to_have_text("1 interval passes the filter")
    opened.locator("#filter [name=track]").fill("one")
    assert (
        opened.locator("#filter [name=track]").evaluate("(input) => input.validationMessage").startswith("A track is")
    )


def test_a_wrong_clock_of_the_browser_is_reported(past: Past, page: Callable[..., Page]) -> None:
    opened = page(past.url)
    opened.clock.install(time=datetime.now(UTC) + timedelta(hours=2))
    opened.goto(past.url + "history.html")
    opened.clock.run_for(1000)
    expect(opened.locator("#zone")).to_contain_text("; this browser's clock is 2 h ahead of the server's")


def test_days_are_bars_that_open_and_seconds_are_intervals(long_past: Past, page: Callable[..., Page]) -> None:
    opened = page(long_past.url + "history.html", timezone_id="Europe/Berlin", locale="en-GB")
    expect(opened.locator("#state")).to_have_attribute("data-state", re.compile("much|shown"))
    opened.get_by_role("button", name="All").click()
    expect(opened.locator("#state")).to_have_text("Too many intervals to show each: a bar is 1 h; zoom in")
    expect(opened.locator("#zone")).to_have_text("times in Europe/Berlin, GMT+2, and GMT+1 from 25 Oct 2026, 02:00:00")
    assert "happy 33%, sad 33%, uncertain 33%" not in rows(opened)[0]  # 10 of 40 s are uncertain
    assert "happy 38%, sad 38%, uncertain 25%" in rows(opened)[1]
    expect(opened.locator("#filter [name=track]")).to_be_disabled()
    opened.locator("#filter [name=label]").select_option("sad")
    assert "happy" not in rows(opened)[1]
    shoot(opened, "history-days")
    opened.get_by_role("button", name=re.compile("Zoom in to 24 Oct 2026, 1[0-9]:")).first.click()
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")
    expect(opened.locator("#count")).to_have_text(re.compile("3[01] intervals pass the filter"))
    opened.get_by_role("button", name="Minute", exact=True).click()
    expect(opened.locator("#count")).to_have_text(re.compile("^[0-2] intervals? pass"))


def test_a_click_on_a_bar_opens_it(long_past: Past, page: Callable[..., Page]) -> None:
    opened = page(long_past.url + "history.html", timezone_id="UTC")
    expect(opened.locator("#state")).to_have_attribute("data-state", re.compile("much|shown"))
    opened.get_by_role("button", name="All").click()
    expect(opened.locator("#state")).to_contain_text("a bar is 1 h")
    box = opened.locator("#timeline").bounding_box()
    assert box is not None
    opened.mouse.click(box["x"] + box["width"] / 4, box["y"] + 22 + 18 + 30)
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")
    expect(opened.locator("#count")).to_have_text(re.compile("1[78][0-9] intervals"))


def test_the_hour_that_comes_twice_is_told_apart(long_past: Past, page: Callable[..., Page]) -> None:
    link = "history.html#from=2026-10-25T00:58:00Z&to=2026-10-25T01:02:00Z"
    opened = page(long_past.url + link, timezone_id="Europe/Berlin", locale="en-GB")
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")
    found = rows(opened)
    assert any("25 Oct 2026, 02:59:10 GMT+2" in row for row in found)
    assert any("25 Oct 2026, 02:00:10 GMT+1" in row for row in found)
    opened.get_by_role("button", name="Show").click()  # the fields show 02:58 and 02:02
    expect(opened.locator("#state")).to_have_attribute("data-state", "shown")
    assert rows(opened) == found
    ticks = opened.evaluate(
        """async () => (await import("./history/time.js"))
          .ticks(Date.UTC(2026, 9, 23, 22), Date.UTC(2026, 9, 27, 23), 6)
          .map(([time, text]) => `${new Date(time).toISOString()} ${text}`)"""
    )
    assert ticks == [
        "2026-10-23T22:00:00.000Z 24 Oct",
        "2026-10-24T22:00:00.000Z 25 Oct",
        "2026-10-25T23:00:00.000Z 26 Oct",
        "2026-10-26T23:00:00.000Z 27 Oct",
        "2026-10-27T23:00:00.000Z 28 Oct",
    ]


def test_nothing_sent_while_the_page_waits_for_answers_is_lost(past: Past, page: Callable[..., Page]) -> None:
    """An interval is marked twice over a slow link; the second label is entered before the first is answered."""
    opened = page(past.url + "history.html", timezone_id="UTC")
    opened.get_by_role("button", name=re.compile("Select happy")).click()
    opened.locator("#enter [name=token]").fill(TOKEN)
    opened.locator("#enter button").click()
    expect(opened.locator("#who")).to_have_text("You annotate as anna.")
    before = len(list(stored_annotations(past.settings, AnnotationQuery())))
    held: list[Route] = []
    holding = True

    def hold(route: Route) -> None:
        held.append(route) if holding else route.continue_()

    opened.route("**/api/v1/**", hold)
    for label, note in (("wrong", "the first"), ("happy", "the second")):
        opened.locator("#annotate [name=label]").select_option(label)
        opened.locator("#annotate [name=note]").fill(note)
        opened.locator("#annotate button").dblclick()
    opened.locator("#annotate [name=note]").fill("not yet sent")
    holding = False
    for route in held:
        route.continue_()
    expect(opened.locator("#sent")).to_contain_text("by anna: happy")
    expect(opened.locator("#notes")).to_contain_text("happy (the second)")
    expect(opened.locator("#annotate [name=note]")).to_have_value("not yet sent")
    made = list(stored_annotations(past.settings, AnnotationQuery()))[before:]
    assert [(each.label, each.note) for each in made] == [("wrong", "the first"), ("happy", "the second")]


def test_what_is_marked_on_the_page_is_read_by_agree(
    long_past: Past, page: Callable[..., Page], tmp_path: Path
) -> None:
    """From the browser through the page, the aggregator and the journal to the list, and on to the agreement."""
    link = f"history.html#from={moment(0)}&to={moment(130)}"
    opened = page(long_past.url + link, timezone_id="UTC")
    opened.get_by_role("button", name=re.compile("Select happy")).click()
    opened.locator("#enter [name=token]").fill(TOKEN)
    opened.locator("#enter button").click()
    for shown, said in (("happy", "happy"), ("sad", "happy")):  # the first is confirmed, the second is wrong
        opened.get_by_role("button", name=re.compile(f"Select {shown}")).first.click()
        opened.locator("#annotate [name=label]").select_option(said)
        opened.locator("#annotate button").click()
        expect(opened.locator("#sent")).to_contain_text(f"by anna: {said}")
    journal = ("--journal", long_past.settings.journal.path)
    for name, command in (
        ("events.jsonl", ("subscribe", *journal, "--format", "jsonl")),
        ("annotations.csv", ("annotations", "list", *journal, "--format", "csv")),
    ):
        done = long_past.cli.run(*command)
        assert done.popen.returncode == 0, done.err
        (tmp_path / name).write_text(done.out)
    output = tmp_path / "agreement"
    done = long_past.cli.run("agree", tmp_path / "events.jsonl", tmp_path / "annotations.csv", "--output", output)
    assert done.popen.returncode == 0, done.err
    assert "fer-stream and anna, 2 films, 1.0 min" in done.out
    assert re.search(r"agreement +0\.50", done.out), done.out


def moment(second: int) -> str:
    return datetime.fromtimestamp(AUTUMN + second, UTC).isoformat().replace("+00:00", "Z")
