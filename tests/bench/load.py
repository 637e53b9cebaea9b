"""Measure the latency of events, the number of cameras that are served, and the effect of a tenfold overload.

    python tests/bench/load.py

Cameras are real MJPEG servers on loopback (in a separate process), 640x480, which show two faces; ``fer-stream run``
has two workers, and every frame gives an event (``smoother.update_interval`` is almost 0).

- latency: milliseconds from a frame's capture to its event at a subscriber; one camera at 15 frames/s
- cameras: several cameras at 15 frames/s each; processed frames per second of each camera
- workers: frames per second of the demo under ``wait`` with one worker and with two; every frame is searched completely
  for faces of 20 pixels
- overload: cameras that send as many frames as the service can process, and ten times as many. Every frame is searched
  completely, so that reading a frame is cheap in comparison. Latency, and processed frames per second
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import psutil

from fer_stream import client
from fer_stream.errors import FerStreamError
from fer_stream.settings.tree import CameraSettings, Settings
from fer_stream.sources import demo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

RATE = 15
"""Frames per second of a typical camera."""

BOTH = slice(6 * demo.RATE, 14 * demo.RATE)
"""The pictures of the demo's scene that show two faces."""


class Film(BaseHTTPRequestHandler):
    """Sends pictures repeatedly, at the frame rate in the path: ``/15.mjpg``."""

    pictures: list[bytes]

    def do_GET(self) -> None:
        pace = float(self.path.strip("/").removesuffix(".mjpg"))
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        begin, number = time.monotonic(), 0
        try:
            while True:
                jpeg = self.pictures[number % len(self.pictures)]
                part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                self.wfile.write(part + jpeg + b"\r\n")
                number += 1
                time.sleep(max(begin + number / pace - time.monotonic(), 0))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the service has closed the connection

    def log_message(self, *_: object) -> None:
        pass


def _serve(pipe: Connection) -> None:
    source, pictures = demo.open_source("demo", CameraSettings(source="demo")), []
    while (picture := source.read()) is not None:
        pictures.append(picture.image)
    jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in pictures[BOTH]]
    handler = type("Handler", (Film,), {"pictures": [*jpegs, *reversed(jpegs)]})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pipe.send(server.server_address[1])
        pipe.recv()


@contextmanager
def cameras() -> Iterator[int]:
    """Serve the pictures from a separate process; yields the port."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    yield here.recv()
    here.send(None)
    process.join()


class Load:
    """A running service."""

    def __init__(self, sources: list[str], flags: list[str], folder: Path, settings: dict[str, str]) -> None:
        self.settings = Settings(address=f"ipc://{folder}")
        command = ["run", *sources, "--workers", "2", *flags, "--bind", self.settings.address]
        command += ["--journal", str(folder / "events.db")]
        given = {"SMOOTHER__UPDATE_INTERVAL": "0.001", "SMOOTHER__MIN_DWELL": "0", **settings}
        self._count = len(sources)
        self._process = psutil.Popen(
            [sys.executable, "-m", "fer_stream", *command],
            env=os.environ | {f"FER_STREAM_{name}": value for name, value in given.items()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def done(self) -> list[int]:
        """Return the processed frames of each camera; empty until all cameras have some."""
        try:
            there = client.status(self.settings)["cameras"].values()
        except FerStreamError:
            return []
        counts = [camera["ledger"]["done"] for camera in there]
        return counts if len(counts) == self._count and all(counts) else []

    def rates(self, seconds: float) -> list[float]:
        """Return the processed frames per second of each camera, measured once all cameras have some."""
        while not (before := self.done()):
            time.sleep(0.2)
        time.sleep(3)
        before, since = self.done(), time.monotonic()
        time.sleep(seconds)
        after, took = self.done(), time.monotonic() - since
        return [(b - a) / took for a, b in zip(before, after, strict=True)]

    def latencies(self, seconds: float) -> list[float]:
        """Return the milliseconds from capture to this subscriber, for each frame with an event."""
        end, found, last = time.monotonic() + seconds, [], {}
        with client.subscribe(settings=self.settings) as events:
            for event in events:
                now = time.time_ns()
                if event.frame != last.get(event.camera):
                    last[event.camera] = event.frame
                    found.append((now - event.time) / 1e6)
                if time.monotonic() > end:
                    return found
        raise AssertionError("a subscription has no end")

    def end(self) -> None:
        """Stop the service."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def load(sources: list[str], *flags: str, **settings: str) -> Iterator[Load]:
    """Run a service with these cameras."""
    with tempfile.TemporaryDirectory() as folder:
        it = Load(sources, list(flags), Path(folder), settings)
        try:
            yield it
        finally:
            it.end()


def described(latencies: list[float]) -> str:
    """Return the median, the 99th percentile and the number of events, as text."""
    ranked = sorted(latencies)
    return (
        f"median {statistics.median(ranked):5.1f} ms, 99% below {ranked[int(0.99 * len(ranked))]:6.1f} ms "
        f"({len(ranked)} events)"
    )


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="duration of each measurement")
    parser.add_argument("--cameras", type=int, nargs="*", default=[8, 16, 24])
    arguments = parser.parse_args()
    with cameras() as port:

        def sending(count: int, pace: float) -> list[str]:
            return [f"c{number}=http://127.0.0.1:{port}/{pace}.mjpg" for number in range(count)]

        with load(sending(1, RATE)) as it:
            it.rates(2)
            print("latency   ", described(it.latencies(arguments.seconds)))
        for count in arguments.cameras:
            with load(sending(count, RATE)) as it:
                rates = it.rates(arguments.seconds)
            mean = statistics.mean(rates)
            print(
                f"{count:2} cameras  {sum(rates):6.1f} frames/s of {RATE * count}; each {mean:.1f}, "
                f"least {min(rates):.1f} = {min(rates) / mean:.2f} of the mean"
            )
        dear = functools.partial(load, SEARCH__SCAN_INTERVAL="0", DETECTOR__MIN_FACE="20")
        each = {}
        for workers in ("1", "2"):
            with dear(["demo"], "--policy", "wait", "--loop", "--workers", workers) as it:
                each[workers] = sum(it.rates(arguments.seconds))
        print(f"workers    one {each['1']:.1f} frames/s, two {each['2']:.1f}: {each['2'] / each['1']:.2f}x")
        with dear(sending(1, 100)) as it:
            capacity = sum(it.rates(arguments.seconds))
        for times in (0.8, 10):
            with dear(sending(2, times * capacity / 2)) as it:
                done = sum(it.rates(arguments.seconds))
                print(f"{times:4} x capacity ({capacity:.1f} frames/s): {done:.1f} done;", end=" ")
                print(described(it.latencies(arguments.seconds)))


if __name__ == "__main__":
    main()
