"""Fixtures: a journal's path, and a journal that is closed after the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fer_stream.journal.sqlite import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Writer]:
    opened = Writer(path)
    yield opened
    opened.close()
