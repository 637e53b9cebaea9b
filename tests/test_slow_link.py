"""The slow link of other tests has its rate and latency, and can be cut."""

from __future__ import annotations

import subprocess
import sys

import pytest
from slow_link import SlowLink, ThrottledProxy, slow_link

SERVER = """
import socket
with socket.create_server(("{host}", {port})) as server:
    print("ready", flush=True)
    for size in {sizes}:
        sock, _ = server.accept()
        with sock:
            sock.sendall(bytes(size))
"""

CLIENT = """
import socket, time
begin, got = time.monotonic(), 0
with socket.create_connection(("{host}", {port})) as sock:
    opened = time.monotonic() - begin
    while data := sock.recv(65536):
        got += len(data)
print(got, opened, time.monotonic() - begin)
"""


def fetched(link: SlowLink | ThrottledProxy, sizes: list[int]) -> list[tuple[int, float, float]]:
    """Send bytes from the far end, one connection for each size; return bytes received, seconds to connect, seconds."""
    hosts = [address.removeprefix("tcp://").split(":") for address in (link.bind, link.address)]
    (far, far_port), (near, near_port) = hosts
    serve = SERVER.format(host=far, port=far_port, sizes=sizes)
    found = []
    with subprocess.Popen([*link.far, sys.executable, "-c", serve], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        for _ in sizes:
            fetch = [*link.near, sys.executable, "-c", CLIENT.format(host=near, port=near_port)]
            got, *times = subprocess.run(fetch, check=True, capture_output=True, text=True).stdout.split()
            opened, took = map(float, times)
            found.append((int(got), opened, took))
    return found


def test_the_rate_can_be_changed_at_run_time() -> None:
    with slow_link(rate=400_000) as link:
        ((got, _, took),) = fetched(link, [50_000])
        assert got == 50_000
        assert took > 0.8, "400,000 bits, minus those that buffers take at first"
        assert link.passed["near"] >= 50_000
        link.rate = 400_000_000
        ((_, _, faster),) = fetched(link, [50_000])
        assert faster < took


def test_latency_and_loss() -> None:
    with slow_link(latency=0.2, loss=0.05) as link:
        if not link.real:
            pytest.skip("no network namespaces here")
        ((got, opened, _),) = fetched(link, [50_000])
        assert opened >= 0.4
        assert got == 50_000, "TCP resends lost packets"


def test_cut_and_mended() -> None:
    with slow_link() as link:
        if not link.real:
            pytest.skip("no network namespaces here")
        link.cut()
        where = link.address.removeprefix("tcp://").split(":")
        connect = [*link.near, sys.executable, "-c", CLIENT.format(host=where[0], port=where[1])]
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run(connect, check=False, timeout=1.5, capture_output=True)
        link.mend()
        assert fetched(link, [1000])[0][0] == 1000


def test_the_throttled_proxy_limits_the_rate() -> None:
    link = ThrottledProxy(400_000)
    try:
        ((got, _, took),) = fetched(link, [50_000])
    finally:
        link.close()
    assert got == 50_000
    assert took > 0.5
