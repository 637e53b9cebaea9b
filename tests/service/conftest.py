"""A real aggregator for the tests of a run's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from house import House

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def house(short_folder: Path, tmp_path: Path) -> Iterator[House]:
    made = House("zeromq", f"ipc://{short_folder}", tmp_path / "events.db")
    made.start()
    yield made
    made.end()
