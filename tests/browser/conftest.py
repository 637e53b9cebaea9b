"""Fixtures: Debian's Chromium, headless, driven by Playwright. Errors on a page fail the test."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Request, WebSocket

PATIENCE = 60_000
"""Timeout of a test's waits in milliseconds."""

expect.set_options(timeout=PATIENCE)


CONTRAST = """() => {
  const luminance = (rgb) => { const [r, g, b] = rgb.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92
    : ((c + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return text.startsWith("color(")
    ? [...n.slice(0, 3).map((c) => 255 * c), n[3] ?? 1] : [...n.slice(0, 3), n[3] ?? 1]; };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const texts = [...element.childNodes].filter((n) => n.nodeType === 3 && n.textContent.trim());
    if (!texts.length || !element.checkVisibility() || element.closest(".unseen, .skip, .picture, svg")) continue;
    let ground = [0, 0, 0]; const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(parse(getComputedStyle(at).backgroundColor));
    for (const [r, g, b, a] of layers) ground = ground.map((c, n) => c * (1 - a) + [r, g, b][n] * a);
    const ink = parse(getComputedStyle(element).color).slice(0, 3);
    const [high, low] = [luminance(ink), luminance(ground)].sort((a, b) => b - a);
    found.push([(high + 0.05) / (low + 0.05), element.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""
"""Returns, for each visible text of a page, its contrast ratio with its background (WCAG 1.4.3: at least 4.5) and its
first 40 characters."""


@pytest.fixture(scope="module")
def resolver() -> list[str]:
    """Chromium's options for resolving host names; a module may override them."""
    return []


@pytest.fixture(scope="module")  # not longer: while it is open, this thread has a running event loop
def chromium(resolver: list[str]) -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "these tests need Debian's chromium: deploy/apt-install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *resolver])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """``page(url, **context)`` opens a page; its errors, and requests to another origin, fail the test."""
    contexts, wrong = [], []

    def open_page(url: str, **options: object) -> Page:
        context = chromium.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 900}), **options)  # type: ignore[arg-type]
        contexts.append(context)
        opened = context.new_page()
        opened.set_default_timeout(PATIENCE)
        origin = url.split("/")[2]

        def check(request: Request | WebSocket) -> None:
            if request.url.split("/")[2] != origin:
                wrong.append(request.url)

        opened.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        opened.on("console", lambda log: wrong.append(log.text) if "Content Security Policy" in log.text else None)
        opened.on("request", check)
        opened.on("websocket", check)
        opened.goto(url)
        return opened

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def contrasts() -> Callable[[Page], list[tuple[float, str]]]:
    """``contrasts(page)`` returns what `CONTRAST` does."""
    return lambda page: page.evaluate(CONTRAST)


@pytest.fixture
def report_page(
    page: Callable[..., Page], contrasts: Callable[[Page], list[tuple[float, str]]]
) -> Callable[[Path, str, int], Page]:
    """``report_page(path, scheme, width)`` opens a report: one legible file, not wider than the window."""

    def open_report(path: Path, scheme: str, width: int) -> Page:
        shown = page(path.as_uri(), color_scheme=scheme, viewport={"width": width, "height": 900})
        requested, logged = [], []
        shown.on("request", lambda request: requested.append(request.url))
        shown.on("console", lambda message: logged.append(message.text))
        shown.reload()
        assert (requested, logged) == ([path.as_uri()], [])
        assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page does not scroll sideways"
        assert [text for ratio, text in contrasts(shown) if ratio < 4.5] == []
        return shown

    return open_report
