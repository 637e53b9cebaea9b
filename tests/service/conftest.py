"""A real aggregator for the tests of a run's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from house import House
from single_runs import ENTRIES, PLUGINS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def house(short_folder: Path, tmp_path: Path) -> Iterator[House]:
    made = House("zeromq", f"ipc://{short_folder}", tmp_path / "events.db")
    made.start()
    yield made
    made.end()


@pytest.fixture
def plugins(tmp_path: Path) -> dict[str, str]:
    """The environment variables with which the failing plug-ins are installed."""
    about = tmp_path / "plug-in" / "failing-1.0.dist-info"
    about.mkdir(parents=True)
    (tmp_path / "plug-in" / "failing.py").write_text(PLUGINS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: failing\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    return {"PYTHONPATH": str(tmp_path / "plug-in")}
