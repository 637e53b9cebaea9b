"""Measures time and memory of adding trials to the tables of long films, and of joining them into common tables.

::

    python tests/bench/joined.py --films 8 --hours 2
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fer_stream.analysis import study
from fer_stream.analysis.columns import Layout
from fer_stream.analysis.output import OutputFolder
from fer_stream.analysis.tables import TableFiles
from fer_stream.analysis.trials import Marking
from fer_stream.interchange.markers import Marker
from fer_stream.types import EMOTIONS

RATE = 25


def film(folder: Path, hours: float) -> None:
    """Write the table of faces of a film with two faces, with values that compress as badly as real ones."""
    columns = Layout(EMOTIONS, EMOTIONS, ()).faces
    draw = random.Random(folder.name)
    numbers = {bool: True, str: "happy", int: 1}
    output = OutputFolder(folder, (), force=False)
    with output.replacing(TableFiles.names(["faces"])) as part:
        files = TableFiles(part, {"faces": columns})
        for frame in range(round(hours * 3600 * RATE)):
            for track in (1, 2):
                row = [numbers.get(column.kind) or round(draw.random(), 4) for column in columns.values()]
                row[:3] = [frame + 1, frame / RATE, track]
                files.write("faces", row)
        files.finish({"version": "1"})
        count = round(hours * 3600 * RATE)
        told = {"source": f"{folder.name}.mp4", "model": "", "frames": count, "duration_s": hours * 3600}
        told |= {"faces": 2 * count, "tracks": 2, "face_seconds": hours * 7200, "share": {"happy": 1.0}}
        output.finish(told)


def mark(folder: Path, hours: float) -> None:
    """Add 200 trials to the tables of the first film."""
    step = hours * 3600 / 200
    marking = Marking([Marker(f"trial {n}", n * step, (n + 0.9) * step) for n in range(200)], marked=False)
    for kind in ("csv", "parquet"):
        marking.copy(folder / f"film0/faces.{kind}", folder / f"marked.{kind}")


def join(folder: Path) -> None:
    """Join the tables of all films."""
    study.join(folder, sorted(path.name for path in folder.iterdir() if path.is_dir()), [], force=False)


def main() -> None:
    """Run each step in a process of its own, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=8)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        name, path = arguments.step
        began = time.monotonic()
        (mark(Path(path), arguments.hours) if name == "mark" else join(Path(path)))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name}: {time.monotonic() - began:.1f} s, {memory:.0f} MiB")
        return
    with tempfile.TemporaryDirectory() as made:
        for number in range(arguments.films):
            film(Path(made) / f"film{number}", arguments.hours)
        rows = round(arguments.hours * 3600 * RATE) * 2
        size = (Path(made) / "film0/faces.csv").stat().st_size / 1e6
        print(f"{arguments.films} films of {arguments.hours:g} h: each {rows} rows of faces, {size:.0f} MB of CSV")
        for step in ("mark", "join"):
            words = [sys.executable, __file__, "--hours", str(arguments.hours), "--step", step, made]
            subprocess.run(words, check=True)


if __name__ == "__main__":
    main()
