"""Measure the events per second that a journal stores, in NATS beside SQLite, in turns.

    python tests/bench/stores.py

One batch is in flight, as in an aggregator. The servers are on this machine: a cluster of three shares its cores and
its disk. Figures are per second of wall-clock time: medians of several rounds, their range, and the ratio to SQLite in
the same round. SQLite and a single server wait for the disk, a cluster only for two of its servers, which write to
disk by and by unless ``sync_interval`` is ``always``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))
from journals import resets
from nats_servers import Cluster, NatsServer

from fer_stream import plugins
from fer_stream.settings.tree import JournalSettings

if TYPE_CHECKING:
    from fer_stream.plugins import JournalWriter

ROUNDS, SECONDS = 5, 1.0

BATCHES = (1, 4, 20, 100)

frames = count(1)


def rate(writer: JournalWriter, batch: int) -> float:
    """Return the events per second that a writer stores in batches of a size."""
    stored, begin = 0, time.perf_counter()
    while (took := time.perf_counter() - begin) < SECONDS:
        stored += len(writer.append(resets(batch, first=batch * next(frames) + 10**6 * batch)).result())
    return stored / took


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as last:
        places: dict[str, Path | str] = {"SQLite": Path(folder) / "events.db"}
        one = NatsServer(Path(folder)).start()
        last.callback(one.kill)
        places["NATS, one server"] = one.address
        three = Cluster(Path(folder)).start()
        last.callback(three.kill)
        places["NATS, three copies"] = three.address
        (Path(folder) / "always").mkdir()
        always = Cluster(Path(folder) / "always", sync="always").start()
        last.callback(always.kill)
        places["the same, sync_interval: always"] = always.address
        writers = {name: plugins.journal(JournalSettings(path=place)).writer() for name, place in places.items()}
        for writer in writers.values():
            last.callback(writer.close)
        for batch in BATCHES:
            rounds = [{name: rate(writer, batch) for name, writer in writers.items()} for _ in range(ROUNDS)]
            for name in writers:
                rates = sorted(found[name] for found in rounds)
                share = statistics.median(found[name] / found["SQLite"] for found in rounds)
                print(
                    f"batches of {batch:3}  {name:31}  {statistics.median(rates):8,.0f} events/s "
                    f"({rates[0]:,.0f} to {rates[-1]:,.0f}), {share:.2f} of SQLite"
                )


if __name__ == "__main__":
    main()
