"""MkDocs' hooks: add pages from other folders of the repository, and adapt links between pages.

Run by `mkdocs build --strict` (`make docs`); see https://www.mkdocs.org/user-guide/configuration/#hooks.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

ELSEWHERE = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "deploy/README.md": "operation/index.md",
    "models/emotion.md": "models/emotion.md",
    "models/mtcnn.md": "models/mtcnn.md",
    "training/README.md": "models/training.md",
    "fer_stream/assets/README.md": "models/assets.md",
}
"""Pages outside of ``docs/``, and their paths on the site."""

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\n]+)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> None:
    """Replace patterns in the navigation by the existing pages."""
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    pages |= {page for path, page in ELSEWHERE.items() if (ROOT / path).exists()}
    config.nav = _expand(config.nav, sorted(pages))


def _expand(nav: Any, pages: list[str]) -> Any:
    """Return a navigation without missing pages and sections; ``FOLDER/*.md`` becomes the pages in it."""
    if isinstance(nav, dict):
        return {title: _expand(below, pages) for title, below in nav.items()}
    if isinstance(nav, str):
        return nav if nav in pages else None
    found: list[Any] = []
    for item in nav:
        if isinstance(item, str) and "*" in item:
            found += [page for page in pages if Path(page).match(item)]
        elif isinstance(item, str):
            found.append(item)
        elif all((below := _expand(item, pages)).values()):
            found.append(below)
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from other folders."""
    for path, page in ELSEWHERE.items():
        if (ROOT / path).exists():
            files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Convert links to files of the repository into links of the site."""
    here = page.file.src_uri
    source = next((path for path, uri in ELSEWHERE.items() if uri == here), f"docs/{here}")

    def link(found: re.Match[str]) -> str:
        target = found["target"]
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        uri = ELSEWHERE.get(path) or path.removeprefix("docs/")
        if path.startswith("docs/") or files.get_file_from_path(uri) is not None:
            return f"[{found['text']}]({posixpath.relpath(uri, posixpath.dirname(here) or '.')}{found['anchor'] or ''})"
        # A file of the repository that is not a page: show its path instead of a link.
        return found["text"] if path in found["text"] or not (ROOT / path).exists() else f"{found['text']} (`{path}`)"

    return _outside_code(markdown, link)


def _outside_code(markdown: str, link: Any) -> str:
    parts = re.split(r"(^```.*?^```|^ {4}\S.*?$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if number % 2 else _LINK.sub(link, part) for number, part in enumerate(parts))
