"""Measure the CPU time per frame from file to events, compared with decoding alone and with a simple loop.

    python tests/bench/pipeline.py ../shared/media/facenet_video.mp4
    python tests/bench/pipeline.py ../shared/media/facenet_video.mp4 --size 640x480
    python tests/bench/pipeline.py ../shared/media/facenet_video.mp4 --mjpeg --encoding jpeg

CPU time is that of all processes of the service, without start-up. Each round measures one after the other:

- decode: OpenCV reads the file
- service: ``fer-stream run FILE --policy wait --loop --workers 1``, while it runs
- full scan: the same with ``search.scan_interval`` 0, so that every frame is searched whole
- loop: OpenCV reads, facenet-pytorch's MTCNN detects, fer_stream's classifier scores each face, in a single thread
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import psutil
import theirs

from fer_stream import client
from fer_stream.errors import FerStreamError
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.settings.tree import Settings


def decode(video: Path) -> float:
    """Return the CPU milliseconds per frame of reading a file."""
    source, frames, before = cv2.VideoCapture(str(video)), 0, time.process_time()
    while source.read()[0]:
        frames += 1
    return 1e3 * (time.process_time() - before) / frames


def loop(video: Path, seconds: float) -> float:
    """Return the CPU milliseconds per frame of a simple loop."""
    detector, classifier = theirs.detector(), OnnxClassifier()
    source, frames = cv2.VideoCapture(str(video)), 0
    image = source.read()[1]
    for _ in range(2):
        classifier.classify(image, detector.detect(image))  # type: ignore[arg-type]
    before = time.process_time()
    while time.process_time() - before < seconds:
        there, image = source.read()
        if not there:
            source = cv2.VideoCapture(str(video))
            continue
        classifier.classify(image, detector.detect(image))  # type: ignore[arg-type]
        frames += 1
    return 1e3 * (time.process_time() - before) / frames


def service(video: Path, seconds: float, **settings: str) -> dict[str, float]:
    """Return the CPU milliseconds per frame of each process of a running service, by title."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}"
        command = [sys.executable, "-m", "fer_stream", "run", video, "--policy", "wait", "--loop", "--workers", "1"]
        command += ["--journal", Path(folder) / "events.db", "--bind", address]
        environment = os.environ | {f"FER_STREAM_{key}": value for key, value in settings.items()}
        process = psutil.Popen(
            [*map(str, command)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while done(address) < 10:
                time.sleep(0.2)
            frames, used = done(address), cpu(process)
            time.sleep(seconds)
            frames, used = done(address) - frames, {name: at - used[name] for name, at in cpu(process).items()}
        finally:
            process.terminate()
            process.wait()
    return {name: 1e3 * value / frames for name, value in used.items()}


def done(address: str) -> int:
    """Return the number of frames that a service has processed."""
    try:
        return sum(camera["ledger"]["done"] for camera in client.status(Settings(address=address))["cameras"].values())
    except FerStreamError:
        return 0


def cpu(process: psutil.Process) -> dict[str, float]:
    """Return the CPU seconds of a service's processes, by title."""
    found = {}
    for part in (process, *process.children()):
        title = part.cmdline()[0].removeprefix("fer-stream: ")
        times = part.cpu_times()
        found["supervisor" if part.pid == process.pid else title] = times.user + times.system
    return found


def remade(video: Path, size: str | None, mjpeg: bool, folder: Path) -> Path:
    """Write the video at another size, or as MJPEG, into a file of the folder; return its path."""
    source = cv2.VideoCapture(str(video))
    across, down = (source.get(prop) for prop in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    width, height = map(int, size.split("x")) if size else (int(across), int(down))
    path = folder / f"{width}x{height}{'.avi' if mjpeg else '.mp4'}"
    codec = cv2.VideoWriter.fourcc(*("MJPG" if mjpeg else "mp4v"))
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, source.get(cv2.CAP_PROP_FPS), (width, height))
    while True:
        there, image = source.read()
        if not there:
            break
        writer.write(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    writer.release()
    return path


def main() -> None:
    """Measure in turn, and print medians, their range and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--size", help="WIDTHxHEIGHT to which the video is resized first")
    parser.add_argument(
        "--mjpeg", action="store_true", help="first convert the video to JPEGs, as a camera may send them"
    )
    parser.add_argument("--encoding", default="auto", help="encoding of frames; between machines it is jpeg")
    parser.add_argument("--seconds", type=float, default=12, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)  # as in our own processes
    rows: dict[str, list[float]] = {"decode": [], "service": [], "full scan": [], "loop": []}
    parts: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        video = arguments.video
        if arguments.size or arguments.mjpeg:
            video = remade(video, arguments.size, arguments.mjpeg, Path(folder))
        how = {f"CAMERAS__{video.stem}__ENCODING": arguments.encoding}
        for _ in range(arguments.rounds):
            rows["decode"].append(decode(video))
            used = service(video, arguments.seconds, **how)
            rows["service"].append(sum(used.values()))
            for name, value in used.items():
                parts.setdefault(name, []).append(value)
            dear = service(video, arguments.seconds, SEARCH__SCAN_INTERVAL="0", **how)
            rows["full scan"].append(sum(dear.values()))
            rows["loop"].append(loop(video, arguments.seconds / 2))
    middle = {name: statistics.median(values) for name, values in rows.items()}
    for name, values in rows.items():
        print(
            f"{name:10} {middle[name]:7.1f} ms a frame ({min(values):.1f} to {max(values):.1f}), "
            f"{middle[name] / middle['decode']:5.1f}x decoding, {middle[name] / middle['service']:5.1f}x the service"
        )
    print("of the service:", ", ".join(f"{name} {statistics.median(values):.1f}" for name, values in parts.items()))


if __name__ == "__main__":
    main()
