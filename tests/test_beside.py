"""Tests whose files beside the project are missing are skipped, or fail in CI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import beside
import pytest

HERE = Path(__file__).parent

TESTS = """
import pytest

@pytest.fixture
def through(beside):
    return beside.clip("a.gif")

def test_clips(beside): assert beside.clips()
def test_through_another_fixture(through): assert through.exists()
def test_faces(beside): assert beside.fer2013().exists()
def test_that_needs_nothing(): pass
"""


def outcomes(project: Path, *options: str, ci: str | None = None) -> tuple[dict[str, int], str]:
    """Run the tests of a project; return the number of tests by outcome, and the output."""
    (project / "tests").mkdir(parents=True, exist_ok=True)
    shutil.copy(beside.__file__, project / "tests")
    (project / "tests/conftest.py").write_text('pytest_plugins = ["beside"]\n')
    (project / "tests/test_it.py").write_text(TESTS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "PYTEST", "COV"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "-o", "pythonpath=tests", "tests", *options],
        cwd=project,
        env=environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | ({} if ci is None else {"CI": ci}),
        capture_output=True,
        text=True,
        check=False,
    )
    counts = re.findall(r"(\d+) (passed|failed|errors?|skipped|deselected)", done.stdout.splitlines()[-1])
    return {what: int(count) for count, what in counts}, done.stdout


@pytest.mark.parametrize("ci", [None, "", "false"])
def test_without_files_tests_are_skipped_with_the_missing_file(tmp_path: Path, ci: str | None) -> None:
    found, output = outcomes(tmp_path / "project", ci=ci)
    assert found == {"passed": 1, "skipped": 3}
    for name in ("media", "media/a.gif", "data/fer2013/unpack.py"):
        assert f"it needs ../shared/{name}: real clips and FER2013 are not part of the repository" in output


def test_without_files_tests_fail_in_ci(tmp_path: Path) -> None:
    found, output = outcomes(tmp_path / "project", ci="true")
    assert found == {"passed": 1, "failed": 2, "error": 1}
    assert "it needs ../shared/media: " in output


def test_with_files_tests_run_and_the_marker_selects_only_them(tmp_path: Path) -> None:
    for name in ("media/a.gif", "data/fer2013/unpack.py"):
        path = tmp_path / "shared" / name
        path.parent.mkdir(parents=True)
        path.touch()
    assert outcomes(tmp_path / "project", ci="true")[0] == {"passed": 4}
    assert outcomes(tmp_path / "project", "-m", "beside")[0] == {"passed": 3, "deselected": 1}


def test_no_other_test_looks_beside_the_project() -> None:
    tests = [path for path in HERE.rglob("test_*.py") if path != Path(__file__)]
    assert len(tests) > 100
    assert not [path for path in [*tests, *HERE.rglob("conftest.py")] if re.search(r"\.\./shared\b", path.read_text())]
