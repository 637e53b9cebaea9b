"""Decompression bombs and absurd headers, sent to a real aggregator and worker: they are refused by their headers."""

from __future__ import annotations

import random
import statistics
import struct
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import psutil
from faults.service import megabytes, standing
from processes import balanced, wait_for

from fer_stream import plugins
from fer_stream.errors import WireError
from fer_stream.protocol import messages, shared
from fer_stream.protocol.messages import Encoding, Kind, Message, Totals

if TYPE_CHECKING:
    from pathlib import Path

    from faults.table import Tell
    from processes import Cli
    from scale import Scale

    from fer_stream.plugins import Peer

SMALL = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()


def sized(width: int, height: int) -> bytes:
    """Return a JPEG of 64x48 pixels whose header has another size."""
    at = SMALL.index(b"\xff\xc0") + 5
    return SMALL[:at] + struct.pack("!HH", height, width) + SMALL[at + 4 :]


def twice_sized() -> bytes:
    """Return a JPEG with a second, much larger start of frame after its first."""
    begin = SMALL.index(b"\xff\xc0")
    end = begin + 2 + struct.unpack("!H", SMALL[begin + 2 : begin + 4])[0]
    huge = bytearray(SMALL[begin:end])
    huge[5:9] = struct.pack("!HH", 65_500, 65_500)
    return SMALL[:end] + bytes(huge) + SMALL[end:]


def hidden() -> bytes:
    """Return a JPEG with the header of a larger picture in a segment without a marker, where decoders look for one."""
    huge = sized(8100, 8100)
    scan = huge.index(b"\xff\xda")
    header = huge[2 : scan + 2 + struct.unpack("!H", huge[scan + 2 : scan + 4])[0]]
    return SMALL[:2] + b"\xff\x00" + struct.pack("!H", 2 + len(header)) + header + SMALL[2:]


def png() -> bytes:
    """Return a PNG, to be sent as a JPEG."""
    return cv2.imencode(".png", np.zeros((2000, 2000, 3), np.uint8))[1].tobytes()


BOMBS: list[tuple[str, bytes, int, int]] = [
    ("the largest size of a JPEG header", sized(65_500, 65_500), 64, 48),
    ("nearly the size of the frame's header", sized(16_000, 4000), 16_001, 4000),
    ("twice", twice_sized(), 64, 48),
    ("hidden", hidden(), 64, 48),
    ("no lines", sized(64, 0), 64, 48),
    ("a PNG", png(), 64, 48),
    ("a header of 65535 pixels a side", SMALL, 65_535, 65_535),
    ("a header of no pixels", SMALL, 0, 0),
    ("a header of one line", SMALL, 65_535, 1),
    ("nothing but fill bytes", b"\xff\xd8" + b"\xff" * 100_000, 64, 48),
    ("markers without end", b"\xff\xd8" + b"\xff\xe0\x00\x02" * 25_000, 64, 48),
]


def frame(number: int, ticket: int = 0) -> list[messages.Buffer]:
    _, payload, width, height = BOMBS[number % len(BOMBS)]
    totals = Totals(number + 1, 0, 0, number + 1)
    fields: dict[str, Any] = {"seq": number + 1, "time": number + 1, "totals": totals, "ticket": ticket}
    return messages.pack(Message(Kind.FRAME, payload, encoding=Encoding.JPEG, width=width, height=height, **fields))


def refused_in(number: int) -> float:
    """Return the CPU seconds that the aggregator or the worker needs to refuse a frame."""
    parts = frame(number)
    begin = time.thread_time()
    try:
        shared.MappedFrames().picture(messages.unpack(parts))
    except WireError:
        return time.thread_time() - begin
    raise AssertionError(f"{BOMBS[number % len(BOMBS)][0]} was decoded")


def offer(peer: Peer, count: int) -> None:
    """Simulate a capture that sends ``count`` bombs, one for each request of a frame."""
    about = {
        "camera": "film",
        "incarnation": "a",
        "reported": {},
        "frames": None,
        "rate": None,
        "policy": "wait",
        "pid": 1,
        "live": True,
    }
    peer.send(messages.json_message(Kind.HELLO, about))
    sent, full = 0, messages.json_message(Kind.OFFER, {"full": True}, totals=Totals(1, 0, 0, 0))
    deadline, beat = time.monotonic() + 300, 0.0
    while sent < count and time.monotonic() < deadline:
        parts = peer.receive(0.05)
        kind = messages.unpack(parts).kind if parts else None
        if kind is Kind.NEXT:
            peer.send(frame(sent))
            sent += 1
        if kind is not None or time.monotonic() > beat:
            beat = time.monotonic() + 0.3
            full = messages.json_message(
                Kind.OFFER, {"full": sent < count}, totals=Totals(min(sent + 1, count), 0, 0, sent)
            )
            peer.send(full)


def test_bombs(cli: Cli, short_folder: Path, scale: Scale, tell: Tell) -> None:
    address, count = f"ipc://{short_folder}", scale.of(200, 1000)
    roles = [
        cli.start("aggregator", "--bind", address, "--journal", "events.db"),
        cli.start("worker", "--name", "1", "--connect", address),
    ]
    wait_for(lambda: (standing(address) or {}).get("workers"), "a worker")
    running = [psutil.Process(role.pid) for role in roles]
    before = megabytes(running)
    peer = plugins.load("transports", "zeromq")().connect(address, "frames")
    try:
        offer(peer, count)

        def ledger() -> dict[str, int]:
            found: dict[str, int] = wait_for(lambda: standing(address), "an answer")["cameras"]["film"]["ledger"]
            return found

        wait_for(
            lambda: ledger()["captured"] == count and not ledger()["in_flight"], "every frame", log=lambda: roles[0].err
        )
        found, grown = ledger(), megabytes(running) - before
    finally:
        peer.close()
    assert balanced(found)
    assert found["done"] == 0
    assert found["rejected_corrupt"] + found["lost_link"] == count
    assert found["rejected_corrupt"] >= count * 6 // 10, "frames whose message header was valid"
    assert grown < 50
    assert "1" in wait_for(lambda: standing(address), "an answer")["workers"], "the worker is alive"
    for role in roles:
        assert role.stop() == 0
        assert "Traceback" not in role.err
    took = [refused_in(random.randrange(len(BOMBS))) for _ in range(count)]
    p99 = statistics.quantiles(took, n=100)[-1]
    tell(
        "decompression bombs and absurd headers",
        f"{count} of {len(BOMBS)} kinds; all rejected, aggregator and worker live",
        f"from the header in {1000 * p99:.2f} ms of CPU (p99); memory {grown:+.1f} MB",
        (p99, 0.001), (grown, 50),
    )  # fmt: skip
