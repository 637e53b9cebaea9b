"""An environment with a plug-in classifier, so that commands need no trained model."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from cli.command import Environment, clean

PLUGIN = Path(__file__).parents[1] / "plugin"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Environment variables: an empty home folder, and the example plug-in installed and chosen as classifier."""
    home = tmp_path_factory.mktemp("home")
    information = home / "site" / "example-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1\n")
    groups = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {where}" for name, where in entries.items()))
    ]
    (information / "entry_points.txt").write_text("\n".join(lines))
    path = os.pathsep.join([str(information.parent), str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])])
    return clean(HOME=str(home), PYTHONPATH=path, FER_STREAM_CLASSIFIER__NAME="brightness")
