"""Measure how ``fer-stream deliver`` catches up when a receiver comes back after an hour.

    python tests/bench/catch_up.py

Two sinks get the same events: a file, and a NATS server that is not there at first. The events of an hour, at 100 a
second, pass in a few minutes. Then the server starts, while new events come at 100 a second. This prints:

- how long the NATS sink needed from its first event until it had all of them, and its rate; before the first event, it
  waits for its next attempt, a minute at most
- the resident memory of the process when the server was away for a moment, for the whole hour, while it caught up (the
  largest), and afterwards
- how many events the file was behind at most: while the hour passed, which is faster than it would be, and while the
  other sink caught up
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from delivery import event
from nats_servers import NatsServer
from processes import Cli

from fer_stream.delivery.state import DeliveryState
from fer_stream.journal.sqlite import Writer

RATE = 100
"""Events per second of the hour, and while the sink catches up."""

FASTER = 20
"""How many times faster the hour passes."""

STEP = 0.1
"""Seconds between two batches of events."""


class Stream(threading.Thread):
    """Writes events into a journal at a rate that can be changed."""

    def __init__(self, journal: Path, rate: int) -> None:
        super().__init__(daemon=True)
        self.written, self.rate = 0, rate
        self._journal, self._ending = journal, threading.Event()

    def run(self) -> None:
        writer = Writer(self._journal)
        due = time.monotonic()
        while not self._ending.wait(max(0.0, due - time.monotonic())):
            count = int(self.rate * STEP)
            writer.append([event(number) for number in range(self.written, self.written + count)])
            self.written += count
            due += STEP
        writer.close()

    def end(self) -> None:
        self._ending.set()
        self.join()


class Watch:
    """Looks at a process and at its record of deliveries."""

    def __init__(self, pid: int, record: Path, stream: Stream) -> None:
        self._process, self._stream = psutil.Process(pid), stream
        self._state = DeliveryState(record)
        self.most_behind, self.most_memory = 0, 0.0

    def memory(self) -> float:
        """Return the resident memory in MB, and remember the largest."""
        now = self._process.memory_info().rss / 1e6
        self.most_memory = max(self.most_memory, now)
        return now

    def reached(self, sink: str) -> int:
        found = self._state.sink(sink)
        return int(found.cursor) if found else 0

    def look(self) -> None:
        """See how far the file is behind."""
        written = self._stream.written
        self.most_behind = max(self.most_behind, written - self.reached("file"))
        self.memory()


def main() -> None:
    """Let an hour pass, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3600, help="how long the receiver is away, in the events' time")
    arguments = parser.parse_args()
    total = arguments.seconds * RATE
    with tempfile.TemporaryDirectory() as name, ExitStack() as last:
        folder = Path(name)
        server = NatsServer(folder)
        last.callback(server.kill)
        commands = Cli(folder, Path("none"))
        last.callback(commands.close)
        (folder / "s.toml").write_text(
            f'[deliver.file]\nsink = "file:out.jsonl"\nbegin = "beginning"\n'
            f'[deliver.away]\nsink = "{server.address}"\nbegin = "beginning"\n'
        )
        stream = Stream(folder / "e.db", RATE * FASTER)
        stream.start()
        run = commands.start("deliver", "--config", "s.toml", "--journal", "e.db")
        run.until_said("the sink away takes no events")
        watch = Watch(run.pid, folder / "e.db.deliveries.db", stream)
        run.until(lambda: watch.reached("file"), "the first events in the file")
        before = watch.memory()
        while stream.written < total:
            watch.look()
            time.sleep(STEP)
        waiting, behind, watch.most_behind = watch.memory(), watch.most_behind, 0
        stream.rate = RATE
        assert watch.reached("away") == 0
        server.start()
        started = time.perf_counter()
        commands.run("deliver", "retry", "away", "--journal", "e.db")
        run.until(lambda: watch.reached("away"), "the first event at the server")
        begun, first = time.perf_counter(), watch.reached("away")
        while watch.reached("away") < stream.written - RATE:
            watch.look()
            time.sleep(STEP)
        took, count = time.perf_counter() - begun, watch.reached("away") - first
        after = watch.memory()
        stream.end()
        run.stop()
    print(f"{total:,} events had passed when the receiver came back; it had to wait {begun - started:.1f} s for them")
    print(f"caught up in {took:.1f} s: {count:,} events, {count / took:,.0f} a second, while {RATE} a second came")
    print(
        f"memory: {before:.0f} MB; after the hour {waiting:.0f}; most {watch.most_memory:.0f}; at the end {after:.0f}"
    )
    print(
        f"the file was behind by at most {behind:,} events while {RATE * FASTER:,} a second came "
        f"({behind / RATE / FASTER:.1f} s), and {watch.most_behind:,} while the other caught up "
        f"({watch.most_behind / RATE:.1f} s)"
    )


if __name__ == "__main__":
    main()
