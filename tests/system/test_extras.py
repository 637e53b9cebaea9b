"""Third-party packages: a missing one is named with its extra; the version does not depend on the distribution."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import numpy
import other_packages
import pytest

from fer_stream.errors import PluginError
from fer_stream.system.extras import require, version

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli


def test_what_is_there_is_imported() -> None:
    assert require("math", "analyze") is math


def test_what_is_missing_is_named_with_its_extra() -> None:
    with pytest.raises(PluginError, match=r"needs nothing_like_it .*pip install 'fer-stream\[analyze\]'"):
        require("nothing_like_it.at_all", "analyze")


def test_a_module_tells_its_version() -> None:
    assert version("numpy") == numpy.__version__
    assert version("prometheus_client") == metadata.version("prometheus-client"), "it has no __version__"
    assert version("math") == "unknown"
    with pytest.raises(ImportError):
        version("nothing_like_it")


@pytest.mark.parametrize("command", [["analyze", "{clip}", "-o", "{out}"], ["doctor"]])
def test_opencv_and_onnxruntime_may_come_from_any_distribution(
    command: list[str], clip: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (packages := tmp_path / "packages").mkdir()
    variables = other_packages.environment(packages) | {"FER_STREAM_CLASSIFIER__MODEL": str(tiny_model)}
    variables["FER_STREAM_JOURNAL__PATH"] = str(tmp_path / "events.db")
    python, ask = [sys.executable, "-S"], "from importlib.metadata import version; version('{}')"
    for name, there in (("onnxruntime-gpu", True), ("opencv-python", True), ("onnxruntime", False)):
        found = subprocess.run([*python, "-c", ask.format(name)], env=variables, capture_output=True, check=False)
        assert (found.returncode == 0) is there
    arguments = [part.format(clip=clip, out=tmp_path / "out") for part in command]
    started = [*python, "-m", "fer_stream", *arguments]
    done = subprocess.run(started, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if command == ["doctor"]:
        assert "ok    cv2 " in done.stdout
        assert "ok    onnxruntime " in done.stdout
    else:
        versions = json.loads((tmp_path / "out/summary.json").read_text())["versions"]
        assert set(versions) - {"onnxruntime_ep_openvino"} == {"python", "numpy", "cv2", "onnxruntime"}


def test_a_package_that_cannot_be_imported_is_one_sentence(cli: Cli, clip: Path) -> None:
    """opencv-python needs desktop libraries, which are missing on a server."""
    (cli.folder / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')\n")
    done = cli.run("analyze", clip, "-o", "out", PYTHONPATH=f"{cli.folder}")
    assert done.popen.returncode == 1
    assert len(done.errors) == 1
    assert "libGL.so.1" in done.errors[0]
    assert "Traceback" not in done.err
    found = cli.run("doctor", PYTHONPATH=f"{cli.folder}")
    assert "fail  cv2 cannot be imported (ImportError: libGL.so.1" in found.out
    assert "pip install 'opencv-python-headless" in found.out
