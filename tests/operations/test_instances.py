"""Running services: their folders and listed addresses exist exactly as long as their processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fer_stream import plugins
from fer_stream.client import status, subscribe
from fer_stream.errors import ConfigError, TransportError
from fer_stream.operations import instances
from fer_stream.settings import tree
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def root(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime folder, empty."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder))
    return short_folder / "fer_stream"


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.suffix != ".lock")


def test_each_claim_is_a_folder_of_its_own_with_the_lowest_free_number(root: Path) -> None:
    first, second = instances.Claim(), instances.Claim()
    assert [claim.path.name for claim in (first, second)] == ["run-1", "run-2"]
    assert first.path.stat().st_mode & 0o777 == 0o700
    (first.path / "events").touch()
    first.close()
    first.close()
    assert left(root) == ["run-2"]
    with instances.Claim() as again:
        assert again.path.name == "run-1"
        assert list(again.path.iterdir()) == []
    second.close()
    assert left(root) == []


def test_who_is_announced_is_found_and_afterwards_is_not(root: Path) -> None:
    assert instances.running() == []
    with instances.announced("ipc:///a", ["door", "hall"]), instances.announced("tcp://127.0.0.1:7000"):
        first, second = instances.running()
        assert (first.address, first.pid, first.cameras) == ("ipc:///a", os.getpid(), ("door", "hall"))
        assert str(second) == f"tcp://127.0.0.1:7000 (process {os.getpid()})"
    assert instances.running() == []
    assert left(root) == []


KILLED = """
import os, signal, subprocess, sys
from fer_stream.operations import instances
claim = instances.Claim()
if sys.argv[1:]:
    orphan = subprocess.Popen(["sleep", "600"], pass_fds=(claim.lock,), stdout=subprocess.DEVNULL)
    print(orphan.pid, flush=True)
with instances.announced(f"ipc://{claim.path}"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_was_killed_is_not_found_and_what_it_left_goes_with_the_next(root: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert len(left(root)) == 2
    assert instances.running() == []
    with instances.Claim() as claim:
        assert left(root) == ["run-1"]
        assert claim.path.name == "run-1"


def test_a_folder_is_taken_while_a_child_of_its_owner_lives(root: Path) -> None:
    """The child still has sockets there and deletes them when it ends. It must not delete another run's sockets."""
    done = subprocess.run([sys.executable, "-c", KILLED, "x"], check=False, stdout=subprocess.PIPE, text=True)
    assert instances.running() == [], "the orphaned child is no service"
    with instances.Claim() as claim:
        assert claim.path.name == "run-2"
    os.kill(int(done.stdout), 9)


def test_the_one_that_runs_is_found_and_a_given_address_wins() -> None:
    nothing = tree.load()
    with pytest.raises(TransportError, match="no service of yours runs on this machine: start one, or give its addre"):
        instances.find(nothing)
    with instances.announced("ipc:///a", ["door"]):
        assert instances.find(nothing) == "ipc:///a"
        assert instances.find(tree.load({"address": "ipc:///b"})) == "ipc:///b"
        with instances.announced("ipc:///c"), pytest.raises(ConfigError) as caught:
            instances.find(nothing)
    assert str(caught.value) == (
        f"2 services of yours run here: ipc:///a (cameras door; process {os.getpid()}), ipc:///c (process "
        f"{os.getpid()}); choose one with --connect ADDRESS"
    )


def test_in_python_nobody_waits_for_a_service_that_does_not_run() -> None:
    for ask in (status, subscribe):
        with pytest.raises(TransportError, match="no service of yours runs"):
            ask()


def test_an_address_from_the_environment_is_a_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not instances.given(tree.load())
    monkeypatch.setenv("FER_STREAM_ADDRESS", "ipc:///a")
    assert instances.find(tree.load()) == "ipc:///a"


def test_a_folder_that_is_open_to_others_is_refused(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    root.mkdir()
    root.chmod(0o755)
    with pytest.raises(ConfigError, match="is open to others: make it your own and chmod 700 it, or set XDG_RUNTIME"):
        instances.Claim()
    with instances.announced("ipc:///a"):
        assert "clients cannot find this service unless they are given its address" in caplog.text


def test_what_others_left_there_stays(root: Path) -> None:
    root.mkdir(mode=0o700)
    for name in ("run-x", "service.json", "notes.txt"):
        (root / name).touch()
    (root / "service-abc").mkdir()
    (root / "service-abc/about.json").write_text("no note of ours")
    with instances.Claim():
        assert left(root) == ["notes.txt", "run-1", "run-x", "service.json"]


@pytest.fixture
def clean(root: Path, tmp_path: Path) -> Callable[[], None]:
    """Run systemd-tmpfiles on the runtime folder with an age limit of 0, so that it deletes every file it may."""
    cleaner = shutil.which("systemd-tmpfiles")
    if cleaner is None:
        pytest.skip("there is no systemd-tmpfiles")
    rules = tmp_path / "old.conf"
    rules.write_text(f"e {root.parent} - - - 0\n")

    def run() -> None:
        (root / "old").touch()
        subprocess.run([cleaner, "--clean", rules], check=True)

    return run


def test_a_cleaner_of_temporary_folders_leaves_a_service_that_runs_alone(root: Path, clean: Callable[[], None]) -> None:
    with instances.Claim() as claim, instances.announced("ipc:///a", ["door"]):
        (claim.path / "note").touch()
        clean()
        assert not (root / "old").exists(), "systemd-tmpfiles has run"
        assert (claim.path / "note").exists()
        assert [found.address for found in instances.running()] == ["ipc:///a"]


def test_a_cleaner_of_temporary_folders_does_not_let_a_second_aggregator_in(
    root: Path, clean: Callable[[], None]
) -> None:
    root.mkdir(mode=0o700)
    settings = Settings(address=f"ipc://{root.parent}/a")
    hub = plugins.transport(settings).bind(settings.address)
    try:
        clean()
        assert not (root / "old").exists(), "systemd-tmpfiles has run"
        with pytest.raises(TransportError, match="is in use by another aggregator"):
            plugins.transport(settings).bind(settings.address)
    finally:
        hub.close()
