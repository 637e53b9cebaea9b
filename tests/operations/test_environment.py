"""fer-stream's own processes: one OpenCV thread, size limits, no telemetry; the user's variables keep their values."""

from __future__ import annotations

import json
import os
import subprocess
import sys

CODE = """
import json, os, sys
from fer_stream.cli.main import main
main(["version"])
import cv2, numpy as np
from fer_stream.operations import environment
huge = cv2.imencode(".pgm", np.zeros((8_000, 7_000), np.uint8))[1]
try:
    decodes = cv2.imdecode(huge, cv2.IMREAD_GRAYSCALE) is not None
except cv2.error:
    decodes = False
state = [cv2.getNumThreads(), cv2.utils.logging.getLogLevel(), environment.prepared(), decodes, dict(os.environ)]
print(json.dumps(state), file=sys.stderr)
"""


def ours(**variables: str) -> list[object]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("OPENCV_", "ORT_"))
    } | variables
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    state: list[object] = json.loads(done.stderr.splitlines()[-1])
    return state


def test_a_command_prepares_its_process() -> None:
    threads, level, prepared, decodes, environment = ours()
    assert (threads, level, prepared, decodes) == (1, 0, True, False)
    assert isinstance(environment, dict)
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert environment["OPENCV_FFMPEG_LOGLEVEL"] == "-8"


def test_what_the_user_has_set_stays() -> None:
    threads, _, _, _, environment = ours(OPENCV_FOR_THREADS_NUM="2", ORT_DISABLE_TELEMETRY="0")
    assert threads == 2
    assert isinstance(environment, dict)
    assert environment["ORT_DISABLE_TELEMETRY"] == "0"
