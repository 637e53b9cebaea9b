"""What a target says where Debian packages are missing and cannot be installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from deploy_files import DEPLOY

if TYPE_CHECKING:
    from pathlib import Path


def apt_install(*packages: str, under: tuple[str, ...] = (), path: str | None = None) -> tuple[int, str]:
    done = subprocess.run(
        [*under, "/bin/sh", "-c", (DEPLOY / "apt-install").read_text(), "apt-install", *packages],  # for any user
        env=os.environ | ({} if path is None else {"PATH": path}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    """Nothing is looked for or installed, so it needs neither apt-get nor root."""
    (tmp_path / "tool").touch(mode=0o755)
    assert apt_install("tool=some-package", "tool", path=str(tmp_path)) == (0, "")


def test_a_system_without_apt_get_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "tool").touch(mode=0o755)
    code, said = apt_install("promtool=prometheus", "tool", "strace", path=str(tmp_path))
    sentence = "install the equivalents of the Debian packages prometheus strace (there is no apt-get here)"
    assert (code, said) == (1, f"apt-install: {sentence}; then run this again\n")


@pytest.mark.skipif(not shutil.which("apt-get"), reason="only where there is apt-get")
def test_who_may_not_install_is_told_what_to_ask_for() -> None:
    under = () if os.getuid() else ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    code, said = apt_install("no-such-tool-1=package-one", "no-such-tool-2", under=under)
    assert code == 1
    assert said.startswith("apt-install: ask an administrator to run: apt-get install package-one no-such-tool-2 (")
    assert said.count("\n") == 1
