"""Machines on one network: namespaces for the network, the files in /etc and /var/lib, and the host name.

A machine has its own /etc, /var/lib and home folder, and the address 192.0.2.N. Everything else is shared, such as
programs and /tmp. Its processes are killed by their ids when it is switched off.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from processes import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORK = "192.0.2"

_CLONE_NEWNET = 0x40000000

COPY = """#!/bin/sh
# What `scp` does, between the folders of machines.
set -eu
options=; [ "$1" != -r ] || { options=-r; shift; }
for last; do :; done
to=${last#root@}
while [ $# -gt 1 ]; do cp $options -- "$1" "MACHINES/${to%%:*}/${to#*:/}"; shift; done
"""


def possible() -> bool:
    """Whether this process may make such namespaces."""
    command = ["unshare", "--net", "--mount", "--uts", "sh", "-c", "ip link add type veth && mount -t tmpfs none /mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Network:
    """A switch, and machines that are connected to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._switch = _hold("--net")
        self.machines: list[Machine] = []
        self._run(self._switch, "ip link add bridge type bridge && ip link set bridge up")
        (folder / "bin").mkdir()
        (folder / "bin/scp").write_text(COPY.replace("MACHINES", str(folder)))
        (folder / "bin/scp").chmod(0o755)

    def machine(self, number: int, environment: dict[str, str]) -> Machine:
        """Switch on a machine."""
        machine = Machine(self.folder, number, environment | {"PATH": f"{self.folder}/bin:{environment['PATH']}"})
        self.machines.append(machine)
        pid = machine.holder.pid
        self._run(self._switch, f"ip link add m{number} type veth peer name eth0 netns {pid}")
        self._run(self._switch, f"ip link set m{number} master bridge up")
        machine.run("ip link set lo up && ip link set eth0 up")
        machine.run(f"ip address add {machine.address}/24 dev eth0")
        return machine

    def connect(self, machine: Machine, on: bool) -> None:
        """Connect a machine to the switch, or cut it off."""
        number = machine.address.rpartition(".")[2]
        self._run(self._switch, f"ip link set m{number} {'up' if on else 'down'}")

    def _run(self, holder: subprocess.Popen[bytes], command: str) -> None:
        subprocess.run([*_enter(holder, "--net"), "sh", "-c", command], check=True, capture_output=True)

    def close(self) -> None:
        for machine in self.machines:
            machine.switch_off()
        self._switch.communicate()


class Machine:
    """One machine; its commands run as root, in ``home``."""

    def __init__(self, folder: Path, number: int, environment: dict[str, str]) -> None:
        self.address = f"{NETWORK}.{number}"
        root = folder / self.address
        shutil.copytree("/etc", root / "etc", symlinks=True, ignore_dangling_symlinks=True)
        self.home = root / "root"
        self.home.mkdir()
        (root / "var/lib").mkdir(parents=True)
        self._short = Path(tempfile.mkdtemp(prefix="f-", dir="/tmp"))  # for sockets
        self.environment = environment | {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self._short)}
        self.holder = _hold("--net", "--mount", "--uts")
        self.enter = _enter(self.holder, "--net", "--mount", "--uts")
        self._started: list[tuple[subprocess.Popen[bytes], Path]] = []
        for path in ("etc", "var/lib"):
            self.run(f"mount --bind {root / path} /{path}")
        self.run(f"hostname machine-{number}")

    def run(self, command: str) -> str:
        """Run commands as in a shell, and return what they print."""
        done = self.attempt(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def attempt(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run commands that may fail."""
        return subprocess.run(
            [*self.enter, "bash", "-e", "-c", f"cd {self.home}\n{command}"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, command: str) -> None:
        """Start a command that runs on."""
        log = self.home / f"{len(self._started)}.log"
        with log.open("wb") as output:
            started = subprocess.Popen(
                [*self.enter, "bash", "-c", f"cd {self.home} && exec {command.strip()}"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._started.append((started, log))

    @property
    def log(self) -> str:
        """What its commands that run on have printed."""
        return "\n".join(log.read_text(errors="replace") for _, log in self._started)

    def stop(self) -> None:
        """End the command that was started last, in order."""
        started, log = self._started[-1]
        started.send_signal(signal.SIGTERM)
        assert started.wait(60) == 0, log.read_text()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread, and the threads and processes that it starts, use this machine's network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (
            Path("/proc/thread-self/ns/net").open("rb") as here,
            Path(f"/proc/{self.holder.pid}/ns/net").open("rb") as there,
        ):
            assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(here.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())

    def switch_off(self) -> None:
        """Kill everything that runs on it, at once."""
        here = _namespace(self.holder.pid)
        for folder in Path("/proc").glob("[0-9]*"):
            if int(folder.name) != self.holder.pid and _namespace(int(folder.name)) == here:
                with suppress(OSError):
                    os.kill(int(folder.name), signal.SIGKILL)
        for started, _ in self._started:
            started.kill()
            started.wait()
        if self.holder.poll() is None:
            self.holder.communicate()
        shutil.rmtree(self._short, ignore_errors=True)


def _hold(*kinds: str) -> subprocess.Popen[bytes]:
    """Start a process that holds namespaces, and ends with this one."""
    holder = subprocess.Popen(["unshare", *kinds, "cat"], stdin=subprocess.PIPE)
    wait_for(lambda: _namespace(holder.pid) != _namespace(os.getpid()), "namespaces", lambda: holder.poll() is None)
    return holder


def _enter(holder: subprocess.Popen[bytes], *kinds: str) -> tuple[str, ...]:
    return ("nsenter", f"--target={holder.pid}", *kinds)


def _namespace(pid: int) -> str:
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    return ""


PROGRAMS = Path(sys.executable).parent
"""The folder of ``fer-stream`` and ``nats-server``."""
