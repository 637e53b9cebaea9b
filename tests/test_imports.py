"""The import contracts in `pyproject.toml`, which `make test` checks with import-linter, detect wrong imports."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def check(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of a checkout."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("events/tracker", "fer_stream.aggregator.roster", "Imports point one way"),
        ("inference/worker", "fer_stream.inference.detectors.mtcnn", "Processes load plug-ins by name"),
        ("errors", "fer_stream.types", "Imports point one way"),
        ("settings/kinds", "fer_stream.settings.tree", "No circles"),
        ("sources/demo", "training.data", "The package does not know training"),
    ],
)
@pytest.mark.parametrize("typing_only", [False, True])
def test_an_import_in_the_wrong_direction_is_found(
    tmp_path: Path, module: str, imported: str, contract: str, typing_only: bool
) -> None:
    for name in ("fer_stream", "training"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.pyc", "assets"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / f"fer_stream/{module}.py").open("a") as file:
        line = f"import {imported}\n"
        file.write(f"if TYPE_CHECKING:\n    {line}" if typing_only else line)
    done = check(tmp_path)
    assert done.returncode != 0
    assert f"{contract} BROKEN" in done.stdout


def test_importing_the_package_imports_only_types_and_errors() -> None:
    code = "import sys, fer_stream; print(*sorted(name for name in sys.modules if name.startswith('fer_stream.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "fer_stream.errors", "fer_stream.system", "fer_stream.system.version", "fer_stream.types",
    ]  # fmt: skip
