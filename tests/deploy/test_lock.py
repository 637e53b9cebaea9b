"""The container's dependencies: locked with hashes, and consistent with pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
from deploy_files import DEPLOY, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
SERVED = ("fleet", "kafka", "live", "mqtt", "postgres", "webhook")
ASKED = {
    "requirements.lock": [*PROJECT["project"]["dependencies"], *(one for name in SERVED for one in EXTRAS[name])],
    "build.lock": [*PROJECT["build-system"]["requires"], "setuptools"],
}
SOURCE = "source.lock"
"""Packages that have no wheel: they are not in requirements.lock, but what they require is."""


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Return the version and the hashes of each package."""
    text = (DEPLOY / name).read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    found = {}
    for line in lines:
        pinned, *hashes = line.split(" --hash=")
        package, version = re.fullmatch(r"([\w.-]+)==([\w.]+)\s*", pinned).groups()
        found[canonicalize_name(package)] = version, [text.strip() for text in hashes]
    return found


@pytest.mark.parametrize("name", [*ASKED, SOURCE])
def test_every_package_has_one_version_and_hashes(name: str) -> None:
    assert locked(name)
    for _, hashes in locked(name).values():
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes)


@pytest.mark.parametrize("python", ["3.12", "3.13", "3.14"])
def test_newer_pythons_have_wheels_of_every_locked_version(python: str) -> None:
    """CI has no such interpreter; the lock is written for 3.11, the oldest."""
    options = ["--python-version", python, "--python-platform", "linux", "--only-binary", ":all:", "--no-header"]
    command = [sys.executable, "-m", "uv", "pip", "compile", DEPLOY / "requirements.lock", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^([\w.-]+)==([\w.]+)", done.stdout, re.MULTILINE))
    assert found == {name: version for name, (version, _) in locked("requirements.lock").items()}


@pytest.mark.parametrize("name", ASKED)
def test_the_lock_satisfies_the_requirements(name: str) -> None:
    for asked in map(Requirement, ASKED[name]):
        found = locked(name) | (locked(SOURCE) if name == "requirements.lock" else {})
        assert asked.specifier.contains(found[canonicalize_name(asked.name)][0]), "make lock"


@pytest.mark.parametrize("name", ASKED)
def test_the_lock_is_complete_and_has_nothing_else(name: str) -> None:
    """It has exactly the requirements and their dependencies, as the installed versions declare them."""
    reached, todo = set(), [*map(Requirement, ASKED[name])]
    while todo:
        asked = todo.pop()
        for extra in ("", *asked.extras):
            if (one := (canonicalize_name(asked.name), extra)) not in reached:
                reached.add(one)
                further = map(Requirement, metadata.requires(asked.name) or [])
                environment = {"extra": extra, "python_version": "3.11"}
                todo += [r for r in further if not r.marker or r.marker.evaluate(environment)]
    needed = {package for package, _ in reached}
    source = locked(SOURCE).keys() if name == "requirements.lock" else set()
    assert locked(name).keys() | source == needed
    assert not locked(name).keys() & source
