"""A service in this process, and what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from served import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What this process has printed so far."""
    text = ""

    def read() -> str:
        nonlocal text
        text += capsys.readouterr().out
        return text

    return read


@pytest.fixture
def service(short_folder: Path, tiny_model: Path, clip: Path) -> Iterator[Service]:
    """One that is not started, of a camera ``film``, whose recording goes on for ever."""
    made = Service(short_folder, tiny_model, {"film": {"source": str(clip), "loop": True}})
    yield made
    made.close()
