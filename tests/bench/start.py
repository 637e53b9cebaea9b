"""Measure the start: wall time of new processes, with a warm file cache.

    python tests/bench/start.py

- python: an interpreter that does nothing; all other times include this
- import: ``import fer_stream``
- help: ``fer-stream --help``
- first event: ``fer-stream run`` on the demo until its first line, ``camera online``
- first face: the same until the first ``face.entered``; the demo's first face is in view after 1.3 s of its own time
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def whole(*arguments: str) -> float:
    """Return the seconds until a process ends."""
    before = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - before


def until(text: str) -> float:
    """Return the seconds until a run prints a line with a text."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fer_stream", "run", "demo", "--format", "jsonl", "--bind", f"ipc://{folder}"]
        command += ["--journal", str(Path(folder) / "events.db")]
        before = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in process.stdout or ():
            if text in line:
                break
        took = time.perf_counter() - before
        process.terminate()
        process.communicate()
    return took


def main() -> None:
    """Measure each in turn, several times."""
    ways = {
        "python": lambda: whole("-c", ""),
        "import": lambda: whole("-c", "import fer_stream"),
        "help": lambda: whole("-m", "fer_stream", "--help"),
        "first event": lambda: until("camera.online"),
        "first face": lambda: until("face.entered"),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(5):
        for name, way in ways.items():
            times[name].append(way())
    for name, values in times.items():
        print(
            f"{name:12} {1e3 * statistics.median(values):6.0f} ms ({1e3 * min(values):.0f} to {1e3 * max(values):.0f})"
        )


if __name__ == "__main__":
    main()
