"""The documentation in a browser: search, colour schemes, width of a phone; no requests to other hosts (`page`)."""

from __future__ import annotations

import re
import threading
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from camera_servers import folder
from documents import build
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("site")
    done = build(path)
    assert done.returncode == 0, done.stderr
    with ThreadingHTTPServer(("127.0.0.1", 0), folder(path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_search_finds_a_page(page: Callable[..., Page], site: str) -> None:
    shown = page(f"{site}/index.html")
    shown.get_by_role("textbox", name="Search").press_sequentially("hysteresis")  # the page listens to key events
    first = shown.locator(".md-search-result__link").first
    expect(first).to_have_attribute(
        "href", re.compile("explanation/smoother")
    )  # waits past the results for the first letters
    first.click()
    shown.wait_for_url("**/explanation/smoother.html*")


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_its_window(page: Callable[..., Page], site: str, width: int) -> None:
    shown = page(f"{site}/index.html", viewport={"width": width, "height": 800})
    for name in ("index", "tutorial", "reference/settings", "reference/python", "faults", "models/emotion"):
        shown.goto(f"{site}/{name}.html")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width, name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_uses_the_system_s_colour_scheme(page: Callable[..., Page], site: str, scheme: str) -> None:
    shown = page(f"{site}/index.html", color_scheme=scheme)
    colour = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = (int(part) for part in colour.strip("rgb()").split(",")[:3])
    assert (red + green + blue < 3 * 128) == (scheme == "dark")
