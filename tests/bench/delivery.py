"""Measure the events that ``fer-stream deliver`` passes on per second of its CPU time, for each sink.

    python tests/bench/delivery.py

Each sink gets the same events of eight cameras, from a journal (``--journal``) and from an aggregator that replays it.
The receivers run beside it, on this machine; only the process that delivers is measured, once it delivers. The
reference, measured in turn, is a loop that reads the rows of the journal with SQLite, parses the JSON of each, and
appends it to a file that is flushed to disk every 1000 events: what no program can do without. Figures are medians of
several rounds, and their range.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from kafka_servers import Tansu
from nats_servers import NatsServer
from processes import Cli

from fer_stream.delivery.state import DeliveryState
from fer_stream.errors import DeliveryError
from fer_stream.journal.sqlite import Writer
from fer_stream.types import Box, Event, EventType, ExpressionData, Milliseconds, Nanoseconds, Probability

if TYPE_CHECKING:
    from collections.abc import Iterator

LABELS = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")


@contextmanager
def file(folder: Path) -> Iterator[str]:
    yield f"file:{folder / 'out.jsonl'}"


@contextmanager
def nats(folder: Path) -> Iterator[str]:
    server = NatsServer(folder).start()
    try:
        yield server.address
    finally:
        server.kill()


@contextmanager
def kafka(folder: Path) -> Iterator[str]:
    broker = Tansu(folder)
    try:
        yield broker.address
    finally:
        broker.kill()


SINKS = (file, nats, kafka)
"""Each starts a receiver, and yields the sink that delivers to it."""


def event(number: int) -> Event:
    """Return an event as they come from a camera with a face."""
    camera, frame = f"camera-{number % 8}", number // 8 + 1
    time_ = Nanoseconds(1_700_000_000_000_000_000 + frame * 100_000_000)
    label = LABELS[frame % len(LABELS)]
    probabilities = {name: 0.72 if name == label else 0.04 for name in LABELS}
    data = ExpressionData(
        time_,
        None,
        Milliseconds(1200),
        label,
        None,
        Probability(0.71, 0.93),
        probabilities,
        Box(10, 20, 110, 140),
        0.98,
    )
    return Event(EventType.EMOTION_UPDATED, camera, 1, frame, 1, time_, data)


def fill(journal: Path, count: int) -> None:
    """Write events into a new journal."""
    writer = Writer(journal)
    for begin in range(0, count, 999):
        writer.append([event(number) for number in range(begin, min(count, begin + 999))])
    writer.close()


class Progress(NamedTuple):
    """How far a process is."""

    delivered: int
    cpu: float
    """Seconds of CPU time so far."""
    clock: float


class Rates(NamedTuple):
    """Events per second."""

    of_cpu: float
    of_time: float


def measured(commands: Cli, journal: Path, sink: str, *how: object) -> Rates:
    """Deliver all events of a journal to a sink, and return the rates from the first recorded batch to the last."""
    record = commands.folder / "deliveries.db"
    for old in commands.folder.glob("deliveries.db*"):
        old.unlink()
    (commands.folder / "s.toml").write_text(f'[deliver.main]\nsink = "{sink}"\nbegin = "beginning"\n')
    total = len_of(journal)
    run = commands.start("deliver", "--config", "s.toml", *how, FER_STREAM_DELIVERIES=str(record))
    process = psutil.Process(run.pid)

    def progress() -> Progress:
        try:
            with closing(DeliveryState(record)) as state:
                found = state.sink("main")
        except DeliveryError:
            found = None
        if run.popen.poll() is not None:
            return Progress(0, 0.0, 0.0)  # the caller says why
        times = process.cpu_times()
        return Progress(found.delivered if found else 0, times.user + times.system, time.perf_counter())

    begin: Progress = run.until(lambda: (now := progress()).delivered and now, "the first batch")
    end: Progress = run.until(lambda: (now := progress()).delivered >= total and now, "the last batch")
    run.stop()
    count = end.delivered - begin.delivered
    return Rates(count / (end.cpu - begin.cpu), count / (end.clock - begin.clock))


def len_of(journal: Path) -> int:
    """Return the number of events in a journal."""
    with closing(sqlite3.connect(journal)) as db:
        return int(db.execute("SELECT COUNT(*) FROM events").fetchone()[0])


def reference(journal: Path, output: Path) -> Rates:
    """Copy a journal's events to a file in the plainest way."""
    cpu, clock, count = time.process_time(), time.perf_counter(), 0
    with closing(sqlite3.connect(journal)) as db, output.open("ab", buffering=0) as to:
        rows = db.execute("SELECT text FROM events ORDER BY cursor")
        while batch := rows.fetchmany(1000):
            for (text,) in batch:
                json.loads(text)
            to.write("".join(f"{text}\n" for (text,) in batch).encode())
            os.fdatasync(to.fileno())
            count += len(batch)
    return Rates(count / (time.process_time() - cpu), count / (time.perf_counter() - clock))


def row(name: str, rates: list[Rates], share: float) -> str:
    """Return a line of the output."""
    cpu = sorted(rate.of_cpu for rate in rates)
    clock = statistics.median(rate.of_time for rate in rates)
    return (
        f"{name:18} {statistics.median(cpu):8,.0f} events per second of CPU ({cpu[0]:,.0f} to {cpu[-1]:,.0f}), "
        f"{clock:7,.0f} per second; {1 / share:.1f}x the CPU time of the reference"
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sinks", nargs="+", choices=[sink.__name__ for sink in SINKS], help="by default all")
    arguments = parser.parse_args()
    chosen = [sink for sink in SINKS if sink.__name__ in (arguments.sinks or sink.__name__)]
    found: dict[str, list[Rates]] = {}
    plain: list[Rates] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as last:
        folder = Path(name)
        journal = folder / "e.db"
        fill(journal, arguments.events)
        commands = Cli(folder, Path("none"))
        last.callback(commands.close)
        aggregator = commands.start("aggregator", "--bind", f"ipc://{folder}/s", "--journal", "e.db")
        aggregator.until(lambda: list((folder / "s").glob("*")), "the aggregator")
        ways: dict[str, tuple[object, ...]] = {
            "journal": ("--journal", "e.db"),
            "aggregator": ("--connect", f"ipc://{folder}/s"),
        }
        for number in range(arguments.rounds):
            plain.append(reference(journal, folder / "plain.jsonl"))
            for sink in chosen:
                for way, how in ways.items():
                    own = folder / f"{sink.__name__}-{way}-{number}"
                    own.mkdir()
                    with sink(own) as text:
                        rates = measured(commands, journal, text, *how)
                    found.setdefault(f"{sink.__name__}, {way}", []).append(rates)
    print(row("reference", plain, 1.0))
    for name, rates in found.items():
        share = statistics.median(rate.of_cpu / ours.of_cpu for rate, ours in zip(rates, plain, strict=True))
        print(row(name, rates, share))


if __name__ == "__main__":
    main()
