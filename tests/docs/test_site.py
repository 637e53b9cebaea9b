"""The documents as a site: built strictly, complete, and without a request to anybody else."""

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
    """What a page asks for, and the places in it that can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places.add(values.get("id", ""))
        if tag in ("script", "img", "iframe", "source", "video"):
            self.asked.append(values.get("src", ""))
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev", "edit"):
            self.asked.append(values.get("href", ""))


def test_files_shown_in_pages_are_there_whole() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert not re.search(r"^-+8 *<", page.read_text(), re.MULTILINE), page  # nothing replaces such a line


def test_a_fault_breaks_the_build(tmp_path: Path) -> None:
    """A link that leads nowhere, in a copy of the pages."""
    for name in ("docs", "mkdocs.yml", "fer_stream", "tests", "models", "training", "CHANGELOG.md", "CONTRIBUTING.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs").unlink()
    subprocess.run(["cp", "-r", ROOT / "docs", tmp_path / "docs"], check=True)
    page = tmp_path / "docs/tutorial.md"
    page.write_text(page.read_text() + "\n[nowhere](nowhere.md)\n")
    done = build(tmp_path / "site", tmp_path)
    assert done.returncode == 1
    assert "tutorial.md' contains a link 'nowhere.md'" in done.stderr


def test_no_page_asks_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for path in pages:
        for address in Page(path).asked:
            assert "//" not in address, f"{path.relative_to(site)} asks for {address}"
        assert "mermaid" not in path.read_text(), "its script would be fetched from another host"
    for path in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text()), path


def test_the_search_knows_every_page(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text())
    known = {entry["location"].partition("#")[0] for entry in index["docs"]}
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - {"404.html"}
    assert pages <= known


def test_every_setting_stands_there(site: Path) -> None:
    places = Page(site / "reference/settings.html").places
    assert {dotted(path) for path in leaves(tree.Settings.model_json_schema())} <= places


def test_every_command_and_option_stands_there(site: Path) -> None:
    text = (site / "reference/command-line.html").read_text()
    assert {command.name for command in main.COMMANDS} <= Page(site / "reference/command-line.html").places
    for command in main.COMMANDS:
        for flag in command.options:
            assert f"<code>{flag}" in text


def test_every_event_stands_there_and_the_documents_are_the_code_s(site: Path) -> None:
    text = (site / "reference/events.html").read_text()
    for kind in EventType:
        assert f"<code>{kind}</code>" in text
    assert json.loads((site / "reference/event.schema.json").read_text()) == schema.event_schema()
    assert json.loads((site / "reference/asyncapi.json").read_text()) == schema.asyncapi()


def test_every_metric_stands_there(site: Path) -> None:
    places = Page(site / "reference/metrics.html").places
    assert len(reference.collectors()) > 10
    assert {"fer_stream_frames_total", "fer_stream_frame_age_seconds", "fer_stream_workers"} <= places


def test_the_protocol_is_the_code_s(site: Path) -> None:
    text = (site / "reference/protocol.html").read_text()
    for name in (*messages.Kind.__members__, *messages.Encoding.__members__, *plugins.LINKS, *plugins.BROADCASTS):
        assert f"<code>{name}</code>" in text
    assert f"{messages.MAX_PAYLOAD:,}" in text
    assert f"{messages.HEADER_SIZE} bytes, big endian" in text


def test_every_public_name_has_a_place(site: Path) -> None:
    places = Page(site / "reference/python.html").places
    assert {f"fer_stream.{name}" for name in fer_stream.__all__} <= places
    assert {
        f"fer_stream.plugins.{name}" for name in ("Source", "Detector", "Classifier", "Transport", "Sink")
    } <= places


def test_cards_and_other_pages_of_the_repository_are_there(site: Path) -> None:
    for page in ("models/emotion", "models/mtcnn", "models/training", "project/contributing", "project/changelog"):
        assert (site / f"{page}.html").exists()
    # Their links lead to pages of the site, or are no links.
    assert 'href="../models/emotion.html"' in (site / "project/contributing.html").read_text()
