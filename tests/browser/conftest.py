"""A real Chromium, headless: Debian's, driven by Playwright. What goes wrong on a page fails its test."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")  # not longer: while it is there, this thread has a running event loop
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "these tests need Debian's chromium: deploy/apt-install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """``page(url, **context)`` opens a page; its errors, and requests to anywhere but there, fail the test."""
    contexts, wrong = [], []

    def open_page(url: str, **options: object) -> Page:
        context = chromium.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 900}), **options)  # type: ignore[arg-type]
        contexts.append(context)
        made = context.new_page()
        made.set_default_timeout(60_000)
        origin = url.split("/")[2]
        made.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        made.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
        made.on("request", lambda it: wrong.append(it.url) if it.url.split("/")[2] != origin else None)
        made.on("websocket", lambda it: wrong.append(it.url) if it.url.split("/")[2] != origin else None)
        made.goto(url)
        return made

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong
