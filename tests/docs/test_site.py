"""The documents as a site: it builds in strict mode, is complete, and requests nothing from other hosts."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
import reference
from documents import ROOT, build

import fer_stream
from fer_stream import plugins
from fer_stream.cli import main
from fer_stream.events import schema
from fer_stream.live.api import contract
from fer_stream.protocol import messages
from fer_stream.settings import tree
from fer_stream.settings.schema import dotted, leaves
from fer_stream.types import EventType

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """The addresses that a page loads, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        if tag in ("script", "img", "iframe", "source", "video"):
            self.loaded.append(values.get("src", ""))
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev", "edit"):
            self.loaded.append(values.get("href", ""))


def test_pages_have_no_include_directives() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert not re.search(r"^-+8 *<", page.read_text(), re.MULTILINE), page  # the build does not process them


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    """A link to a missing page, in a copy of the pages."""
    for name in ("docs", "mkdocs.yml", "fer_stream", "tests", "models", "training", "CHANGELOG.md", "CONTRIBUTING.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs").unlink()
    subprocess.run(["cp", "-r", ROOT / "docs", tmp_path / "docs"], check=True)
    page = tmp_path / "docs/tutorial.md"
    page.write_text(page.read_text() + "\n[nowhere](nowhere.md)\n")
    done = build(tmp_path / "site", tmp_path)
    assert done.returncode == 1
    assert "tutorial.md' contains a link 'nowhere.md'" in done.stderr


def test_no_page_loads_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for path in pages:
        for address in Page(path).loaded:
            assert "//" not in address, f"{path.relative_to(site)} loads {address}"
        assert "mermaid" not in path.read_text(), "its script would be fetched from another host"
    for path in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text()), path


def test_the_search_index_has_every_page(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text())
    known = {entry["location"].partition("#")[0] for entry in index["docs"]}
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - {"404.html", "examples/wall.html"}
    assert pages <= known


def test_every_setting_is_documented(site: Path) -> None:
    anchors = Page(site / "reference/settings.html").anchors
    assert {dotted(path) for path in leaves(tree.Settings.model_json_schema())} <= anchors


def test_every_command_and_option_is_documented(site: Path) -> None:
    text = (site / "reference/command-line.html").read_text()
    assert {command.name for command in main.COMMANDS} <= Page(site / "reference/command-line.html").anchors
    for command in main.COMMANDS:
        for flag in command.options:
            assert f"<code>{flag}" in text


def test_every_event_is_documented_and_the_schemas_match_the_code(site: Path) -> None:
    text = (site / "reference/events.html").read_text()
    for kind in EventType:
        assert f"<code>{kind}</code>" in text
    assert json.loads((site / "reference/event.schema.json").read_text()) == schema.event_schema()
    assert json.loads((site / "reference/asyncapi.json").read_text()) == schema.asyncapi()
    assert json.loads((site / "reference/openapi.json").read_text()) == contract.openapi()


def test_every_metric_is_documented(site: Path) -> None:
    anchors = Page(site / "reference/metrics.html").anchors
    assert len(reference.collectors()) > 10
    assert {"fer_stream_frames_total", "fer_stream_frame_age_seconds", "fer_stream_workers"} <= anchors


def test_the_protocol_page_matches_the_code(site: Path) -> None:
    text = (site / "reference/protocol.html").read_text()
    for name in (*messages.Kind.__members__, *messages.Encoding.__members__, *plugins.LINKS, *plugins.BROADCASTS):
        assert f"<code>{name}</code>" in text
    assert f"{messages.MAX_PAYLOAD:,}" in text
    assert f"{messages.HEADER_SIZE} bytes, big endian" in text


def test_every_public_name_is_documented(site: Path) -> None:
    anchors = Page(site / "reference/python.html").anchors
    assert {f"fer_stream.{name}" for name in fer_stream.__all__} <= anchors
    assert {
        f"fer_stream.plugins.{name}" for name in ("Source", "Detector", "Classifier", "Transport", "Sink")
    } <= anchors


def test_the_site_has_cards_and_other_pages_of_the_repository(site: Path) -> None:
    for page in ("models/emotion", "models/mtcnn", "models/training", "project/contributing", "project/changelog"):
        assert (site / f"{page}.html").exists()
    # Their links are converted to links of the site, or removed.
    assert 'href="../models/emotion.html"' in (site / "project/contributing.html").read_text()
