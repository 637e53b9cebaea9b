"""The documents, parsed for tests: files, code blocks, commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "models/*.md", "training/*.md", "deploy/**/*.md")
    for path in ROOT.glob(pattern)
)


class Block(NamedTuple):
    """A code block; ``info`` is the text after its opening fence, such as ``python title="x.py"``."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def title(self) -> str:
        found = re.search(r'title="([^"]+)"', self.info)
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        if token.type in ("fence", "code_block") and token.map:
            yield Block(page, token.map[0] + 1, token.info.strip(), token.content)


def inline(page: Path) -> Iterator[str]:
    """Yield inline code."""
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        yield from (child.content for child in token.children or () if child.type == "code_inline")


def commands(text: str) -> Iterator[list[str]]:
    """Yield the simple commands of shell lines, as words, without variables that are set before a command."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in re.sub(r"(?<=\s)[12]>", ">", joined).splitlines():
        try:
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:  # not shell
            continue
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("|&;"):
                if command:
                    yield command
                command = []
            elif set(word) <= set("<>"):
                command.append(">")
            elif command or not re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", word):
                command.append(word)


def without_redirection(words: list[str]) -> list[str]:
    """Return a command's words without redirections (``> FILE``)."""
    own: list[str] = []
    skip = False
    for word in words:
        if word == ">":
            skip = True
        elif skip:
            skip = False
        else:
            own.append(word)
    return own


ALL = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in ALL if block.language in ("", "bash", "sh", "console", "shell")]


def build(folder: Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout, strictly (``--quiet`` would not count warnings, and so not fail)."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
