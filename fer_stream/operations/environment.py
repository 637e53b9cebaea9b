"""What a process of our own sets for the whole process: the environment that OpenCV, onnxruntime and others read.

`fer_stream.cli.main.main` calls `prepare`, before it imports any of them. A program that uses fer_stream as a library
keeps its own settings: there, each call is made safe by itself (`fer_stream.imaging.jpeg.decode` asks for a picture's
size before it decodes it).
"""

from __future__ import annotations

import os

from fer_stream.imaging.limits import MAX_PIXELS

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the folder in which the processes of a run share their metrics."""

PROCESS = "FER_STREAM_PROCESS"
"""The environment variable that names a supervised process. Its metrics files in that folder bear the name."""

_prepared = False


def prepare() -> None:
    """Set up a process of our own. What the user has set in the environment stays."""
    # NumPy reads this when it is imported. Its threads, one a core of the host, count against a container's limits.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    global _prepared  # noqa: PLW0603
    _prepared = True
    for name, value in {
        "OPENCV_FFMPEG_LOGLEVEL": "-8",  # FFmpeg's AV_LOG_QUIET: its messages hold addresses, and so passwords
        "OPENCV_FFMPEG_CAPTURE_OPTIONS": "rtsp_transport;tcp",  # over UDP lost packets become grey smears
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS),  # a 5 KB file can claim to be 6 GB
        "OPENCV_FOR_THREADS_NUM": "1",  # a process a core is faster than a thread a core
        "OPENCV_LOG_LEVEL": "SILENT",  # what fails is told once, by us
        "ORT_DISABLE_TELEMETRY": "1",  # its builds from 1.29 on report every session to their maker over the network
    }.items():
        os.environ.setdefault(name, value)
    if MULTIPROCESS in os.environ and PROCESS in os.environ:
        name_metrics_files(os.environ[PROCESS].replace(" ", "-"))


def name_metrics_files(process: str) -> None:
    """Have prometheus-client name this process's metrics files after its role instead of its process id.

    A process that is started again then continues its predecessor's counters. This replaces a value class of
    prometheus-client for the whole process, so only a process of our own may call it, before any metric is made.
    """
    from prometheus_client import values  # noqa: PLC0415  (only a supervised process needs it here)

    values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]


def prepared() -> bool:
    """Return whether this process is our own, rather than a program that uses fer_stream as a library."""
    return _prepared
