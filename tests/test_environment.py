"""A process of our own has one thread of OpenCV, its limits and no telemetry; what the user has set stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys

CODE = """
import json, os, sys
from fer_stream.cli import main
main(["version"])
import cv2, numpy as np
from fer_stream import environment
told = [cv2.getNumThreads(), cv2.utils.logging.getLogLevel(), environment.prepared(), dict(os.environ)]
huge = cv2.imencode(".png", np.zeros((10, 10), np.uint8))[1].tobytes().replace(b"\\0\\0\\0\\x0a" * 2, b"\\0\\1\\0\\0" * 2)
try:
    cv2.imdecode(np.frombuffer(huge, np.uint8), 1)
except cv2.error as error:
    told.append(str(error))
print(json.dumps(told), file=sys.stderr)
"""


def ours(**variables: str) -> list[object]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("OPENCV_", "ORT_"))
    } | variables
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    told: list[object] = json.loads(done.stderr.splitlines()[-1])
    return told


def test_a_command_prepares_its_process() -> None:
    threads, level, prepared, environment, error = ours()
    assert (threads, level, prepared) == (1, 0, True)
    assert isinstance(environment, dict)
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert environment["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;tcp"
    assert environment["OPENCV_FFMPEG_LOGLEVEL"] == "-8"
    assert "CV_IO_MAX_IMAGE_PIXELS" in str(error), "OpenCV's own limit is that of the settings"


def test_what_the_user_has_set_stays() -> None:
    threads, _, _, environment, *_ = ours(OPENCV_FOR_THREADS_NUM="2", ORT_DISABLE_TELEMETRY="0")
    assert threads == 2
    assert isinstance(environment, dict)
    assert environment["ORT_DISABLE_TELEMETRY"] == "0"
