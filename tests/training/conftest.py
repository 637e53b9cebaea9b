"""FER2013, unpacked once; and synthetic faces in two shades of grey, which any net learns quickly."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from training import data

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def fer2013(tmp_path_factory, beside):
    """A folder with ``fer2013.csv`` and ``fer2013new.csv``: the checkout's ``data/`` if it has both files."""
    if all((DATA / name).is_file() for name in ("fer2013.csv", "fer2013new.csv")):
        return DATA
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "fer2013"  # all xdist workers share it
    with (folder.parent / "fer2013.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            draft = tmp_path_factory.mktemp("fer2013")
            subprocess.run([sys.executable, beside.fer2013(), draft], check=True)
            data.load(draft / "fer2013.csv")  # also writes the cache of the parsed file
            draft.rename(folder)
    return folder


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def csv_file(tmp_path_factory):
    """Happy faces are bright and sad ones dark, all with noise; sample 5 is bright but labelled sad."""
    random = np.random.default_rng(0)
    lines = ["emotion,pixels,Usage"]
    for i in range(96):
        label = (3, 4)[i % 2]
        shade = 180 if label == 3 or i == 5 else 60
        picture = np.clip(random.normal(shade, 25, 48 * 48), 0, 255).astype(int)
        lines.append(f"{label},{' '.join(map(str, picture))},{'PublicTest' if i >= 64 else 'Training'}")
    path = tmp_path_factory.mktemp("data") / "fer2013.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def plus_file(csv_file):
    """Ten votes for each of these faces: eight for happy ones, nine for sad ones; row 70 is "not a face"."""
    lines = ["Usage,Image name," + ",".join(data.VOTES)]
    for i in range(96):
        votes = dict.fromkeys(data.VOTES, 0) | (
            {"happiness": 8, "surprise": 2} if i % 2 == 0 else {"sadness": 9, "fear": 1}
        )
        if i == 70:
            votes = dict.fromkeys(data.VOTES, 0) | {"NF": 10}
        usage = "PublicTest" if i >= 64 else "Training"
        lines.append(f"{usage},fer{i:07d}.png," + ",".join(map(str, votes.values())))
    path = csv_file.with_name("fer2013new.csv")
    path.write_text("\n".join(lines) + "\n")
    return path
