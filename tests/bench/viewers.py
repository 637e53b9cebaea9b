"""Measure the CPU time of the live page's server with some browsers that watch the demo at the full frame rate.

::

    python tests/bench/viewers.py --viewers 0 1 4 --seconds 20
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from processes import Cli
from served import Browser

from fer_stream.settings.tree import Settings

WIDTH = 960
"""Width in pixels of a camera's picture on a large screen."""


def watch(url: str, stop: threading.Event, counts: list[int]) -> None:
    """Simulate a browser that shows each picture at once."""
    with Browser(url) as browser:
        browser.say(watch={"demo": WIDTH})
        while not stop.is_set():
            if browser.hear()["type"] == "picture":
                counts.append(1)
                browser.say(shown="demo")


def measure(cli: Cli, viewers: int, seconds: float, *more: str) -> tuple[float, float, float]:
    """Return the CPU use of the page's server and of the aggregator, in cores, and pictures per second and viewer."""
    process = cli.start("run", "--live", "--page", "127.0.0.1:0", "--workers", 1, "--loop", *more)
    process.until(lambda: "the live page is at" in process.err, "the page")
    process.until(lambda: "camera online" in process.out, "a frame")
    url = next(word for word in process.err.replace('"', " ").split() if word.startswith("http://"))
    stop, counts = threading.Event(), list[int]()
    with ExitStack() as last:
        threads = [threading.Thread(target=watch, args=(url, stop, counts)) for _ in range(viewers)]
        for thread in threads:
            thread.start()
            last.callback(thread.join)
        last.callback(stop.set)
        time.sleep(3)
        roles = [process.child("live"), process.child("aggregator")]
        before, shown, start = [sum(role.cpu_times()[:2]) for role in roles], len(counts), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - start
        live, aggregator = ((sum(role.cpu_times()[:2]) - b) / took for role, b in zip(roles, before, strict=True))
        pictures = (len(counts) - shown) / took / max(viewers, 1)
    process.stop()
    return live, aggregator, pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--viewers", type=int, nargs="+", default=[0, 1, 4])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--show-faces", action="store_true")
    arguments = parser.parse_args()
    more = ["--show-faces"] if arguments.show_faces else []
    for viewers in arguments.viewers:
        with tempfile.TemporaryDirectory(prefix="f-", dir="/tmp") as folder:
            (Path(folder) / "cli").mkdir()
            cli = Cli(Path(folder) / "cli", Settings().classifier.model or Path("emotion-ferplus.onnx"))
            try:
                live, aggregator, pictures = measure(
                    cli, viewers, arguments.seconds, "--bind", f"ipc://{folder}/s", *more
                )
            finally:
                cli.close()
        print(
            f"{viewers} viewers: page {live:.3f} CPU, aggregator {aggregator:.3f} CPU, {pictures:.1f} pictures/s each"
        )


if __name__ == "__main__":
    main()
