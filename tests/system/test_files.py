"""Locks and synchronised files, with Linux's calls. The portable ways: `tests/portable`."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from fer_stream.system import files

if TYPE_CHECKING:
    from pathlib import Path


def test_a_lock_keeps_others_out_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    files.lock(first)
    with pytest.raises(BlockingIOError):
        files.lock(second)
    with pytest.raises(BlockingIOError):
        files.lock(second, shared=True)
    got = threading.Event()
    waiting = threading.Thread(target=lambda: (files.lock(second, wait=True), got.set()))
    waiting.start()
    assert not got.is_set()
    os.close(first)
    waiting.join()
    assert got.is_set()
    os.close(second)


def test_shared_locks_exclude_only_others(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second, third = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(3))
    files.lock(first, shared=True)
    files.lock(second, shared=True)
    with pytest.raises(BlockingIOError):
        files.lock(third)
    for descriptor in (first, second, third):
        os.close(descriptor)


def test_a_folder_is_locked_and_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    lock, other = files.open_folder(folder), files.open_folder(folder, follow=False)
    files.lock(lock)
    with pytest.raises(BlockingIOError):
        files.lock(other)
    os.close(other)
    files.close_folder(folder, lock, remove=True)
    assert not folder.exists()
    with pytest.raises(OSError, match="No such file"):
        files.open_folder(folder)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match=r"Not a directory|Too many"):
        files.open_folder(tmp_path / "link", follow=False)


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    fresh, path = tmp_path / "new", tmp_path / "file"
    path.write_text("old")
    fresh.write_text("new")
    files.replace(fresh, path)
    files.sync_folder(tmp_path)
    assert path.read_text() == "new"
    assert not fresh.exists()
    with pytest.raises(FileNotFoundError):
        files.replace(fresh, path)


def test_a_locked_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    files.lock(descriptor)
    files.remove_locked(path, descriptor)
    assert not path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize(("mode", "open_"), [(0o600, False), (0o640, True), (0o604, True)])
def test_who_may_read_a_file(tmp_path: Path, mode: int, open_: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.chmod(mode)
    assert files.readable_by_others(path.stat()) == files.open_to_others(path.stat()) == open_
    monkeypatch.setattr(os, "geteuid", lambda: 1_000_660_000)
    assert files.open_to_others(path.stat()), "it belongs to another user"
