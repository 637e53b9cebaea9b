"""FER2013, unpacked once."""

import subprocess
import sys
from pathlib import Path

import beside
import pytest

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def fer2013(tmp_path_factory):
    """A folder with ``fer2013.csv`` and ``fer2013new.csv``: ours, where they are unpacked already."""
    if all((DATA / name).is_file() for name in ("fer2013.csv", "fer2013new.csv")):
        return DATA
    folder = tmp_path_factory.mktemp("fer2013")
    subprocess.run([sys.executable, beside.fer2013(), folder], check=True)
    return folder
