"""Measure what an aggregator's work costs in a cell, beside an aggregator alone, in turns.

    python tests/bench/cell.py

Synthetic captures and workers (`synthetic`) keep one aggregator busy: with its journal in SQLite; alone, with its journal
in NATS; and as the only member of a cell of 16 partitions. Figures are CPU time of the aggregator for each frame, medians
of several rounds, and the ratio to SQLite in the same round. The servers share this machine.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from cells import Cell
from nats_servers import Cluster
from processes import Cli

if TYPE_CHECKING:
    from processes import Process

ROUNDS, FRAMES, CAMERAS, RATE, WORKERS = 5, 1500, 16, 10.0, 4
ALONE = {"FER_STREAM_FLEET__CELL": ""}
KINDS = ("SQLite", "NATS, alone", "NATS, a cell")


def cost(cell: Cell, aggregator: Process) -> float:
    """Return the aggregator's milliseconds of CPU time for each frame."""
    peers = cell.load(RATE, WORKERS, *(f"cam-{number}" for number in range(CAMERAS)))
    try:
        peers.until(lambda: peers.events and peers.events[-1]["sent"] > FRAMES // 5, "the first frames")
        process = psutil.Process(aggregator.pid)
        before, sent = sum(process.cpu_times()[:2]), peers.events[-1]["sent"]
        peers.until(lambda: peers.events[-1]["sent"] > sent + FRAMES, "frames")
        took, sent = sum(process.cpu_times()[:2]) - before, peers.events[-1]["sent"] - sent
    finally:
        peers.stop()
    return 1000 * took / float(sent)


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as last:
        (Path(folder) / "cli").mkdir()
        cli = Cli(Path(folder) / "cli", Path("unused.onnx"))
        last.callback(cli.close)
        clusters = []
        for name in ("alone", "cell"):
            (Path(folder) / name).mkdir()
            clusters.append(Cluster(Path(folder) / name).start())
            last.callback(clusters[-1].kill)
        journals = ("events.db", clusters[0].address, clusters[1].address)
        rounds = []
        for _ in range(ROUNDS):
            found = {}
            for kind, journal in zip(KINDS, journals, strict=True):
                cell = Cell(cli, journal, 16)
                address = cell.aggregator("", **({} if kind == KINDS[-1] else ALONE))
                cell.aggregators[address].until_said("ready at")
                if kind == KINDS[-1]:
                    cell.until_owned(address)
                found[kind] = cost(cell, cell.aggregators[address])
                cell.aggregators[address].stop()
            rounds.append(found)
        for kind in KINDS:
            costs = sorted(found[kind] for found in rounds)
            share = statistics.median(found[kind] / found["SQLite"] for found in rounds)
            print(
                f"{kind:14} {statistics.median(costs):.2f} ms a frame ({costs[0]:.2f} to {costs[-1]:.2f}), "
                f"{share:.2f} of SQLite"
            )


if __name__ == "__main__":
    main()
