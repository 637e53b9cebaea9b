"""The page about processors, followed in an environment of its own, up to NVIDIA's driver, which this machine lacks."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from documents import ROOT, blocks, commands
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]

PAGE = ROOT / "docs/how-to/processors.md"
LARGE = "[cuda,cudnn]"
"""Extras of onnxruntime-gpu that are 1.3 GB. They are left out, so CUDA would be missing even with a driver."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``run(*words)`` runs a command in an environment with fer-stream and nothing else."""
    folder = tmp_path_factory.mktemp("processors")
    home = folder / "venv"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FER_STREAM_"))}
    environment |= {
        "VIRTUAL_ENV": str(home),
        "PATH": f"{home}/bin:{Path(sys.executable).parent}:{environment['PATH']}",
        "FER_STREAM_JOURNAL__PATH": str(folder / "events.db"),
    }

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    for words in (("venv", "--seed", "--python", sys.executable, str(home)), ("pip", "install", str(ROOT))):
        done = command("uv", *words, "--quiet")
        assert done.returncode == 0, done.stderr
    return command


def shell(first: str) -> list[list[str]]:
    """Return the commands of the block with these first lines."""
    (text,) = (block.text for block in blocks(PAGE) if block.text.startswith(first))
    return [[part.replace(LARGE, "") for part in words] for words in commands(text)]


def doctor(run: Run, *options: str) -> list[str]:
    """Return what the doctor says about providers."""
    return [line for line in run("fer-stream", "doctor", *options).stdout.splitlines() if "provider" in line]


def missing() -> str:
    """Return what is said of a machine without CUDA."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return (
            "there is no libcuda.so.1, so nothing can run on cuda or tensorrt: leave --provider out, install NVIDIA's "
        )
    return "the provider cuda does not start: install the libraries that it needs, for example with pip "


@pytest.mark.timeout(900)
def test_the_gpu_build_takes_the_place_of_onnxruntime_and_gives_it_back(run: Run) -> None:
    before = doctor(run)
    assert before == ["ok    providers of onnxruntime: cpu; the detector uses cpu, the classifier cpu"]
    assert missing() not in str(doctor(run, "--provider", "cuda")), "onnxruntime has no such provider yet"

    pip = "pip uninstall --yes onnxruntime\npip install 'onnxruntime-gpu"
    for there, back in ((shell(pip), shell("pip uninstall --yes onnxruntime-gpu")), (shell("uv pip uninstall"), [])):
        for words in there:
            done = run(*words)
            if words[0] != "fer-stream":
                assert done.returncode == 0, done.stderr
            else:
                assert done.returncode == (1 if words[1] == "doctor" else 2)
                assert missing() in done.stdout + done.stderr
        assert doctor(run) == [
            "ok    providers of onnxruntime-gpu: cpu, cuda, tensorrt; the detector uses cpu, the classifier cpu"
        ]
        for words in back:
            assert run(*words).returncode == 0
        if back:
            assert doctor(run) == before

    assert run("uv", "pip", "install", "onnxruntime").returncode == 0, "as an upgrade of fer-stream would"
    done = run("fer-stream", "doctor")
    assert done.returncode == 1
    assert "fail  onnxruntime and onnxruntime-gpu are installed and overwrite each other's files: run " in done.stdout
    assert run("pip", "uninstall", "--yes", "onnxruntime").returncode == 0
    assert "fail  onnxruntime is incomplete" in run("fer-stream", "doctor").stdout


def test_an_override_keeps_onnxruntime_away(run: Run, tmp_path: Path) -> None:
    (text,) = (block.text for block in blocks(PAGE) if block.title == "pyproject.toml")
    (tmp_path / "pyproject.toml").write_text(text.replace('"fer-stream"', f'"fer-stream @ file://{ROOT}"'))
    done = run("uv", "export", "--directory", str(tmp_path), "--no-hashes", "--no-header", "--no-annotate", "--quiet")
    assert done.returncode == 0, done.stderr
    needed = [Requirement(line) for line in done.stdout.splitlines() if "==" in line]
    here = {asked.name for asked in needed if asked.marker is None or asked.marker.evaluate()}
    assert "onnxruntime-gpu" in here
    assert "onnxruntime" not in here
