"""The runbook and deploy/README.md: every command is valid, and every link has a target."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest
from deploy_files import DEPLOY, ROOT, RUNBOOK, alerts, load

from fer_stream.cli.main import parser
from fer_stream.settings.tree import Settings, explain

if TYPE_CHECKING:
    from pathlib import Path

PAGES = sorted(path for path in RUNBOOK.glob("*.md") if path.name != "README.md")
ALL = [*PAGES, RUNBOOK / "README.md", DEPLOY / "README.md"]


def commands(page: Path) -> list[str]:
    """Return the lines of a page's shell blocks, and its inline code."""
    text = page.read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return lines + [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def test_each_alert_has_a_page_with_three_sections() -> None:
    assert {f"docs/runbook/{page.name}" for page in PAGES} == {a["annotations"]["runbook_url"] for a in alerts()}
    for page in PAGES:
        assert re.findall(r"^## (.*)$", page.read_text(), re.M) == [
            "What it means",
            "What to look at",
            "What to do",
        ]
        assert f"]({page.name})" in (RUNBOOK / "README.md").read_text()


@pytest.mark.parametrize("page", ALL, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_commands_are_valid(page: Path) -> None:
    units = {path.name.partition(".")[0].partition("@")[0] for path in (DEPLOY / "systemd").glob("*.service")}
    files = {f"deploy/{name}": load(name)["services"] for name in ("compose.yaml", "compose.cell.yaml")}
    for line in commands(page):
        words = shlex.split(line, comments=True)
        if words[:1] == ["fer-stream"] and len(words) > 1:
            parser().parse_args(words[1:])
        elif words[:1] in (["systemctl"], ["journalctl"]):
            for name in re.findall(r"fer-stream-([a-z]+)", line):
                assert f"fer-stream-{name}" in units, line
        elif words[:2] == ["docker", "compose"]:
            assert words[2] == "--file"
            services = files[words[3]]
            if words[4] == "--profile":
                assert words[5] in {profile for service in services.values() for profile in service.get("profiles", [])}
            if words[4] in ("logs", "exec", "run"):
                assert next(word for word in words[5:] if not word.startswith("-")) in services
        elif words and re.match("deploy/(?!secrets)", words[0]):
            assert (ROOT / words[0]).exists(), line


@pytest.mark.parametrize("page", ALL, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_links_and_settings_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    known = explain().origins.keys() | {f"cameras.{name}" for name in Settings.model_fields}
    sections = {key.partition(".")[0] for key in known if "." in key}
    for code in re.findall(r"`([a-z]+\.[a-z_]+)`", text):
        if code.partition(".")[0] in sections - {"cameras"}:
            assert code in known, code
