"""A slow link: two network namespaces, and a thread that forwards their packets with limited rate, latency and loss.

The kernel's own TCP runs at both ends, as on a real link. The thread does what ``tc``'s netem does, which many kernels
lack. If a process may not make namespaces, a throttling proxy on loopback is used, without latency and loss.
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
    """A link between two hosts: processes at the end ``far`` listen at ``bind``; those at ``near`` use ``address``.

    Args:
        rate: bits per second in each direction; ``None``: unlimited.
        latency: one-way latency of a packet, in seconds.
        loss: share of packets that are lost.
        queue: size of each direction's queue in bytes; further packets are lost.
    """

    real = True
    """Whether packets are forwarded between namespaces."""

    def __init__(self, rate: float | None = None, latency: float = 0.0, loss: float = 0.0, queue: int = 64_000) -> None:
        self.rate, self.latency, self.loss, self.queue = rate, latency, loss, queue
        self.port = free_port()
        self.bind = self.address = f"tcp://{FAR}:{self.port}"
        self.near: tuple[str, ...] = ()
        """The command that runs another command at the near end (`processes.Cli.under`)."""
        self.far: tuple[str, ...] = ()
        self.passed = {"near": 0, "far": 0}
        """Bytes of delivered packets, by the end that received them."""
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
        # `cat` ends when its stdin closes, so the namespace is removed however this process ends.
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
        free = [0.0, 0.0]  # when the last packet in each direction will have been sent
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
                    with suppress(OSError):  # the device is down
                        os.write(self._devices[end], packet)

    def cut(self) -> None:
        """Drop all packets silently."""
        self._flowing = False

    def mend(self) -> None:
        """Forward packets again."""
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
    """A substitute for `SlowLink` with a proxy on loopback: it has a rate limit and can be cut."""

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
        self._free = {"near": 0.0, "far": 0.0}  # when the last piece in each direction will have been sent
        super().__init__(self._far_port)

    def pace(self, towards: bool, size: int) -> None:
        end = "far" if towards else "near"
        with self._turns[end]:
            if self.rate:
                self._free[end] = max(time.monotonic(), self._free[end]) + 8 * size / self.rate
                time.sleep(max(0.0, self._free[end] - time.monotonic()))
            self.passed[end] += size

    def cut(self) -> int:
        """Stop forwarding, without closing connections."""
        self.stall()
        return 0

    def mend(self) -> None:
        """Forward again."""
        self.flow()


@contextmanager
def slow_link(
    rate: float | None = None, latency: float = 0.0, loss: float = 0.0, queue: int = 64_000
) -> Iterator[SlowLink | ThrottledProxy]:
    """Open a `SlowLink`, or a `ThrottledProxy` if this process may not make network namespaces."""
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
