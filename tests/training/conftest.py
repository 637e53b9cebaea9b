"""FER2013, unpacked once."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training import data

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def fer2013(tmp_path_factory, beside):
    """A folder with ``fer2013.csv`` and ``fer2013new.csv``: ours, where they are unpacked already."""
    if all((DATA / name).is_file() for name in ("fer2013.csv", "fer2013new.csv")):
        return DATA
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "fer2013"  # which all of them share
    with (folder.parent / "fer2013.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            draft = tmp_path_factory.mktemp("fer2013")
            subprocess.run([sys.executable, beside.fer2013(), draft], check=True)
            data.load(draft / "fer2013.csv")  # parsed once, too
            draft.rename(folder)
    return folder
