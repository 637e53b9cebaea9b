"""Fixtures: a service in threads of this process, and this process's standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from served import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """``printed()`` returns all that this process has printed so far."""
    text = ""

    def read() -> str:
        nonlocal text
        text += capsys.readouterr().out
        return text

    return read


@pytest.fixture
def service(short_folder: Path, tiny_model: Path, clip: Path) -> Iterator[Service]:
    """A service that is not started yet, with one camera ``film``, which loops a recording."""
    made = Service(short_folder, tiny_model, {"film": {"source": str(clip), "loop": True}})
    yield made
    made.close()
