"""Measures `fer-stream agree`: time and memory for many long films, each coded by two people.

::

    python tests/bench/agreement.py --films 30 --hours 2
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

LABELS = ("happy", "sad", "surprise", "neutral", "angry")


def spans(hours: float, seed: str) -> list[tuple[float, float, str]]:
    """Return spans of 1 to 8 s with gaps between them, over a whole film."""
    draw, at, found = random.Random(seed), 0.0, []
    while at < hours * 3600:
        at += draw.uniform(0.2, 3)
        end = at + draw.uniform(1, 8)
        found.append((at, end, draw.choice(LABELS)))
        at = end
    return found


def table(path: Path, films: dict[str, list[tuple[float, float, str]]]) -> Path:
    """Write a table of all films."""
    rows = [f"{film},{start:.3f},{end:.3f},{label}" for film, each in films.items() for start, end, label in each]
    path.write_text("\n".join(["film,start,end,label", *rows]))
    return path


def coder(films: dict[str, list[tuple[float, float, str]]], name: str) -> dict[str, list[tuple[float, float, str]]]:
    """Return another rater's spans: moved a little, and every fifth with another label."""
    draw = random.Random(name)
    return {
        film: [
            (start + draw.uniform(-0.1, 0.1), end, label if draw.random() < 0.8 else draw.choice(LABELS))
            for start, end, label in each
        ]
        for film, each in films.items()
    }


def main() -> None:
    """Run it once, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=30)
    parser.add_argument("--hours", type=float, default=2.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = {f"film{number:02}": spans(arguments.hours, str(number)) for number in range(arguments.films)}
        files = [table(folder / "us.csv", films)]
        files += [table(folder / f"{each}.csv", coder(films, each)) for each in ("anna", "ben")]
        command = [sys.executable, "-m", "fer_stream", "agree", *map(str, files), "--output", str(folder / "out")]
        began = time.monotonic()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.monotonic() - began
    print(done.stdout)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    count = sum(map(len, films.values()))
    print(f"{arguments.films} films of {arguments.hours:g} h, {count} spans: {seconds:.1f} s, {memory:.0f} MiB")


if __name__ == "__main__":
    main()
