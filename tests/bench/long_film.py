"""Measures `fer-stream analyze` on a long film: a clip, looped without decoding it again. Prints progress as it goes.

::

    python tests/bench/long_film.py ../shared/media/head-pose-face-detection-female-and-male.gif --hours 2

Memory is the process's resident set, after each tenth of the time, and at its peak, which is when it draws the report.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import NamedTuple

import av
import psutil

TENTHS = 10


class Measured(NamedTuple):
    """What one analysis took."""

    seconds: float
    peak: float
    """MiB."""
    tenths: list[float]
    """MiB after each tenth of the time but the last, in which the report is drawn."""
    frames: int
    progress: list[int]
    """How many frames each line of progress gave as done."""


def loop(clip: Path, path: Path, seconds: float) -> int:
    """Encode a clip once, without B-frames, and copy it again and again for this time; return the number of frames."""
    once = path.with_suffix(".once.mp4")
    with av.open(str(clip)) as source, av.open(str(once), "w") as target:
        video = source.streams.video[0]
        rate = Fraction(video.average_rate or 25)
        stream = target.add_stream("libx264", rate=rate, options={"bf": "0", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = video.width // 2 * 2, video.height // 2 * 2, "yuv420p"
        for number, frame in enumerate(source.decode(video)):
            picture = frame.reformat(width=stream.width, height=stream.height, format="yuv420p")
            picture.pts, picture.time_base = number, 1 / rate
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    with av.open(str(once)) as source:
        packets = [(bytes(packet), packet.is_keyframe) for packet in source.demux(video=0) if packet.size]
    frames = max(round(seconds * rate), 1)
    with av.open(str(once)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number in count():
            if number == frames:
                break
            content, key = packets[number % len(packets)]
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, 1 / rate
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, key
            target.mux(packet)
    once.unlink()
    return frames


def measure(film: Path, folder: Path, arguments: list[str]) -> Measured:
    """Analyse a film into a folder by the command, and show its progress."""
    command = [sys.executable, "-m", "fer_stream", "analyze", str(film), "--output", str(folder), *arguments]
    began, levels, progress, line = time.monotonic(), [], [], ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:

        def sample() -> None:
            with suppress(psutil.Error):  # it has ended
                process = psutil.Process(running.pid)
                while running.returncode is None:
                    levels.append(process.memory_info().rss / 2**20)
                    time.sleep(0.1)

        sampling = threading.Thread(target=sample)
        sampling.start()
        for line in running.stderr or ():
            print(line, end="", flush=True)
            if found := re.search(r": (\d+) of \d+, [\d:]+ left", line):
                progress.append(int(found[1]))
        code = running.wait()
        sampling.join()
    if code:
        raise SystemExit(f"fer-stream analyze ended with {code}: {line.strip()}")
    with (folder / "frames.csv").open(encoding="utf-8") as file:
        frames = sum(1 for _ in file) - 1
    tenths = [levels[len(levels) * n // TENTHS] for n in range(1, TENTHS)]
    return Measured(time.monotonic() - began, max(levels), tenths, frames, progress)


def main() -> None:
    """Make the film, analyse it, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("options", nargs="*", help="options of fer-stream analyze, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film = folder / "film.mp4"
        frames = loop(arguments.clip, film, arguments.hours * 3600)
        print(f"{film.name}: {frames:,} frames, {film.stat().st_size / 2**20:.0f} MiB", flush=True)
        found = measure(film, folder / "out", arguments.options)
        print(f"{found.frames:,} frames in {found.seconds:.0f} s: {found.frames / found.seconds:.0f} a second")
        print(f"peak memory {found.peak:.0f} MiB; after each tenth: {', '.join(f'{rss:.0f}' for rss in found.tenths)}")
        for path in sorted((folder / "out").iterdir()):
            print(f"  {path.name:18}{path.stat().st_size / 2**20:8.1f} MiB")


if __name__ == "__main__":
    main()
