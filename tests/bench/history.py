"""How soon the HTTP API answers with statistics after a start, with a journal of many events: ``[EVENTS]``, by default
500,000. The aggregator and the live page are processes of their own; nobody asks until the aggregator answers.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from journals import SECOND, event
from processes import Cli, free_port
from tiny import write_model

from fer_stream.journal.sqlite import Writer
from fer_stream.types import Event, ExpressionData, FaceData, Nanoseconds

CAMERAS = [f"camera-{number}" for number in range(4)]
DAYS = 20
EMOTIONS = ("started", "updated", "ended", "started", "ended")
STAY = ("face.entered", *(f"emotion.{what}" for what in EMOTIONS), "face.left")
"""The events of a face."""


def write(path: Path, count: int) -> None:
    """Write a journal of several weeks until now."""
    writer, now = Writer(path), time.time_ns()
    step = DAYS * 86_400 * SECOND * len(CAMERAS) // count
    online = Nanoseconds(now - DAYS * 86_400 * SECOND)
    found: list[Event] = [replace(event("camera.online", camera), time=online) for camera in CAMERAS]
    for number in range(count // len(STAY)):
        camera, begin = CAMERAS[number % len(CAMERAS)], now - DAYS * 86_400 * SECOND
        begin += number // len(CAMERAS) * len(STAY) * step
        start = begin
        for place, kind in enumerate(STAY):
            at = begin + place * step
            start = at if kind == "emotion.started" else start
            made = event(kind, camera, frame=number * len(STAY) + place + 1, track=number + 1)
            data = made.data
            assert isinstance(data, FaceData | ExpressionData)
            since = Nanoseconds(begin if isinstance(data, FaceData) else start)
            end = None if data.end_time is None else Nanoseconds(at)
            found.append(replace(made, time=Nanoseconds(at), data=replace(data, start_time=since, end_time=end)))
        if len(found) > 900:
            writer.append(found)
            found = []
    writer.append(found)
    writer.close()


def get(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
    except URLError as error:
        return 0, str(error)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    with tempfile.TemporaryDirectory(prefix="f-", dir="/tmp") as name:
        folder = Path(name)
        write(folder / "events.db", count)
        cli = Cli(folder, write_model(folder / "tiny.onnx"))
        port = free_port()
        common = ("--connect", f"ipc://{folder}")
        cli.start("aggregator", "--bind", f"ipc://{folder}", "--journal", "events.db")
        api = f"http://127.0.0.1:{port}/api/v1"
        live = cli.start("live", "--page", f"127.0.0.1:{port}", *common)
        began = time.perf_counter()
        while get(f"{api}/status")[0] != 200:
            time.sleep(0.1)
        print(f"{count} events; the aggregator answers after {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        for question in ("", "", "?every=5m", "?from=2026-01-01T00:00:00Z&every=30d"):
            answers, asked = [], time.perf_counter()
            while not answers or answers[-1][0] == 503:
                answers.append(get(f"{api}/statistics{question}"))
            now = time.perf_counter()
            refused = [json.loads(text)["detail"] for status, text in answers if status == 503]
            print(
                f"{question or 'the last hour':40} {answers[-1][0]} after {now - asked:5.2f} s; refused {len(refused)}"
            )
        memory = psutil.Process(live.pid).memory_info().rss / 1_048_576
        print(f"the live page's process has {memory:.0f} MiB")
        cli.close()


if __name__ == "__main__":
    main()
