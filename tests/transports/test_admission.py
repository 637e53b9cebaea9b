"""More peers than file descriptors: connected peers are served, others wait until descriptors are free."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.request import urlopen

import psutil
import pytest
import zmq
from processes import free_port, wait_for

from fer_stream import client
from fer_stream.settings import tree
from fer_stream.transports.zeromq import endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from processes import Cli, Process

LIMIT, PEERS = 100, 96

pytestmark = pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit sets the limit of a process")


@pytest.fixture(params=["tcp", "ipc"])
def address(request: pytest.FixtureRequest, short_folder: Path) -> str:
    return f"ipc://{short_folder}" if request.param == "ipc" else f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture
def listeners(address: str) -> Iterator[Callable[[int], list[zmq.Socket[bytes]]]]:
    """Creates subscribers to the heartbeats, two a second. Each takes one descriptor of the aggregator."""
    context = zmq.Context()
    made: list[zmq.Socket[bytes]] = []

    def make(count: int) -> list[zmq.Socket[bytes]]:
        for _ in range(count):
            sock = context.socket(zmq.SUB)
            made.append(sock)
            sock.set(zmq.LINGER, 0)
            sock.set(zmq.RECONNECT_IVL_MAX, 500)
            sock.set(zmq.CONNECT_TIMEOUT, 1000)  # the kernel would retry only after 1, 3, 7, 15 seconds
            sock.set(zmq.SUBSCRIBE, b"/")
            sock.connect(endpoint(address, "events"))
        return made[-count:]

    yield make
    context.destroy(linger=0)


def served(sockets: list[zmq.Socket[bytes]]) -> list[zmq.Socket[bytes]]:
    """Return the sockets that received a heartbeat since the last call."""
    found = []
    for sock in sockets:
        if not sock.closed and sock.poll(0):
            found.append(sock)
            while sock.poll(0):
                sock.recv_multipart()
    return found


def wait_until_all_served(sockets: list[zmq.Socket[bytes]], log: Callable[[], str]) -> None:
    """Wait until each socket has received a heartbeat."""
    reached: set[int] = set()

    def all_reached() -> bool:
        reached.update(id(sock) for sock in served(sockets))
        return len(reached) == len(sockets)

    wait_for(all_reached, f"a heartbeat to {len(sockets)} subscribers", log=log)


def start(cli: Cli, address: str, port: int) -> Process:
    cli.under = ("prlimit", f"--nofile={LIMIT}:{LIMIT}")
    aggregator = cli.start("aggregator", "--bind", address, "--journal", "events.db", "--metrics", f"127.0.0.1:{port}")
    cli.under = ()
    aggregator.until_said("ready at")
    return aggregator


def page(port: int, name: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}/{name}", timeout=60) as answer:
        return answer.read().decode()


def test_more_peers_than_descriptors(
    cli: Cli, address: str, listeners: Callable[[int], list[zmq.Socket[bytes]]]
) -> None:
    port = free_port() + 6
    aggregator = start(cli, address, port)
    present = listeners(10)
    wait_until_all_served(present, lambda: aggregator.err)
    newcomers = listeners(PEERS - 10)
    aggregator.until_said("new peers have to wait")
    assert json.loads(page(port, "healthz")) == {"status": "alive"}
    inside: set[int] = set()
    for _ in range(3):
        served(present)
        wait_until_all_served(present, lambda: aggregator.err)
        inside.update(id(sock) for sock in served(newcomers))
    assert len(inside) < len(newcomers), "there is no room for all of them"
    assert client.status(tree.load({"address": address}), timeout=60)["pid"] == aggregator.pid, (
        "the status is still available"
    )

    figures = dict(line.split() for line in page(port, "metrics").splitlines() if "fer_stream_descriptors" in line[:22])
    assert float(figures["fer_stream_descriptors_limit"]) == LIMIT
    assert 0.8 * LIMIT < float(figures["fer_stream_descriptors_open"]) <= LIMIT
    for sock in (*present, *newcomers[:70]):
        sock.close()
    aggregator.until_said("new peers are accepted")
    wait_until_all_served(newcomers[70:], lambda: aggregator.err)
    assert aggregator.stop() == 0
    assert "Traceback" not in aggregator.err


def test_our_processes_raise_their_limit_to_the_hard_limit(cli: Cli, short_folder: Path) -> None:
    cli.under = ("prlimit", "--nofile=256:4096")
    aggregator = cli.start("aggregator", "--bind", f"ipc://{short_folder}", "--journal", "events.db")
    aggregator.until_said("ready at")
    assert psutil.Process(aggregator.pid).rlimit(psutil.RLIMIT_NOFILE) == (4096, 4096)


def test_a_limit_too_low_to_run_is_refused(cli: Cli, short_folder: Path) -> None:
    cli.under = ("prlimit", "--nofile=40:40")
    refused = cli.run("aggregator", "--bind", f"ipc://{short_folder}", "--journal", "events.db")
    assert refused.popen.returncode == 2
    (sentence,) = refused.errors
    assert sentence.endswith(
        "a process may open 40 files here, and 64 are needed: raise the limit (LimitNOFILE in a unit, ulimit -n)"
    )
    cli.under = ("prlimit", "--nofile=64:64")
    least = cli.start("aggregator", "--bind", f"ipc://{short_folder}", "--journal", "events.db")
    least.until_said("ready at")
    assert client.status(tree.load({"address": f"ipc://{short_folder}"}), timeout=60)["pid"] == least.pid


def test_a_program_that_uses_the_library_keeps_its_limit() -> None:
    program = (
        "import resource, fer_stream.aggregator.aggregator, fer_stream.client, fer_stream.service.run;"
        "import fer_stream.cli.main; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    command = ["prlimit", "--nofile=256:4096", sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "256 4096\n"


def test_descriptors_are_counted() -> None:
    """In a separate process: in this one, libzmq's threads may still close sockets of earlier tests."""
    program = (
        "from pathlib import Path; from fer_stream.system import machine; before = machine.descriptors();"
        "files = [Path('/dev/null').open() for _ in range(2)]; after = machine.descriptors();"
        "print(after[0] - before[0], after[1] == before[1])"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "2 True\n"
    )
