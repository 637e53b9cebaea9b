"""Files with a standard format: changelog, citation, licence."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date

import yaml
from documents import ROOT

import fer_stream

CHANGES = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
"""https://keepachangelog.com/en/1.1.0/"""


def test_the_changelog_keeps_its_form() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    assert lines[0] == "# Changelog"
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    days = []
    for version in versions[1:]:
        found = re.fullmatch(r"## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", version)
        assert found, version
        days.append(date.fromisoformat(found[2]))
    assert days == sorted(days, reverse=True)
    headings = [line.removeprefix("### ") for line in lines if line.startswith("### ")]
    assert headings
    assert set(headings) <= set(CHANGES)
    for section in re.split(r"^## ", "\n".join(lines), flags=re.MULTILINE)[1:]:
        own = re.findall(r"^### (.+)", section, re.MULTILINE)
        assert len(own) == len(set(own)), "a version has a heading twice"


def test_the_citation_keeps_its_schema_and_is_of_this_version() -> None:
    path = ROOT / "CITATION.cff"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    citation = yaml.safe_load(path.read_text())
    assert citation["version"] == fer_stream.__version__
    assert citation["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
