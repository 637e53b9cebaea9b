"""Anonymous memory of one process that others of the same user can read; only Linux has it (``memfd_create``).

It has no name, so nothing is left in /dev/shm when a process is killed; the kernel frees it when the last process
closes it. Readers open it as ``/proc/PID/fd/FD``, which the kernel allows only to processes of the same user and PID
namespace (`identity`). It cannot shrink: that would kill a reader (SIGBUS).
"""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

from fer_stream.system import standard

_fcntl = standard.module("fcntl")

_NAME = "fer_stream"


class NotOursError(ValueError):
    """A file that is not anonymous memory of fer_stream."""


def identity() -> str:
    """Return a string that is equal in two processes if they can share memory; empty if none can be shared here."""
    if not hasattr(os, "memfd_create") or sys.platform != "linux":
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}:{os.getuid()}"
    except OSError:
        return ""


def create(length: int) -> tuple[int, mmap.mmap]:
    """Return the descriptor of new memory, and its mapping.

    Raises:
        OSError: it cannot be allocated.
    """
    if sys.platform != "linux":
        raise OSError("no memory can be shared here")
    file = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(file, length)
        _fcntl.fcntl(file, _fcntl.F_ADD_SEALS, _fcntl.F_SEAL_SHRINK | _fcntl.F_SEAL_GROW | _fcntl.F_SEAL_SEAL)
        return file, mmap.mmap(file, length)
    except BaseException:
        os.close(file)
        raise


def path_of(process: int, file: int) -> Path:
    """Return where a process's memory can be opened."""
    return Path(f"/proc/{process}/fd/{file}")


def opened(path: Path) -> tuple[int, mmap.mmap]:
    """Return the inode number of another process's memory, and its mapping, to read.

    Raises:
        OSError: it does not exist, or this process may not open it.
        NotOursError: it is something else.
    """
    if sys.platform != "linux":
        raise PermissionError("no memory can be shared here")
    if not str(path.readlink()).startswith(f"/memfd:{_NAME}"):  # opening another file may have side effects
        raise NotOursError("not shared memory of fer_stream")
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not _fcntl.fcntl(file, _fcntl.F_GET_SEALS) & _fcntl.F_SEAL_SHRINK:
            raise NotOursError("shared memory that may shrink")
        found = os.fstat(file)
        return found.st_ino, mmap.mmap(file, found.st_size, prot=mmap.PROT_READ)
    finally:
        os.close(file)
