"""A slow link: two network namespaces whose packets a thread here passes on at a rate, late, and with losses.

The kernel's own TCP works at both ends, as on a real link. The thread does what ``tc``'s netem does, which many kernels
lack. Where a process may not make namespaces, a throttling proxy on loopback is used: slow, but neither late nor lossy.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from faults.proxy import Proxy
from processes import free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

NEAR, FAR = "10.231.0.1", "10.231.0.2"

_TUNSETIFF, _TUN_WITHOUT_HEADER = 0x400454CA, 0x1001
_LONGEST = 65_536


class SlowLink:
    """A link between two hosts: processes ``near`` connect to ``address``, where those ``far`` listen at ``bind``.

    Args:
        rate: bits a second in each direction; ``None``: as fast as it goes.
        latency: seconds that a packet takes, one way.
        loss: the share of packets that are lost.
        queue: bytes that wait for their turn in each direction; packets beyond are lost.
    """

    real = True
    """Whether packets are passed on between namespaces."""

    def __init__(self, rate: float | None = None, latency: float = 0.0, loss: float = 0.0, queue: int = 64_000) -> None:
        self.rate, self.latency, self.loss, self.queue = rate, latency, loss, queue
        self.port = free_port()
        self.bind = self.address = f"tcp://{FAR}:{self.port}"
        self.near: tuple[str, ...] = ()
        """What to put before a command that runs at the near end (`processes.Cli.under`)."""
        self.far: tuple[str, ...] = ()
        self.passed = {"near": 0, "far": 0}
        """Bytes of packets that came through, by the end that they went to."""
        self._flowing = True
        self._ended = False
        self._random = random.Random(0)
        self._holders: list[subprocess.Popen[bytes]] = []
        self._devices: list[int] = []
        self._thread = threading.Thread(target=self._relay, daemon=True)
        try:
            self.near, self.far = self._host(NEAR, FAR), self._host(FAR, NEAR)
        except BaseException:
            self.close()
            raise
        self._thread.start()

    def _host(self, own: str, other: str) -> tuple[str, ...]:
        # The namespace lives as long as our end of its stdin, so nothing is left whatever ends this process.
        holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self._holders.append(holder)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self._devices.append(device)
        made = fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"fer%d", _TUN_WITHOUT_HEADER))
        name = made[:16].rstrip(b"\0").decode()
        wait_for(
            lambda: _namespace(holder.pid) != _namespace(os.getpid()), "a namespace", lambda: holder.poll() is None
        )
        under = ("nsenter", f"--net=/proc/{holder.pid}/ns/net")
        for command in (
            ("ip", "link", "set", name, "netns", str(holder.pid)),
            (*under, "ip", "link", "set", "lo", "up"),
            (*under, "ip", "address", "add", own, "peer", other, "dev", name),
            (*under, "ip", "link", "set", name, "up"),
        ):
            subprocess.run(command, check=True, capture_output=True)
        return under

    def _relay(self) -> None:
        poller, numbers = select.poll(), itertools.count()
        for device in self._devices:
            poller.register(device, select.POLLIN)
        free = [0.0, 0.0]  # when the last packet in this direction will be on its way
        flying: list[tuple[float, int, int, bytes]] = []
        while not self._ended:
            wait = flying[0][0] - time.monotonic() if flying else 0.1
            for device, _ in poller.poll(1000 * min(max(wait, 0.0), 0.1)):
                end, now = self._devices.index(device), time.monotonic()
                with suppress(BlockingIOError):
                    while packet := os.read(device, _LONGEST):
                        rate = self.rate or float("inf")
                        begins = max(now, free[end])
                        lost = self._random.random() < self.loss or (begins - now) * rate > 8 * self.queue
                        if lost or not self._flowing:
                            continue
                        free[end] = begins + 8 * len(packet) / rate
                        heapq.heappush(flying, (free[end] + self.latency, next(numbers), 1 - end, packet))
            while flying and flying[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(flying)
                if self._flowing:
                    self.passed["far" if end else "near"] += len(packet)
                    with suppress(OSError):  # its device is down
                        os.write(self._devices[end], packet)

    def cut(self) -> None:
        """Let nothing pass, and tell nobody."""
        self._flowing = False

    def mend(self) -> None:
        """Let everything pass again."""
        self._flowing = True

    def close(self) -> None:
        self._ended = True
        if self._thread.ident:
            self._thread.join()
        for device in self._devices:
            os.close(device)
        for holder in self._holders:
            holder.communicate()


class ThrottledProxy(Proxy):
    """What a `SlowLink` offers, as far as a proxy on loopback can: its rate, and cuts."""

    real = False
    piece = 1400

    def __init__(self, rate: float | None = None) -> None:
        self.rate = rate
        self._far_port = free_port()
        self.bind = f"tcp://127.0.0.1:{self._far_port}"
        self.near: tuple[str, ...] = ()
        self.far: tuple[str, ...] = ()
        self.passed = {"near": 0, "far": 0}
        self._turns = {"near": threading.Lock(), "far": threading.Lock()}
        super().__init__(self._far_port)

    def pace(self, towards: bool, size: int) -> None:
        end = "far" if towards else "near"
        with self._turns[end]:
            if self.rate:
                time.sleep(8 * size / self.rate)
            self.passed[end] += size

    def cut(self) -> int:
        """Let nothing pass, and tell nobody."""
        self.stall()
        return 0

    def mend(self) -> None:
        """Let everything pass again."""
        self.flow()


@contextmanager
def slow_link(
    rate: float | None = None, latency: float = 0.0, loss: float = 0.0, queue: int = 64_000
) -> Iterator[SlowLink | ThrottledProxy]:
    """Open a `SlowLink`, or where this process may not make one, a `ThrottledProxy`."""
    link: SlowLink | ThrottledProxy
    try:
        link = SlowLink(rate, latency, loss, queue)
    except (OSError, subprocess.CalledProcessError, AssertionError):
        link = ThrottledProxy(rate)
    try:
        yield link
    finally:
        link.close()


def _namespace(pid: int) -> str:
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    return ""
