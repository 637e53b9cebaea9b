"""A connection may break while its incoming queue is full: no process is aborted, and received messages are readable.

With ZeroMQ's heartbeats libzmq aborted the process in this case (zeromq/libzmq#4767).
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from processes import free_port

from fer_stream.transports.zeromq import HIGH_WATER

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITER_HUB = """
    hub = zeromq.bind(ADDRESS)
    print("ready", flush=True)
    while not any(link == "observations" for link, _, _ in hub.receive(1)):
        pass
    while True:
        hub.publish("observations", "door/", [bytes(1000)])
        hub.receive(0)
"""
WRITER_PEER = """
    peer = zeromq.connect(ADDRESS, "control")
    print("ready", flush=True)
    while True:
        peer.send([bytes(1000)])
        peer.receive(0)
"""
READER_PEER = """
    peer = zeromq.subscribe(ADDRESS, "observations", [""])
    ready()
    read = 0
    while peer.receive(0.2) is not None:
        read += 1
    print(read)
"""
READER_HUB = """
    hub = zeromq.bind(ADDRESS)
    ready()
    read = 0
    while new := hub.receive(0.2):
        read += len(new)
    print(read)
"""
BEGINNING = """
    import sys, time
    from fer_stream import plugins
    zeromq = plugins.load("transports", "zeromq")()
    def ready():
        print("ready", flush=True)
        sys.stdin.readline()
"""
BROKEN = 2.0
"""Seconds from the break until the reader reads: several intervals of the former heartbeats."""


@contextmanager
def process(code: str, address: str) -> Iterator[subprocess.Popen[str]]:
    """Start one end of a link, and wait until it prints ``ready``."""
    text = textwrap.dedent(BEGINNING) + f"ADDRESS = {address!r}" + textwrap.dedent(code)
    started = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started
    finally:
        started.kill()
        started.communicate()


def read_after_a_break(reader: subprocess.Popen[str], writer: subprocess.Popen[str]) -> int:
    """Let the writer fill all queues, kill it, and return how many messages the reader then reads."""
    with suppress(subprocess.TimeoutExpired):
        writer.wait(1.0)
    writer.kill()
    with suppress(subprocess.TimeoutExpired):
        reader.wait(BROKEN)
    out, _ = reader.communicate("\n", timeout=60)
    assert reader.returncode == 0, f"the reader was aborted: {reader.returncode}"
    return int(out)


def test_a_subscriber_with_a_full_queue_survives_its_aggregator() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with process(WRITER_HUB, address) as writer, process(READER_PEER, address) as reader:
        assert read_after_a_break(reader, writer) >= HIGH_WATER["observations"]


def test_an_aggregator_with_a_full_queue_survives_its_peer() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with process(READER_HUB, address) as reader, process(WRITER_PEER, address) as writer:
        assert read_after_a_break(reader, writer) >= HIGH_WATER["control"]
