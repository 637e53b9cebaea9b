"""How much of this machine a process may use: CPU cores, memory, and how many workers these are enough for.

A process in a container sees the whole host, but its control group limits it: a CPU quota slows it down,
and the kernel kills it above the memory limit. The smallest limit counts: that of the machine, of the cores that the
process may run on (CPU affinity, which includes cpusets), and of its control group and all visible groups above it, in
version 1 and version 2 of control groups.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER = 256 * 2**20
"""Bytes of memory for one worker: 225 MiB with 1080p pictures, and a reserve."""

OTHERS = 512 * 2**20
"""Bytes that the other processes take: a supervisor, an aggregator, and a capture or two."""

MOST_WORKERS = 256
"""The most workers that settings allow."""


class Limit(NamedTuple):
    """A limit, and a text that names what sets it."""

    amount: float
    by: str


class _Mount(NamedTuple):
    """One mount of a file system."""

    kind: str
    options: tuple[str, ...]
    root: str
    """What of the file system is seen at the mount point: of control groups, the group that the others are below."""
    place: str


def cores(root: Path = Path("/")) -> Limit:
    """Return how many CPU cores this process may use, 0.5 for half of one's time.

    Args:
        root: where ``proc`` and the mount points are looked for.
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
    """Return how many bytes of memory this process and those of its control group may use; arguments as for `cores`."""
    total = re.search(r"^MemTotal:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    limits = [Limit(1024 * int(total[1]) if total else float("inf"), "this machine")]
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            text = _read(folder / name).strip()
            if _positive(text):
                limits.append(Limit(int(text), f"memory limit of {_shown(folder, root)}"))
    return min(limits, key=lambda limit: limit.amount)


def workers(root: Path = Path("/")) -> Limit:
    """Return how many workers are of use: one for each core, where memory has room for them, and at least one."""
    has_cores, has_memory = cores(root), memory(root)
    room = Limit((has_memory.amount - OTHERS) // WORKER, has_memory.by)
    amount, by = min(Limit(has_cores.amount // 1, has_cores.by), room, key=lambda limit: limit.amount)
    return Limit(int(min(max(amount, 1), MOST_WORKERS)), by)


def threads() -> int:
    """Return how many threads that compute are of use in one process: one for each whole core, and at least one."""
    return max(1, int(cores().amount))


def descriptors() -> tuple[int, int] | None:
    """Return how many file descriptors this process has open, and how many it may open; ``None`` if this is unknown."""
    # Not by getrlimit, which a unit's SystemCallFilter may forbid.
    limit = re.search(r"^Max open files\s+(\d+)", _read(Path("/proc/self/limits")), re.MULTILINE)
    try:
        used = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208  (names are enough, and there may be many)
    except OSError:
        return None
    return (used, int(limit[1])) if limit else None


def file_system(path: Path, root: Path = Path("/")) -> tuple[str, str]:
    """Return the kind of the file system that a path lies on, such as ``ext4``, and where that is mounted.

    Args:
        path: an absolute one, without links; it need not be there.
        root: as for `cores`.

    Returns:
        Two empty texts where it is not known.
    """
    places = {str(place) for place in (path, *path.parents)}
    mounts = [mount for mount in _mounts(root) if mount.place in places]
    deepest = max(mounts, key=lambda mount: len(mount.place), default=None)
    latest = [mount for mount in mounts if deepest and mount.place == deepest.place][-1:]  # which hides those before it
    return (latest[0].kind, latest[0].place) if latest else ("", "")


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group, and of those above it, in which a controller has its files."""
    groups = [line.split(":", 2) for line in _read(root / "proc/self/cgroup").splitlines() if line.count(":") >= 2]
    for mount in _mounts(root):
        for number, controllers, path in groups:
            version_1 = controller in mount.options and controller in controllers.split(",")
            if (mount.kind == "cgroup2" and number == "0") or (mount.kind == "cgroup" and version_1):
                yield from _upwards(root / mount.place.lstrip("/"), _below(path, mount.root))


def _mounts(root: Path) -> list[_Mount]:
    """Return the mounts, in the order in which they were made (proc(5), mountinfo)."""
    found = []
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, about = before.split(), after.split()
        if len(fields) > 4 and len(about) > 2:
            found.append(_Mount(about[0], tuple(about[-1].split(",")), _plain(fields[3]), _plain(fields[4])))
    return found


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)  # as the kernel writes spaces


def _below(path: str, root: str) -> tuple[str, ...]:
    """Return the parts of a group's path below the group that is mounted.

    Where a container's mount shows its own group alone, or its namespace does not have the group at all ("/.."), the
    mount point is all there is to look at.
    """
    parts, above = Path(path).parts[1:], Path(root).parts[1:]
    if ".." in parts or parts[: len(above)] != above:
        return ()
    return parts[len(above) :]


def _upwards(top: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    for depth in range(len(parts), -1, -1):
        yield top.joinpath(*parts[:depth])


def _words(one: Path, *several: str) -> tuple[str, str]:
    """Return two words: those of a file of version 2, or of version 1 the content of two files beside it."""
    words = (_read(one) or " ".join(_read(one.with_name(name)) for name in several)).split()
    return (words[0], words[1]) if len(words) == 2 else ("", "")


def _positive(text: str) -> bool:
    """Whether a limit is set: not where there is no file, nor by "max", "-1" or 0."""
    return text.isdigit() and int(text) > 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _shown(folder: Path, root: Path) -> str:
    return f"/{folder.relative_to(root)}"
