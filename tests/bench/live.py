"""Run a source much faster than the workers for minutes; check the ledger, the age of frames and memory growth.

    python tests/bench/live.py VIDEO --seconds 300

It runs ``fer-stream run VIDEO --policy drop_oldest --rate 200 --loop --workers 2`` and prints the ledger, the age of
frames when a worker receives them (divided by a worker's processing time for a frame), and each process's memory after
the first quarter of the run and at the end: resident, and the proportional share (the kernel's PSS, in which memory
that several processes have mapped, such as libraries and frames, is divided among them).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

PORT = 9188
WORKERS = 2


def memory(process: psutil.Process) -> dict[str, tuple[float, float]]:
    """Return the resident memory and the proportional share of a run's processes, in MB, by title."""
    found = {}
    for part in (process, *process.children()):
        try:
            used = part.memory_full_info()
            found[part.cmdline()[0].removeprefix("fer-stream: ")] = (used.rss / 1e6, used.pss / 1e6)
        except (psutil.NoSuchProcess, IndexError):
            continue
    return found


def samples() -> dict[tuple[str, str], float]:
    """Return the samples of the service's metric of frame ages, by name and bucket."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("fer_stream_frame_age")
    }


def main() -> None:
    """Run, watch and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--seconds", type=float, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = ["run", arguments.video, "--policy", "drop_oldest", "--rate", 200, "--loop", "--workers", WORKERS]
        command += ["--duration", arguments.seconds, "--summary", folder / "summary.json"]
        command += ["--journal", folder / "events.db", "--bind", f"ipc://{folder}", "--metrics", f"127.0.0.1:{PORT}"]
        run = psutil.Popen(
            [sys.executable, "-m", "fer_stream", *map(str, command)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        seen: list[dict[str, tuple[float, float]]] = []
        ages: dict[tuple[str, str], float] = {}
        end = time.monotonic() + arguments.seconds
        while run.poll() is None and time.monotonic() < end:
            time.sleep(min(arguments.seconds / 60, 5))
            if time.monotonic() < end - 1:
                seen.append(memory(run))
                with suppress(OSError):  # the endpoint may not be ready yet
                    ages = samples()
        run.wait()
        summary = json.loads((folder / "summary.json").read_text())
    (ledger,) = summary["cameras"].values()
    others = sum(count for term, count in ledger.items() if term != "captured" and not term.startswith("rejected_"))
    print("ledger:", {term: count for term, count in ledger.items() if count}, "adds up:", ledger["captured"] == others)
    count, total = ages["fer_stream_frame_age_seconds_count", ""], ages["fer_stream_frame_age_seconds_sum", ""]
    pace = WORKERS * arguments.seconds / ledger["done"]
    below = {float(le): value for (name, le), value in ages.items() if name.endswith("_bucket")}
    p99 = min(le for le, value in below.items() if value >= 0.99 * count)
    print(f"a worker's time for a frame: {1000 * pace:.1f} ms")
    print(f"age at the worker: mean {total / count / pace:.2f} of that, 99% below {p99 / pace:.1f} (a bucket's edge)")
    quarter = len(seen) // 4
    for title in seen[-1]:
        after = [part[title] for part in seen[quarter : quarter + 5] if title in part]
        last = [part[title] for part in seen[-5:] if title in part]
        begin, end = ([statistics.median(values) for values in zip(*some, strict=True)] for some in (after, last))
        print(
            f"{title:24} after a quarter {begin[0]:6.1f} MB, its share {begin[1]:6.1f}; "
            f"at the end {end[0]:6.1f} MB, its share {end[1]:6.1f}"
        )


if __name__ == "__main__":
    main()
