"""The systemd units, checked with systemd's own tools."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from deploy_files import DEPLOY

from fer_stream.cli.main import parser
from fer_stream.settings import tree

if TYPE_CHECKING:
    from pathlib import Path

UNITS = DEPLOY / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))


def tool(*command: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    # The tools look for units in the folder of the named one, and then among the system's.
    texts = [str(word) for word in command]
    return subprocess.run(texts, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as installed, with an existing program, and with an instance of each template."""
    folder = tmp_path / "units"
    shutil.copytree(UNITS, folder)
    for path in list(folder.glob("*.service")):
        path.write_text(path.read_text().replace("/opt/fer-stream/bin/fer-stream", f'"{sys.executable}"'))
        if "@" in path.name:
            shutil.copy(path, folder / path.name.replace("@", "@1"))
    return folder


def test_systemd_finds_nothing_wrong(units: Path) -> None:
    names = [f"./{path.name}" for path in units.iterdir() if re.search(r"(?<!@)\.(service|target)$", path.name)]
    assert len(names) == len(SERVICES) + 1
    done = tool("systemd-analyze", "verify", "--man=no", *names, folder=units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    unit = units / "fer-stream-aggregator.service"
    unit.write_text(unit.read_text().replace("Restart=always", "Restart=sometimes"))
    assert "sometimes" in tool("systemd-analyze", "verify", "--man=no", f"./{unit.name}", folder=units).stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened(name: str, units: Path) -> None:
    security = ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=16"]  # an exposure of 1.6
    done = tool(*security, f"./{name}", folder=units)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(units / "fer-stream-.service.d")
    assert tool(*security, f"./{name}", folder=units).returncode != 0, "without its drop-in it is not hardened"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_a_valid_command(name: str) -> None:
    (command,) = re.findall(r"^ExecStart=/opt/fer-stream/bin/fer-stream (.*)$", (UNITS / name).read_text(), re.M)
    reloads = re.findall(r"^ExecReload=/opt/fer-stream/bin/fer-stream (.*)$", (UNITS / name).read_text(), re.M)
    assert len(reloads) == (name == "fer-stream-run.service"), "only this role can read its settings again"
    for words in (command, *reloads):
        (options,) = re.findall(r"^echo 'OPTIONS=(.*)' >", (DEPLOY / "README.md").read_text(), re.M)
        arguments = parser().parse_args(words.replace("%i", "1").replace("$OPTIONS", options).split())
        assert str(arguments.config) == "/etc/fer-stream/settings.toml"


@pytest.mark.parametrize("role", ["aggregator", "live", "node", "run"])
def test_services_that_accept_connections_may_open_many_descriptors(role: str) -> None:
    (limit,) = re.findall(r"^LimitNOFILE=(\d+)$", (UNITS / f"fer-stream-{role}.service").read_text(), re.M)
    assert int(limit) >= 65_536


def test_the_user_and_the_folders_are_made(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc" / "fer-stream").mkdir(parents=True)
    (root / "etc" / "fer-stream" / "live.token").touch()
    shutil.copy(UNITS / "settings.toml", root / "etc" / "fer-stream")
    done = tool("systemd-sysusers", f"--root={root}", UNITS / "sysusers.conf")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in (root / "etc/passwd").read_text().splitlines() if line.startswith("fer-stream:")]
    assert line.endswith(":/var/lib/fer-stream:/usr/sbin/nologin")
    done = tool("systemd-tmpfiles", f"--root={root}", "--create", UNITS / "tmpfiles.conf")
    if os.getuid():  # the only error without root: changing a file's owner
        assert "Operation not permitted" in done.stderr
        return
    assert (done.returncode, done.stderr) == (0, "")
    owner = int(line.split(":")[2])
    for folder, mode, uid in (
        ("run/fer-stream", 0o700, owner),
        ("var/lib/fer-stream", 0o700, owner),
        ("etc/fer-stream", 0o750, 0),
        ("etc/fer-stream/settings.toml", 0o640, 0),
        ("etc/fer-stream/live.token", 0o600, owner),
    ):
        found = (root / folder).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (mode, uid), folder


@pytest.mark.parametrize("file", ["settings.toml", "systemd/settings.toml"])
def test_the_shipped_settings_files_are_valid(file: str) -> None:
    settings = tree.load(file=DEPLOY / file)
    assert set(settings.cameras) == ({"door"} if "systemd" in file else {"door", "hall"})


def test_units_and_settings_use_the_same_paths() -> None:
    settings = tree.load(file=UNITS / "settings.toml")
    tmpfiles = (UNITS / "tmpfiles.conf").read_text()
    assert f"d {settings.address.removeprefix('ipc://')} 0700 fer-stream" in tmpfiles
    assert f"d {settings.journal.path.parent} 0700 fer-stream" in tmpfiles
    # The unit sets the token file, because older installations keep settings without it.
    (token,) = re.findall(r"^ExecStart=.* --token-file (\S+)$", (UNITS / "fer-stream-live.service").read_text(), re.M)
    assert f"z {token} 0600 fer-stream" in tmpfiles
    assert f">{token})" in (UNITS / "install").read_text()
