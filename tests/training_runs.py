"""A recipe small enough to train in a second, and training's commands as their users run them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

TINY = """
epochs = {epochs}
batch = 16
sizes = {{ 16 = 0.0, 24 = 0.6 }}
[net]
widths = [8, 8, 16]
[optimizer]
warmup = 2
average = 0.5
"""


def tiny(folder, epochs=2, more=""):
    path = folder / "tiny.toml"
    path.write_text(more + TINY.format(epochs=epochs))
    return path


def command(module, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", f"training.{module}", *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done
