"""What zones and statistics cost: ``[REFERENCE] [EVENTS]``.

``REFERENCE`` is a checkout of an earlier version; without it (``-``) only this one is measured. Both versions compute
the events of the same faces without zones, alternately, each in its own processes, and the shortest of the runs counts.
Then ``fer-stream stats`` reads a journal of ``EVENTS`` events (by default a million) for each kind of row.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMELINE = """
import json, sys, time
from fer_stream.events.attention import Attention
from fer_stream.events.cloudevents import encode
from fer_stream.events.smoother import LabelSet
from fer_stream.events.timeline import Timeline
from fer_stream.settings.tree import CameraSettings, SearchSettings, Settings, SmootherSettings, TrackerSettings
from fer_stream.types import EMOTIONS, Box, Face, Nanoseconds, Probabilities

zoned = sys.argv[1] == "zones"
places = {}
if zoned:
    shapes = {f"zone-{n}": [[n / 8, 0], [(n + 1) / 8, 0], [(n + 1) / 8, 1], [n / 8, 1]] for n in range(8)}
    lines = {f"line-{n}": {"points": [[n / 8, 0], [n / 8, 1]]} for n in range(1, 5)}
    places = {"places": CameraSettings(zones=shapes, lines=lines).places}
valence = Settings.model_fields["valence"].get_default(call_default_factory=True)
values = tuple(0.94 if label == "happy" else 0.01 for label in EMOTIONS)
timeline = Timeline("door", 1, LabelSet("emotions", EMOTIONS, valence), TrackerSettings(), SmootherSettings(),
    Attention(SearchSettings(), "drop_oldest", 4), **places)
frames = [
    [Face(Box(x, 80 * n, x + 60, 80 * n + 70), 0.9, (), Probabilities(EMOTIONS, values))
     for n in range(5) for x in [(frame * (n + 1)) % 1200 * 0.5]]
    for frame in range(5000)
]
began = time.process_time()
count = 0
for number, faces in enumerate(frames, 1):
    for event in timeline.observe(number, Nanoseconds(number * 40_000_000), (640, 480), faces):
        count += len(encode(event)) > 0
print(json.dumps([time.process_time() - began, count]))
"""
RUNS = 5


def timeline(folder: Path, how: str) -> tuple[float, int]:
    """Return the processor time in seconds of 5000 frames with five faces, and the number of events."""
    done = subprocess.run([sys.executable, "-c", TIMELINE, how], cwd=folder, capture_output=True, text=True, check=True)
    seconds, count = json.loads(done.stdout)
    return seconds, count


def compare(reference: Path | None) -> None:
    here = Path(__file__).parents[2]
    kinds = {"without zones": (here, "plain"), "8 zones and 4 lines": (here, "zones")}
    if reference:
        kinds["the reference"] = (reference, "plain")
    best = dict.fromkeys(kinds, (float("inf"), 0))
    for _ in range(RUNS):
        for name, (folder, how) in kinds.items():
            best[name] = min(best[name], timeline(folder, how))
    base = best["the reference" if reference else "without zones"][0]
    for name, (seconds, count) in best.items():
        print(f"{name:20} {seconds / 25_000 * 1e6:6.1f} us a face, {seconds / base:5.2f} times, {count} events")


def journal(count: int) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from history import write  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="f-") as name:
        path = Path(name) / "events.db"
        write(path, count)
        print(f"a journal of {count} events, {path.stat().st_size / 1_048_576:.0f} MiB")
        for how in (["--every", "1h"], ["--group", "track", "--from", "12h"], ["--group", "zone"]):
            began = time.perf_counter()
            command = [sys.executable, "-m", "fer_stream", "stats", "--journal", str(path), "--format", "csv", *how]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                lines = sum(1 for _ in process.stdout)
            seconds = time.perf_counter() - began
            print(f"{' '.join(how):30} {lines - 1:6} rows, {seconds:5.1f} s, code {process.returncode}")
        print(f"the largest process had {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "-"
    compare(None if given == "-" else Path(given).resolve())
    journal(int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
