"""File locks, files that survive a power cut, and who may read a file, on each operating system.

Linux and macOS have ``flock``, and folders can be opened. Windows has neither: ``msvcrt`` locks one byte beyond the end
of any file, a file ``.lock`` in a folder stands for the folder, and NTFS itself keeps the names of new files.
A file that is open cannot be renamed, replaced or deleted there.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fer_stream.system import standard

if TYPE_CHECKING:
    from pathlib import Path


_fcntl, _msvcrt = standard.module("fcntl"), standard.module("msvcrt")

_LOCKED_BYTE = 2**31 - 2
"""The byte that Windows locks, the last possible one: others cannot read a locked byte, and few files are so long."""

_STAND_IN = ".lock"

_PAUSE = 0.005
"""Seconds between two attempts, while another process has the file open or locked."""

_ATTEMPTS = 40


def lock(descriptor: int, *, wait: bool = False, shared: bool = False) -> None:
    """Lock an open file until its descriptor is closed, however the process ends.

    Args:
        descriptor: of a file, or of a folder (`open_folder`).
        wait: wait until no other process holds the lock.
        shared: allow other shared locks; where there are none, the lock is exclusive.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the file system has no locks.
    """
    if _fcntl is not None:
        kind = _fcntl.LOCK_SH if shared else _fcntl.LOCK_EX
        _fcntl.flock(descriptor, kind if wait else kind | _fcntl.LOCK_NB)
        return
    if _msvcrt is None:
        raise OSError(errno.ENOSYS, "this system has no file locks")
    while True:
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            _msvcrt.locking(descriptor, _msvcrt.LK_NBLCK, 1)
            return
        except PermissionError as error:
            if not wait:
                raise BlockingIOError(errno.EWOULDBLOCK, "another process holds the lock") from error
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)
        time.sleep(_PAUSE)


def open_folder(folder: Path, *, follow: bool = True) -> int:
    """Return a descriptor of a folder, to `lock` it.

    Args:
        folder: the folder.
        follow: whether the path may be a symbolic link.

    Raises:
        OSError: there is no such folder, or it cannot be opened.
    """
    if hasattr(os, "O_DIRECTORY"):
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    return os.open(folder / _STAND_IN, os.O_RDWR | os.O_CREAT, 0o600)


def close_folder(folder: Path, descriptor: int, *, remove: bool = False) -> None:
    """Close the descriptor of a folder that this process has locked.

    Args:
        folder: the folder; it may be gone.
        descriptor: the descriptor.
        remove: first delete the folder and its contents; what cannot be deleted remains.
    """
    if remove:
        import shutil  # noqa: PLC0415  (slow, and `fer-stream --help` needs none)

        shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)
    if not hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):  # another process has it open
            (folder / _STAND_IN).unlink()
            if remove:
                folder.rmdir()


def sync(descriptor: int) -> None:
    """Write the contents of a file through to the disk.

    Raises:
        OSError: the disk fails, or is full.
    """
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(folder: Path) -> None:
    """Write the names of new files in a folder through to the disk.

    Raises:
        OSError: the disk fails, or the folder cannot be opened.
    """
    if hasattr(os, "O_DIRECTORY"):
        descriptor = open_folder(folder)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace(fresh: Path, path: Path) -> None:
    """Rename a file over another one in one step: a reader gets the old contents or the new ones.

    Raises:
        OSError: that is not possible.
    """
    for _ in range(_ATTEMPTS):
        try:
            fresh.replace(path)
            return
        except PermissionError as error:
            if not hasattr(error, "winerror"):
                raise
            time.sleep(_PAUSE)  # Windows refuses while a reader has the file open, which is for a moment
    fresh.replace(path)


def remove_locked(path: Path, descriptor: int) -> None:
    """Delete a locked file, and close its descriptor: in this order, unless the system cannot delete an open file.

    Raises:
        OSError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
        os.close(descriptor)
    except PermissionError as error:
        os.close(descriptor)
        if not hasattr(error, "winerror"):
            raise
        with suppress(PermissionError):  # somebody has just opened it
            path.unlink(missing_ok=True)


def readable_by_others(found: os.stat_result) -> bool:
    """Return whether other users may read a file, as far as its mode says so.

    Windows has no such modes: there a file inherits its access list from its folder, and a user's own folders are
    closed to others.
    """
    return hasattr(os, "geteuid") and bool(found.st_mode & 0o077)


def open_to_others(found: os.stat_result) -> bool:
    """Return whether a file or folder belongs to another user, or is `readable_by_others`."""
    return hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or readable_by_others(found))
