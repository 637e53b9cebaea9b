"""Cores and memory: control groups laid out as by the kernel and container engines, and real ones where permitted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fer_stream.system import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

UNLIMITED = "9223372036854771712\n"
"""The value of version 1 for no memory limit."""

V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "33 31 0:30 {root} /sys/fs/cgroup/cpu,cpuacct ro,relatime master:11 - cgroup cgroup rw,cpu,cpuacct\n"
    "34 31 0:31 {root} /sys/fs/cgroup/memory ro,relatime master:12 - cgroup cgroup rw,memory\n"
    "35 31 0:32 {root} /sys/fs/cgroup/cpuset ro,relatime master:13 - cgroup cgroup rw,cpuset\n"
)
OTHER_MOUNTS = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n36 22 0:40 / /mnt/a\\040b rw - fuse.sshfs host:/ rw\n"


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 32 cores, all of which this process may run on."""
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)), raising=False)


class Laid:
    """A machine's files: those of ``/proc`` and of the control groups."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/meminfo", "MemTotal:       65861244 kB\nMemFree:         1234 kB\n")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def version_2(self, path: str, root: str = "/") -> None:
        self.write("proc/self/cgroup", f"0::{path}\n")
        self.write("proc/self/mountinfo", OTHER_MOUNTS + V2_MOUNT.format(root=root))

    def version_1(self, path: str, root: str = "/") -> None:
        names = enumerate(("cpuset", "memory", "cpu,cpuacct", "name=systemd"), start=1)
        self.write("proc/self/cgroup", "".join(f"{n}:{name}:{path}\n" for n, name in names) + "0::/x\n")
        self.write("proc/self/mountinfo", OTHER_MOUNTS + V1_MOUNTS.format(root=root))

    def group(self, path: str, **files: str) -> None:
        for name, text in files.items():
            self.write(f"sys/fs/cgroup/{path}/{name.replace('__', '.')}", text)


@pytest.fixture
def laid(tmp_path: Path, cores: None) -> Laid:
    return Laid(tmp_path)


def found(laid: Laid) -> tuple[float, str, float, str]:
    has_cores, has_memory = machine.cores(laid.root), machine.memory(laid.root)
    return has_cores.amount, has_cores.by, has_memory.amount, has_memory.by


MACHINE = (32, "this machine", 65861244 * 1024, "this machine")


def test_no_control_groups_at_all(laid: Laid) -> None:
    assert found(laid) == MACHINE


def test_a_container_of_version_2_in_a_namespace_of_its_own(laid: Laid) -> None:
    laid.version_2("/")
    laid.group("", cpu__max="250000 100000\n", memory__max="1610612736\n", memory__high="max\n")
    assert found(laid) == (2.5, "CPU quota of /sys/fs/cgroup", 1610612736, "memory limit of /sys/fs/cgroup")
    assert machine.workers(laid.root) == (2, "CPU quota of /sys/fs/cgroup")


def test_max_is_no_limit(laid: Laid) -> None:
    laid.version_2("/a")
    laid.group("a", cpu__max="max 100000\n", memory__max="max\n", memory__high="max\n")
    assert found(laid) == MACHINE


def test_a_unit_of_systemd_and_a_limit_of_a_slice_above(laid: Laid) -> None:
    laid.version_2("/fer.slice/fer-stream.service")
    laid.group("fer.slice/fer-stream.service", cpu__max="max 100000\n", memory__max="8589934592\n")
    laid.group("fer.slice", cpu__max="400000 100000\n", memory__max="max\n", memory__high="1073741824\n")
    slice_of = "/sys/fs/cgroup/fer.slice"
    assert found(laid) == (4, f"CPU quota of {slice_of}", 1073741824, f"memory limit of {slice_of}")


def test_the_least_of_several_levels(laid: Laid) -> None:
    laid.version_2("/a/b/c")
    laid.group("a", cpu__max="200000 100000\n")
    laid.group("a/b", cpu__max="50000 50000\n")
    laid.group("a/b/c", cpu__max="300000 100000\n")
    laid.group("a/elsewhere", cpu__max="1000 100000\n")
    assert machine.cores(laid.root) == (1, "CPU quota of /sys/fs/cgroup/a/b")


def test_a_container_of_version_1_sees_its_own_group_alone(laid: Laid) -> None:
    laid.version_1("/docker/4f5e", root="/docker/4f5e")
    laid.group("cpu,cpuacct", cpu__cfs_quota_us="150000\n", cpu__cfs_period_us="100000\n")
    laid.group("memory", memory__limit_in_bytes="1073741824\n")
    assert found(laid) == (
        *(1.5, "CPU quota of /sys/fs/cgroup/cpu,cpuacct"),
        *(1073741824, "memory limit of /sys/fs/cgroup/memory"),
    )


def test_version_1_in_nested_groups_of_the_host(laid: Laid) -> None:
    laid.version_1("/kubepods/burstable/pod1/c1")
    none = {"cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"}
    laid.group("cpu,cpuacct/kubepods/burstable/pod1/c1", **none)
    laid.group("cpu,cpuacct/kubepods/burstable/pod1", **none | {"cpu__cfs_quota_us": "300000\n"})
    laid.group("cpu,cpuacct", **none)
    laid.group("memory/kubepods/burstable/pod1/c1", memory__limit_in_bytes=UNLIMITED)
    laid.group("memory", memory__limit_in_bytes=UNLIMITED)
    assert found(laid) == (3, "CPU quota of /sys/fs/cgroup/cpu,cpuacct/kubepods/burstable/pod1", *MACHINE[2:])


def test_a_group_outside_its_namespace_is_looked_for_at_the_mount(laid: Laid) -> None:
    laid.version_2("/../other")
    laid.group("", cpu__max="100000 100000\n")
    assert machine.cores(laid.root).amount == 1
    laid.version_2("/", root="/../..")
    assert machine.cores(laid.root).amount == 1


def test_a_mount_point_with_a_space_in_its_name(laid: Laid) -> None:
    laid.version_2("/")
    mounts = V2_MOUNT.format(root="/").replace("/sys/fs/cgroup", r"/mnt/control\040groups")
    laid.write("proc/self/mountinfo", mounts)
    laid.write("mnt/control groups/cpu.max", "100000 100000\n")
    assert machine.cores(laid.root) == (1, "CPU quota of /mnt/control groups")


@pytest.mark.parametrize("text", ["", "a\n", "a b\n", "0 100000\n", "100000 0\n", "-5 100000\n", "\x00\xff 1\n"])
def test_what_is_no_limit_is_none(laid: Laid, text: str) -> None:
    laid.version_2("/")
    laid.group("", cpu__max=text, memory__max=text)
    assert found(laid) == MACHINE
    laid.write("proc/self/mountinfo", "nonsense - \n - cgroup2\n1 2 - cgroup2 x\n")
    laid.write("proc/self/cgroup", "nonsense\n0::\n")
    assert found(laid) == MACHINE


def test_affinity_counts(laid: Laid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7}, raising=False)
    assert machine.cores(laid.root) == (2, "CPU affinity")


@pytest.mark.parametrize(
    ("quota", "memory", "workers", "by"),
    [
        ("50000 100000", "max", 1, "CPU quota"),  # below one core
        ("max 100000", "1610612736", 4, "memory limit"),  # 1.5 GiB on 32 cores
        ("200000 100000", "1610612736", 2, "CPU quota"),
        ("max 100000", "104857600", 1, "memory limit"),  # too little for anything
        ("max 100000", "max", 32, "this machine"),
    ],
)
def test_workers_are_as_many_as_cores_and_memory_allow(
    laid: Laid, quota: str, memory: str, workers: int, by: str
) -> None:
    laid.version_2("/")
    laid.group("", cpu__max=quota + "\n", memory__max=memory + "\n")
    has = machine.workers(laid.root)
    assert has.amount == workers
    assert has.by.startswith(by)


def test_a_huge_machine_gets_no_more_workers_than_can_be_set(laid: Laid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 768)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(768)))
    laid.write("proc/meminfo", "MemTotal:     999999999 kB\n")
    assert machine.workers(laid.root).amount == machine.MOST_WORKERS


def _hierarchy(controller: str) -> Path:
    """Return the folder of this process's group in a real hierarchy with the controller; skip if there is none."""
    for mount in machine._mounts(Path("/")):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if mount.kind == "cgroup" and controller in mount.options and controller in controllers.split(","):
                return Path(mount.point, *machine._below(path, mount.root))
            if mount.kind == "cgroup2" and number == "0":
                folder = Path(mount.point, *machine._below(path, mount.root))
                enabled = folder / "cgroup.subtree_control"
                if enabled.exists() and controller in enabled.read_text().split():
                    return folder
    return pytest.skip(f"there is no hierarchy of control groups with the controller {controller}")


@contextmanager
def real_group(controller: str, limits: dict[str, str]) -> Iterator[tuple[Path, Path]]:
    """A real group with limits, and a child group without limits."""
    outer = _hierarchy(controller) / f"fer-stream-test-{uuid.uuid4().hex[:8]}"
    try:
        (outer / "inner").mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    try:
        for name, value in limits.items():
            if (outer / name).exists():
                (outer / name).write_text(value)
        yield outer, outer / "inner"
    finally:
        (outer / "inner").rmdir()
        outer.rmdir()


def inside(group: Path, *command: str) -> str:
    """Run Python with these arguments in a control group, and return its standard output."""
    script = 'echo $$ >"$0/cgroup.procs"; exec "$@"'
    run = ["sh", "-c", script, str(group), sys.executable, *command]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout


ASK = """
import json
from fer_stream.settings import tree
from fer_stream.system import machine
print(json.dumps({what}))
"""


def test_a_real_quota_of_a_group_above() -> None:
    quota = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "70000", "cpu.max": "70000 100000"}
    with real_group("cpu", quota) as (outer, inner):
        printed = inside(inner, "-c", ASK.format(what="[*machine.cores(), tree.load().workers, machine.threads()]"))
        assert json.loads(printed) == [0.7, f"CPU quota of {outer}", 1, 1]
        doctor = inside(inner, "-c", DOCTOR)
        assert f"2 workers share 0.7 CPU cores (CPU quota of {outer})" in doctor
        assert "set --workers to 1" in doctor


def test_a_real_limit_of_memory() -> None:
    with real_group("memory", {"memory.limit_in_bytes": "1G", "memory.max": "1G"}) as (outer, inner):
        printed = inside(inner, "-c", ASK.format(what="machine.memory()"))
        assert json.loads(printed) == [2**30, f"memory limit of {outer}"]
        doctor = inside(inner, "-c", DOCTOR.replace("workers=2", "workers=32"))
        assert (
            f"32 workers and the rest take about 8.5 GiB, and there is 1.0 GiB of memory (memory limit of {outer})"
        ) in doctor


DOCTOR = """
from fer_stream.cli.doctor import _machine
print(*_machine(workers=2), sep="\\n")
"""
