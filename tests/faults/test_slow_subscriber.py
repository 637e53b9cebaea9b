"""A frozen subscriber under hundreds of events a second: it delays no other subscriber, and misses no event."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from typing import TYPE_CHECKING

import psutil
from faults.player import Player
from faults.service import megabytes, standing
from processes import gapless, wait_for

from fer_stream.client import Subscription

if TYPE_CHECKING:
    from pathlib import Path

    from faults.table import Tell
    from processes import Cli
    from scale import Scale

RATE = 150
"""Frames per second; each frame causes one event."""


class Watch(threading.Thread):
    """A subscriber that measures the seconds from a frame's capture to the arrival of its event."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._address = address
        self._ended = False

    def run(self) -> None:
        with Subscription(self._address) as events:
            while not self._ended:
                found = events.receive(0.1)
                if found is not None:
                    self.seconds.append((time.time_ns() - found[0].time) / 1e9)

    def taken(self) -> float:
        """Return the 99th percentile since the last call."""
        since, self.seconds = self.seconds, []
        return statistics.quantiles(since, n=100)[-1]

    def end(self) -> None:
        self._ended = True
        self.join()


def test_frozen(cli: Cli, short_folder: Path, scale: Scale, tell: Tell) -> None:
    address, seconds = f"ipc://{short_folder}", scale.of(4, 300)
    aggregator = cli.start("aggregator", "--bind", address, "--journal", "events.db")
    slow = cli.start("subscribe", "--connect", address, "--from", 0, "--format", "jsonl")
    watch = Watch(address)
    watch.start()
    try:
        with Player(address, RATE) as player:
            wait_for(lambda: player.frames > 2 * RATE and len(watch.seconds) > RATE and slow.out, "events")
            watch.taken()
            time.sleep(seconds / 2)
            wait_for(lambda: len(watch.seconds) > 1, "events")
            before, memory = watch.taken(), megabytes([psutil.Process(aggregator.pid)])
            slow.signal(signal.SIGSTOP)
            time.sleep(seconds)
            wait_for(lambda: len(watch.seconds) > 1, "events")
            during = watch.taken()
            grown = megabytes([psutil.Process(aggregator.pid)]) - memory
            slow.signal(signal.SIGCONT)
        cursor = int(wait_for(lambda: standing(address), "an answer")["cursor"])
        assert cursor > seconds * RATE / 10
        begin = time.monotonic()
        slow.until(lambda: slow.out.count("\n") >= cursor, "every event")
        caught_up = time.monotonic() - begin
    finally:
        watch.end()
    events = slow.events
    assert gapless(events)
    assert len(events) >= cursor
    assert grown < 32
    tell(
        "subscriber frozen" + (f" for {seconds} s" if scale.share else ""),
        f"{cursor} events at {RATE}/s; it caught up from the journal without a gap, in {caught_up:.1f} s",
        f"others' p99 {1000 * before:.0f} ms before, {1000 * during:.0f} ms then; aggregator's memory {grown:+.1f} MB",
        (during, 1.1 * before), (grown, 32.0),
    )  # fmt: skip
