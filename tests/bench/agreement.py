"""Measures `fer-stream agree`: time and memory for many long films, each coded by two people.

::

    python tests/bench/agreement.py --films 30 --hours 2
    python tests/bench/agreement.py --films 30 --hours 2 --calibrate

With ``--calibrate``, ours are folders as `fer-stream analyze` writes them, with a face in each of 25 frames a second,
and a correction is fitted to the first coder.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from fer_stream.events.cloudevents import encode
from fer_stream.types import (
    Box,
    CameraData,
    Event,
    EventType,
    ExpressionData,
    Milliseconds,
    Nanoseconds,
    Probability,
)

LABELS = ("happy", "sad", "surprise", "neutral", "angry")

RATE, LOOK = 25, 5
"""Frames a second, and every how many of them the face is scored."""


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


def analysis(folder: Path, film: list[tuple[float, float, str]], hours: float) -> None:
    """Write the files of an analysis that agree reads: a face on one track, with scores that favour its label."""
    folder.mkdir(parents=True)
    draw, seconds = random.Random(folder.name), hours * 3600
    (folder / "summary.json").write_text(json.dumps({"source": f"{folder.name}.mp4", "duration_s": seconds}))
    online = Event(
        EventType.CAMERA_ONLINE, "film", 1, 1, Nanoseconds(0), Nanoseconds(0), CameraData("first frame", 640, 480)
    )
    sure, box, even = Probability(0.9, 0.9), Box(0, 0, 90, 90), dict.fromkeys(LABELS, 1 / len(LABELS))
    with (folder / "events.jsonl").open("w") as file:
        file.write(encode(online) + "\n")
        for start, end, label in film:
            span = (
                Nanoseconds(round(start * 1e9)),
                Nanoseconds(round(end * 1e9)),
                Milliseconds(round(end - start) * 1000),
            )
            data = ExpressionData(*span, label, None, sure, even, box, 1.0)
            file.write(encode(replace(online, type=EventType.EMOTION_ENDED, track=1, time=span[1], data=data)) + "\n")
    at = 0
    with (folder / "faces.csv").open("w") as file:
        scored = ",".join(f"scored_{label}" for label in LABELS)
        file.write(f"frame,time,track,x,y,width,height,detection,label,{','.join(LABELS)},quality,{scored}\n")
        for number in range(int(seconds * RATE)):
            now = number / RATE
            while at < len(film) - 1 and film[at][1] <= now:
                at += 1
            label = film[at][2] if film[at][0] <= now else ""
            scores = ""
            if not number % LOOK:
                weights = [draw.random() ** 4 + (each == label) for each in LABELS]
                scores = ",".join(f"{weight / sum(weights):.4f}" for weight in weights)
            file.write(f"{number + 1},{now:.6f},1,10,10,90,90,1,{label},{scores or ',,,,'},1,{scores or ',,,,'}\n")


def main() -> None:
    """Run it once, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=30)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--calibrate", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = {f"film{number:02}": spans(arguments.hours, str(number)) for number in range(arguments.films)}
        coders = [table(folder / f"{each}.csv", coder(films, each)) for each in ("anna", "ben")]
        if arguments.calibrate:
            for film, its in films.items():
                analysis(folder / "us" / film, its, arguments.hours)
            what = [folder / "us", coders[0], "--calibrate", "film"]
        else:
            what = [table(folder / "us.csv", films), *coders]
        command = [sys.executable, "-m", "fer_stream", "agree", *map(str, what), "--output", str(folder / "out")]
        began = time.monotonic()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.monotonic() - began
    print(done.stdout)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    count, processor = sum(map(len, films.values())), used.ru_utime + used.ru_stime
    print(
        f"{arguments.films} films of {arguments.hours:g} h, {count} spans: {seconds:.1f} s, {processor:.1f} s of "
        f"processor time, {used.ru_maxrss / 1024:.0f} MiB"
    )


if __name__ == "__main__":
    main()
