"""Shipped model files, in a checkout and in an installed wheel, intact and damaged."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fer_stream.errors import ModelError
from fer_stream.inference import models

ROOT = Path(__file__).parents[2]


def test_the_manifest_lists_every_shipped_file():
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in models.folder().glob("*.onnx")}
    assert models.digests() == files
    assert {"mtcnn-pnet.onnx", "mtcnn-rnet.onnx", "mtcnn-onet.onnx"} <= set(files)


def test_a_shipped_file_opens_and_has_metadata():
    model = models.shipped("mtcnn-pnet.onnx")
    assert model.digest == models.digests()["mtcnn-pnet.onnx"]
    assert model.metadata["license"] == "MIT"


def test_a_name_finds_the_shipped_file_if_no_such_file_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert models.find(Path("mtcnn-pnet.onnx")).path == models.folder() / "mtcnn-pnet.onnx"
    shutil.copy(models.folder() / "mtcnn-rnet.onnx", "mtcnn-pnet.onnx")
    assert models.find(Path("mtcnn-pnet.onnx")).digest == models.digests()["mtcnn-rnet.onnx"]
    with pytest.raises(ModelError, match=r"the model file nowhere\.onnx cannot be read"):
        models.find(Path("nowhere.onnx"))


@pytest.fixture(params=["models", "fer_stream/assets/models"], ids=["checkout", "wheel"])
def copy(tmp_path, request):
    """The model folder of a copy of our package with one model file, in the layout of a checkout or of a wheel."""
    shutil.copytree(
        ROOT / "fer_stream", tmp_path / "fer_stream", ignore=lambda at, _: ["models"] * at.endswith("assets")
    )
    folder = tmp_path / request.param
    folder.mkdir(parents=True)
    for name in ("mtcnn-pnet.onnx", models.MANIFEST):
        shutil.copy(models.folder() / name, folder)
    return folder


def shipped(copy, name="mtcnn-pnet.onnx"):
    """Return the path or the error that a new process, which imports only the copy, prints for a shipped file."""
    code = (
        "import sys; from fer_stream import errors; from fer_stream.inference import models\n"
        "try:\n    print(models.shipped(sys.argv[1]).path)\n"
        "except errors.ModelError as error:\n    print('ModelError:', error)"
    )
    root = copy.parent if copy.parent.name != "assets" else copy.parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.strip()


def test_an_intact_copy_opens(copy):
    assert shipped(copy) == str(copy / "mtcnn-pnet.onnx")


def test_a_file_that_is_not_the_shipped_one_is_refused(copy):
    shutil.copy(models.folder() / "mtcnn-rnet.onnx", copy / "mtcnn-pnet.onnx")
    assert shipped(copy) == (
        f"ModelError: {copy / 'mtcnn-pnet.onnx'} is not the file that was shipped "
        "(SHA256SUMS beside it): install fer-stream again"
    )


def test_a_damaged_file_is_refused(copy):
    content = bytearray((copy / "mtcnn-pnet.onnx").read_bytes())
    content[1000] ^= 1
    (copy / "mtcnn-pnet.onnx").write_bytes(content)
    assert shipped(copy).startswith(f"ModelError: {copy / 'mtcnn-pnet.onnx'} is not ")


def test_the_digest_is_checked_before_the_file_is_parsed(copy):
    (copy / "mtcnn-pnet.onnx").write_bytes(b"no model at all")
    assert "is not the file that was shipped" in shipped(copy), "not an error of onnxruntime"


def test_a_missing_file_and_a_missing_manifest_are_named(copy):
    assert shipped(copy, "mtcnn-onet.onnx") == (
        f"ModelError: the model file {copy / 'mtcnn-onet.onnx'} cannot be read: No such file or directory"
    )
    (copy / models.MANIFEST).unlink()
    assert shipped(copy) == (
        f"ModelError: the manifest of the model files, {copy / models.MANIFEST}, cannot be read: "
        "install fer-stream again"
    )


def test_onnxruntime_writes_no_telemetry_files(tmp_path):
    """Telemetry would leave an identifier in the home folder and session files in the temporary folder."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "XDG_"))}
    for key in ("HOME", "TMPDIR"):
        environment[key] = str(tmp_path / key)
        (tmp_path / key).mkdir()
    # onnxruntime disables telemetry itself if these variables show a CI machine.
    environment = {key: value for key, value in environment.items() if key not in ("CI", "GITHUB_ACTIONS", "TF_BUILD")}
    code = "from fer_stream.inference import models; models.shipped('mtcnn-pnet.onnx')"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
