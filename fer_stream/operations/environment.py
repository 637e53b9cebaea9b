"""Process-wide settings for fer-stream's own processes: environment variables of OpenCV, onnxruntime and others.

`fer_stream.cli.main.main` calls `prepare` before it imports these libraries. A program that uses fer_stream as a
library keeps its own settings. There each call protects itself: `fer_stream.imaging.jpeg.decode` checks a picture's
size before it decodes the picture.
"""

from __future__ import annotations

import os

from fer_stream.imaging.limits import MAX_PIXELS

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the folder in which the processes of a run share their metrics."""

PROCESS = "FER_STREAM_PROCESS"
"""The environment variable with the name of a supervised process. Its metrics files in that folder have this name."""

_prepared = False


def prepare() -> None:
    """Set up one of fer-stream's own processes. Variables that the user has set keep their values."""
    # NumPy reads this at import. Otherwise it starts a thread per host core; they count against a container's limits.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    global _prepared  # noqa: PLW0603
    _prepared = True
    for name, value in {
        "OPENCV_FFMPEG_LOGLEVEL": "-8",  # AV_LOG_QUIET: FFmpeg's messages contain addresses with passwords
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS),  # a 5 KB file can declare a picture of 6 GB
        "OPENCV_FOR_THREADS_NUM": "1",  # one process per core is faster than one thread per core
        "OPENCV_LOG_LEVEL": "SILENT",  # we log each failure once ourselves
        "ORT_DISABLE_TELEMETRY": "1",  # builds from 1.29 on report every session to the vendor over the network
    }.items():
        os.environ.setdefault(name, value)
    if MULTIPROCESS in os.environ and PROCESS in os.environ:
        name_metrics_files(os.environ[PROCESS].replace(" ", "-"))


def name_metrics_files(process: str) -> None:
    """Have prometheus-client name this process's metrics files after its role instead of its process id.

    A restarted process then continues its predecessor's counters. This replaces a value class of prometheus-client for
    the whole process, so only fer-stream's own processes may call it, before any metric is created.
    """
    from prometheus_client import values  # noqa: PLC0415  (only a supervised process needs it here)

    values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]


def prepared() -> bool:
    """Return whether this is one of fer-stream's own processes, not a program that uses fer_stream as a library."""
    return _prepared
