"""Write the generated parts of the pages of docs/: ``python docs/hooks/write.py`` (``make reference``).

A generated part is between ``<!-- generated: NAME -->`` and ``<!-- end -->``; the rest of the page is written by hand.
``<!-- generated: file PATH -->`` contains a file of the repository.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import figure
import protocol
import python_page
import reference

from fer_stream.events import schema
from fer_stream.live.api import contract

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).parents[1]

PARTS: dict[str, Callable[[], str]] = {
    "settings": reference.settings,
    "command-line": reference.command_line,
    "events": reference.events,
    "tables": reference.tables,
    "metrics": reference.metrics_table,
    "sidecar": reference.sidecar,
    **protocol.PARTS,
    **python_page.PARTS,
}

FILES: dict[str, Callable[[], str]] = {
    "reference/event.schema.json": lambda: json.dumps(schema.event_schema(), indent=2) + "\n",
    "reference/asyncapi.json": lambda: json.dumps(schema.asyncapi(), indent=2) + "\n",
    "reference/openapi.json": lambda: json.dumps(contract.openapi(), indent=2) + "\n",
    "images/hysteresis.svg": figure.hysteresis,
}

_PART = re.compile(r"(<!-- generated: (?P<name>[\w-]+)(?: (?P<path>\S+))? -->\n).*?(?=<!-- end -->)", re.DOTALL)


def _file(path: str) -> str:
    return f'```{Path(path).suffix[1:]} title="{path}"\n{(DOCS.parent / path).read_text(encoding="utf-8")}```'


def _made(part: re.Match[str]) -> str:
    text = _file(part["path"]) if part["name"] == "file" else PARTS[part["name"]]()
    return f"{part[1]}\n{text.strip()}\n\n"


def fresh() -> dict[Path, str]:
    """Return the expected content of each file with generated parts.

    Raises:
        KeyError: a page has a generated part with an unknown name.
    """
    found = {DOCS / name: made() for name, made in FILES.items()}
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if _PART.search(text):
            found[page] = _PART.sub(_made, text)
    return found


def stale() -> list[str]:
    """Return the files whose content differs from the expected content."""
    wrong = (path for path, text in fresh().items() if not path.exists() or path.read_text(encoding="utf-8") != text)
    return [path.relative_to(DOCS).as_posix() for path in wrong]


if __name__ == "__main__":
    old = stale()
    for path, text in fresh().items():
        path.write_text(text, encoding="utf-8")
    sys.stdout.writelines(f"docs/{name}\n" for name in old)
