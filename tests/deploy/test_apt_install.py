"""deploy/apt-install: its messages when Debian packages are missing and cannot be installed."""

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
        [
            *under,
            "/bin/sh",
            "-c",
            (DEPLOY / "apt-install").read_text(),
            "apt-install",
            *packages,
        ],  # passed as text, so that any user can run it
        env=os.environ | ({} if path is None else {"PATH": path}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_installed_packages_are_not_installed_again(tmp_path: Path) -> None:
    """If nothing is missing, it needs neither apt-get nor root."""
    (tmp_path / "tool").touch(mode=0o755)
    assert apt_install("tool=some-package", "tool", path=str(tmp_path)) == (0, "")


def test_a_system_without_apt_get_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "tool").touch(mode=0o755)
    code, output = apt_install("promtool=prometheus", "tool", "strace", path=str(tmp_path))
    sentence = "install the equivalents of the Debian packages prometheus strace (there is no apt-get here)"
    assert (code, output) == (1, f"apt-install: {sentence}; then run this again\n")


@pytest.mark.skipif(not shutil.which("apt-get"), reason="only where there is apt-get")
def test_a_user_without_the_right_to_install_gets_the_command_for_an_administrator() -> None:
    under = () if os.getuid() else ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    code, output = apt_install("no-such-tool-1=package-one", "no-such-tool-2", under=under)
    assert code == 1
    assert output.startswith("apt-install: ask an administrator to run: apt-get install package-one no-such-tool-2 (")
    assert output.count("\n") == 1
