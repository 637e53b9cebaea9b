"""Files beside the project, in ../shared: real clips and FER2013. Only this module handles missing files.

A test that uses the fixture `beside`, directly or through another fixture, gets the marker ``beside``: ``pytest -m
beside`` selects exactly these tests. If a file is missing, the test is skipped; if CI is set, it fails.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[1] / "../shared"


class Beside:
    """The files beside the project. If its file is missing, each method skips the test, or fails it in CI."""

    def clips(self) -> list[Path]:
        """Return every real clip."""
        return sorted(path for path in self._there("media").iterdir() if path.suffix in {".mp4", ".gif"})

    def clip(self, name: str) -> Path:
        """Return a real clip."""
        return self._there(f"media/{name}")

    def input(self, name: str) -> Path:
        """Return a small recording of an unusual kind; the README beside it says what is in it."""
        return self._there(f"inputs/{name}")

    def fer2013(self) -> Path:
        """Return the command that unpacks FER2013 into a folder."""
        return self._there("data/fer2013/unpack.py")

    def _there(self, name: str) -> Path:
        path = _SHARED / name
        if not path.exists():
            reason = f"it needs ../shared/{name}: real clips and FER2013 are not part of the repository"
            if os.environ.get("CI", "").lower() in {"", "0", "false"}:
                pytest.skip(reason)
            pytest.fail(reason, pytrace=False)
        return path


@pytest.fixture(scope="session")
def beside() -> Beside:
    """The files beside the project."""
    return Beside()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that need the files."""
    if "beside" in getattr(item, "fixturenames", ()):
        item.add_marker("beside")
