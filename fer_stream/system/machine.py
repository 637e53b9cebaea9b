"""The CPU cores and the memory that a process may use, and the number of workers for which they suffice.

A process in a container sees the whole host, but its control group limits it: a CPU quota slows it down, and the kernel
kills it above the memory limit. The smallest limit counts: that of the machine, of the cores that the process may run
on (CPU affinity, which includes cpusets), and of its control group and all visible parent groups, in version 1 and
version 2 of control groups.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER = 256 * 2**20
"""Bytes of memory for one worker: 225 MiB with 1080p pictures, plus a reserve."""

OTHERS = 512 * 2**20
"""Bytes of memory for the other processes: a supervisor, an aggregator, and one or two captures."""

MOST_WORKERS = 256
"""The maximum number of workers that the settings allow."""


class Limit(NamedTuple):
    """A limit, and a text that names its origin."""

    amount: float
    by: str


class _Mount(NamedTuple):
    """One mount of a file system."""

    kind: str
    options: tuple[str, ...]
    root: str
    """The folder of the file system that is mounted; for control groups, the topmost visible group."""
    point: str
    """The mount point."""


def cores(root: Path = Path("/")) -> Limit:
    """Return how many CPU cores this process may use; 0.5 stands for half of one core's time.

    Args:
        root: the folder that contains ``proc`` and the mount points.
    """
    limits = [Limit(os.cpu_count() or 1, "this machine")]
    if hasattr(os, "sched_getaffinity"):
        limits.append(Limit(len(os.sched_getaffinity(0)), "CPU affinity"))
    for folder in _groups(root, "cpu"):
        quota, period = _words(folder / "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
        if _positive(quota) and _positive(period):
            limits.append(Limit(int(quota) / int(period), f"CPU quota of {_shown(folder, root)}"))
    return min(limits, key=lambda limit: limit.amount)


def memory(root: Path = Path("/")) -> Limit:
    """Return how many bytes of memory this process and its control group may use together; arguments as for `cores`."""
    total = re.search(r"^MemTotal:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    limits = [Limit(1024 * int(total[1]) if total else _installed(), "this machine")]
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            text = _read(folder / name).strip()
            if _positive(text):
                limits.append(Limit(int(text), f"memory limit of {_shown(folder, root)}"))
    return min(limits, key=lambda limit: limit.amount)


def _installed() -> float:
    """Return the bytes of memory of a machine without ``/proc``; infinite if nothing says them."""
    if hasattr(os, "sysconf"):
        try:
            return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (OSError, ValueError):
            return float("inf")
    kernel = getattr(ctypes, "windll", None)
    status = _MemoryStatus(ctypes.sizeof(_MemoryStatus))
    known = kernel is not None and kernel.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return float(status.total) if known else float("inf")


class _MemoryStatus(ctypes.Structure):
    """``MEMORYSTATUSEX`` of Windows."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 6),
    )


def workers(root: Path = Path("/")) -> Limit:
    """Return the useful number of workers: one per whole core as far as memory suffices, and at least one."""
    has_cores, has_memory = cores(root), memory(root)
    by_memory = Limit((has_memory.amount - OTHERS) // WORKER, has_memory.by)
    amount, by = min(Limit(has_cores.amount // 1, has_cores.by), by_memory, key=lambda limit: limit.amount)
    return Limit(int(min(max(amount, 1), MOST_WORKERS)), by)


def threads() -> int:
    """Return the useful number of compute threads in one process: one per whole core, and at least one."""
    return max(1, int(cores().amount))


def descriptors() -> tuple[int, int] | None:
    """Return the number of this process's open file descriptors and its limit, or ``None`` if they are unknown."""
    # Not with getrlimit, because a systemd unit's SystemCallFilter may forbid it.
    limit = re.search(r"^Max open files\s+(\d+)", _read(Path("/proc/self/limits")), re.MULTILINE)
    try:
        used = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208  (names are enough, and there may be many)
    except OSError:
        return None
    return (used, int(limit[1])) if limit else None


def file_system(path: Path, root: Path = Path("/")) -> tuple[str, str]:
    """Return the type of the file system that contains a path, such as ``ext4``, and its mount point.

    Args:
        path: an absolute path without symbolic links; it need not exist.
        root: as for `cores`.

    Returns:
        Two empty texts if the file system is unknown.
    """
    ancestors = {str(ancestor) for ancestor in (path, *path.parents)}
    mounts = [mount for mount in _mounts(root) if mount.point in ancestors]
    deepest = max(mounts, key=lambda mount: len(mount.point), default=None)
    latest = [mount for mount in mounts if deepest and mount.point == deepest.point][-1:]  # it hides earlier mounts
    return (latest[0].kind, latest[0].point) if latest else ("", "")


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders with a controller's files: of this process's control group and of its parent groups."""
    groups = [line.split(":", 2) for line in _read(root / "proc/self/cgroup").splitlines() if line.count(":") >= 2]
    for mount in _mounts(root):
        for number, controllers, path in groups:
            version_1 = controller in mount.options and controller in controllers.split(",")
            if (mount.kind == "cgroup2" and number == "0") or (mount.kind == "cgroup" and version_1):
                yield from _upwards(root / mount.point.lstrip("/"), _below(path, mount.root))


def _mounts(root: Path) -> list[_Mount]:
    """Return the mounts in the order of mounting (proc(5), mountinfo)."""
    found = []
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, about = before.split(), after.split()
        if len(fields) > 4 and len(about) > 2:
            found.append(_Mount(about[0], tuple(about[-1].split(",")), _plain(fields[3]), _plain(fields[4])))
    return found


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)  # the kernel escapes spaces in octal


def _below(path: str, root: str) -> tuple[str, ...]:
    """Return the parts of a group's path below the mounted group.

    They are empty if the container's mount shows only its own group, or if the group is outside the namespace ("/..").
    Then only the mount point can be read.
    """
    parts, above = Path(path).parts[1:], Path(root).parts[1:]
    if ".." in parts or parts[: len(above)] != above:
        return ()
    return parts[len(above) :]


def _upwards(top: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    for depth in range(len(parts), -1, -1):
        yield top.joinpath(*parts[:depth])


def _words(version_2: Path, *version_1: str) -> tuple[str, str]:
    """Return two words: from one file of cgroup version 2, or from two files of version 1 in the same folder."""
    words = (_read(version_2) or " ".join(_read(version_2.with_name(name)) for name in version_1)).split()
    return (words[0], words[1]) if len(words) == 2 else ("", "")


def _positive(text: str) -> bool:
    """Return whether a limit is set. A missing file (empty text), "max", "-1" and 0 mean no limit."""
    return text.isdigit() and int(text) > 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _shown(folder: Path, root: Path) -> str:
    return f"/{folder.relative_to(root)}"
