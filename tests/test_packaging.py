"""The wheel and the sdist, built from this checkout and used outside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODELS = (
    "emotion.onnx",
    "emotion-ferplus.onnx",
    "emotion-tiny.onnx",
    "mtcnn-pnet.onnx",
    "mtcnn-rnet.onnx",
    "mtcnn-onet.onnx",
    "SHA256SUMS",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_both_hold_the_models_and_the_licence(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    assert {f"fer_stream/assets/models/{name}" for name in MODELS} <= inside
    assert {"fer_stream/py.typed", "fer_stream/assets/grace_hopper.jpg"} <= inside
    assert "fer_stream/sinks/postgres/migrations/0001.sql" in inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert not [name for name in inside if name.startswith(("tests", "training"))]
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"models/{name}" for name in MODELS} <= inside
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/test_packaging.py"} <= inside


def test_an_installed_wheel_works_outside_the_checkout(built: Path, tmp_path: Path) -> None:
    # Dependencies come from this environment; the package itself comes only from the wheel.
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    (wheel,) = built.glob("*.whl")
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--quiet", "--target", site]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True)
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(ours) + "\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FER_STREAM_"))}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}

    def run(*arguments: str) -> str:
        command = [str(home / "bin/python"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import fer_stream; print(fer_stream.__file__)").startswith(str(site))
    portrait = str(ROOT / "fer_stream/assets/eileen_collins.jpg")
    (line,) = run("-m", "fer_stream", "recognize", portrait).splitlines()
    (face,) = json.loads(line)["faces"]
    assert face["confidence"] > 0.99
    assert max(face["probabilities"], key=face["probabilities"].get) == "happy"
