"""fer_stream as a library does not change the state of the program that uses it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

import fer_stream
from fer_stream.settings.tree import CameraSettings, Settings
from fer_stream.sources.demo import open_source

HERE = Path(__file__).parent
ASSETS = Path(fer_stream.__file__).parent / "assets"


def state_after(folder: Path, clip: Path, tiny_model: Path, how: str) -> dict[str, object]:
    """Return the JSON that `untouched.py` prints; it prints nothing else."""
    folder = folder / how
    (folder / "pictures").mkdir(parents=True)
    shutil.copy(clip, folder / "clip.avi")
    shutil.copy(tiny_model, folder / "tiny.onnx")
    shutil.copy(ASSETS / "grace_hopper.jpg", folder / "pictures")
    command = [sys.executable, HERE / "untouched.py", folder, how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_programs_settings_do_not_change(clip: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Checked after imports, after `recognize` and after `analyze`."""
    assert state_after(tmp_path, clip, tiny_model, "settled") == {}


def test_packages_that_fer_stream_loads_first_have_their_usual_state(
    clip: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with_fer_stream = state_after(tmp_path, clip, tiny_model, "with")
    assert with_fer_stream == state_after(tmp_path, clip, tiny_model, "without")


def test_metrics_are_not_mixed_with_those_of_a_program_with_several_processes(tmp_path: Path) -> None:
    """Under gunicorn the processes of a program share their metrics through files in a folder."""
    code = (
        "import prometheus_client, fer_stream.capture.process\n"
        "from fer_stream.operations import metrics\n"
        "metrics.frames.labels('door', 'done', '').inc()\n"
        "prometheus_client.Counter('theirs', 'Theirs.').inc()\n"
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    (file,) = tmp_path.iterdir()
    assert b"theirs" in file.read_bytes()
    assert b"fer_stream" not in file.read_bytes()


def test_importing_metrics_does_not_change_prometheus_client(tmp_path: Path) -> None:
    """Only the start of a fer-stream process changes how prometheus_client names files, never an import."""
    code = (
        "from fer_stream.operations import environment\n"
        "environment.prepare()\n"
        "from prometheus_client import values\n"
        "before = values.ValueClass\n"
        "from fer_stream.operations import metrics\n"
        "assert values.ValueClass is before\n"
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "FER_STREAM_PROCESS": "aggregator"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_faces_are_the_same_with_any_number_of_the_program_s_threads() -> None:
    """The number of OpenCV's threads, which the program sets, affects speed but not results."""
    scene = open_source("demo", CameraSettings())
    image = next(picture.image for number in range(200) if (picture := scene.read()) and number == 199)
    image = np.asarray(cv2.resize(image, (1920, 1440), interpolation=cv2.INTER_CUBIC), np.uint8)
    recognizer = fer_stream.Recognizer.from_settings(Settings())
    before, found = cv2.getNumThreads(), []
    try:
        for threads in (1, 2, 5, 16):
            cv2.setNumThreads(threads)
            found.append(recognizer.recognize(image).faces)
    finally:
        cv2.setNumThreads(before)
    assert len(found[0]) >= 1
    assert all(faces == found[0] for faces in found)
