"""Measure the CPU milliseconds per frame for more faces, pixels, cameras and workers.

    python tests/bench/growth.py --plot docs/images/growth.svg

Faces and pixels: detection and classification of portraits side by side that sway slightly, at 25 frames/s, with faces
followed as by default, and with a search of every frame. Cameras and workers: the whole aggregator, with frames without
faces. Each capture offers its frame once (as captures do), or again in each turn, so that with many cameras most
messages are offers. Dispatcher: its own share.

    python tests/bench/growth.py --cameras

measures only the cameras, in a few seconds.
"""

from __future__ import annotations

import argparse
import math
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from capacity import dispatch, frames
from following import Pass

from fer_stream.inference.recognizer import Recognizer
from fer_stream.settings.tree import Settings
from fer_stream.types import Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

FACES = (0, 1, 2, 5, 10, 20, 35, 50)
PIXELS = (0.3, 0.9, 2.1, 3.7, 5.5, 8.3)
CAMERAS = (1, 4, 16, 64)
WORKERS = (1, 2, 4, 8)
ROUNDS = 3
SIDE = 150
"""Distance between portraits in pixels; their faces have about 80 pixels."""


def crowd(faces: int, width: int, height: int, number: int) -> NDArray[np.uint8]:
    """Return picture ``number`` of a crowd, uint8 ``[height, width, 3]``."""
    data = np.frombuffer(files("fer_stream").joinpath("assets/grace_hopper.jpg").read_bytes(), np.uint8)
    portrait = cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR), (SIDE - 10, SIDE - 10), interpolation=cv2.INTER_AREA)
    image = np.full((height, width, 3), 120, np.uint8)
    for i in range(faces):
        row, column = divmod(i, width // SIDE)
        x = column * SIDE + 5 + round(4 * math.sin(number / 10 + i))
        image[row * SIDE + 5 : (row + 1) * SIDE - 5, x : x + SIDE - 10] = portrait
    return image


def cost(faces: int, width: int, height: int, count: int) -> tuple[float, float]:
    """Return the CPU milliseconds per frame of following faces, and of searching every frame."""
    ways = []
    for changed in ({}, {"scan_interval": 0}):
        settings = Settings(search=changed)  # type: ignore[arg-type]
        recognizer = Recognizer.from_settings(settings)
        recognizer.warm_up(height, width)
        ways.append(Pass(settings, recognizer, settings.depth))
    following, searching = ways
    for number in range(count):
        image, when = crowd(faces, width, height, number), Nanoseconds(10**15 + number * 40_000_000)
        following.take(number + 1, when, image)
        if number % 5 == 0:
            searching.take(number + 1, when, image)
    return 1e3 * following.seconds / count, 1e3 * searching.seconds / -(-count // 5)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path)
    parser.add_argument(
        "--frames", type=int, default=100, help="frames of each crowd; whole searches are 50 frames apart"
    )
    parser.add_argument("--cameras", action="store_true", help="measure only the cameras")
    arguments = parser.parse_args()
    if arguments.cameras:
        show(of_cameras())
        return
    cv2.setNumThreads(1)
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for faces in FACES:
        both = cost(faces, 1920, 1080, arguments.frames)
        for name, value in zip(("followed", "every frame searched"), both, strict=True):
            curves.setdefault("faces in 1920x1080", {}).setdefault(name, []).append((faces, value))
    for million in PIXELS:
        height = round(math.sqrt(million * 1e6 * 9 / 16))
        both = cost(2, height * 16 // 9, height, arguments.frames)
        for name, value in zip(("followed", "every frame searched"), both, strict=True):
            curves.setdefault("megapixels, two faces", {}).setdefault(name, []).append((million, value))
    curves |= of_cameras()
    for workers in WORKERS:
        count, took = frames(2000, workers=workers)
        curves.setdefault("workers", {}).setdefault("aggregator", []).append((workers, 1e3 * took / count))
    show(curves)
    if arguments.plot:
        draw(curves, arguments.plot)


def of_cameras() -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return the CPU milliseconds per frame by number of cameras: the minimum of `ROUNDS` rounds, taken in turn."""
    ways: dict[str, Callable[[int], tuple[int, float]]] = {
        "aggregator": lambda cameras: frames(2000, cameras=cameras, repeated=False),
        "aggregator, offers repeated": lambda cameras: frames(2000, cameras=cameras),
        "dispatcher": lambda cameras: dispatch(4000, cameras=cameras, repeated=False),
        "dispatcher, offers repeated": lambda cameras: dispatch(4000, cameras=cameras),
    }
    found: dict[str, dict[float, float]] = {name: dict.fromkeys(CAMERAS, math.inf) for name in ways}
    for _ in range(ROUNDS):
        for cameras in CAMERAS:
            for name, way in ways.items():
                count, took = way(cameras)
                found[name][cameras] = min(found[name][cameras], 1e3 * took / count)
    return {"cameras": {name: list(points.items()) for name, points in found.items()}}


def show(curves: dict[str, dict[str, list[tuple[float, float]]]]) -> None:
    """Print a line for each curve."""
    for title, lines in curves.items():
        for name, points in lines.items():
            print(f"{title}, {name}:", ", ".join(f"{x:g}: {y:.3g} ms" for x, y in points))


def draw(curves: dict[str, dict[str, list[tuple[float, float]]]], path: Path) -> None:
    """Draw a panel for each group of curves."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    figure = Figure(figsize=(10, 6), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(2, 2).flat, curves.items(), strict=True):
        for (name, points), colour in zip(lines.items(), ("#0072b2", "#d55e00", "#009e73", "#cc79a7"), strict=False):
            axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=name)
        axes.set(xlabel=title, ylabel="CPU ms a frame", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
