"""``fer-stream`` as a user whom the machine does not know: any number, group 0, no entry in passwd, no ``HOME``."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

UID = 1_000_000_000 + os.getpid()
"""In OpenShift's range. Derived from the process id, so that test runs on one machine do not share /tmp/runtime-UID."""

SETPRIV = ("setpriv", "--reuid", str(UID), "--regid", "0", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")

PATHS = os.pathsep.join(map(str, (ROOT, *site.getsitepackages())))


@cache
def python() -> str:
    """Return a Python that such a user may run, with our packages."""
    if os.geteuid():
        pytest.skip("only root can start a process as another user")
    for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        tried = subprocess.run(
            [*SETPRIV, candidate, "-c", "import sys, fer_stream.settings.tree as _; open(sys.executable)"],
            env={"PATH": os.defpath, "PYTHONPATH": PATHS},
            cwd="/",
            capture_output=True,
            check=False,
        )
        if tried.returncode == 0:
            return candidate
    return pytest.skip("this Python, or this checkout, lies where other users may not read")


class Stranger:
    """Runs commands in ``folder``, which everybody may write, with nothing of our environment."""

    def __init__(self, folder: Path, *before: str) -> None:
        self.folder = folder
        self._before = before

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; it never ends in a traceback."""
        command = [*self._before, *SETPRIV, python(), "-m", "fer_stream", *map(str, arguments)]
        found = subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": PATHS} | environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert "Traceback" not in found.stdout + found.stderr, found.stderr
        return found


def folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder of theirs: pytest's own are closed to other users."""
    made = tempfile.TemporaryDirectory(prefix="f-", dir="/tmp", ignore_cleanup_errors=True)
    Path(made.name).chmod(0o777)
    return made
