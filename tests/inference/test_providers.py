"""Execution providers: a model runs where it was asked to, with the CPU's answers, or it is refused with advice."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import onnx
import processors
import pytest
from onnx import TensorProto, helper

from fer_stream.errors import ConfigError, ModelError
from fer_stream.inference import models, providers
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.inference.detectors.mtcnn import MTCNN
from fer_stream.settings.kinds import Provider
from fer_stream.types import Box, Expected

TESTS = Path(__file__).parents[1]
ASSETS = Path(models.__file__).parents[1] / "assets"


@pytest.fixture(scope="module")
def openvino() -> str:
    processors.need_openvino()
    return "openvino"


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Two portraits of different sizes beside each other, 1280x640."""
    portraits = [cv2.imread(str(ASSETS / name)) for name in ("eileen_collins.jpg", "grace_hopper.jpg")]
    whole = np.zeros((640, 1280, 3), np.uint8)
    whole[:640, :640] = cv2.resize(portraits[0], (640, 640))
    whole[100:500, 700:1100] = cv2.resize(portraits[1], (400, 400))
    return whole


def test_the_setting_accepts_every_known_provider():
    assert set(providers.PROVIDERS) == set(get_args(Provider))


def test_a_model_runs_on_the_cpu_unless_another_provider_is_asked_for():
    assert models.shipped("mtcnn-pnet.onnx").session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("provider", "advice"),
    [
        ("cuda", "run pip uninstall --yes onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        (
            "tensorrt",
            "run pip uninstall --yes onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]', and install TensorRT",
        ),
        ("directml", "run pip uninstall --yes onnxruntime, then pip install onnxruntime-directml"),
        ("rocm", "install the build of onnxruntime that has it"),
    ],
)
def test_a_provider_that_is_not_installed_is_refused_with_advice(provider, advice):
    with pytest.raises(ConfigError) as refused:
        models.shipped("mtcnn-pnet.onnx", provider)
    assert str(refused.value) == (
        f"the provider {provider} is not installed, only {', '.join(providers.available())}: "
        f"leave --provider out, or {advice}"
    )


def test_without_the_plug_in_openvino_is_refused_with_advice(monkeypatch, pytestconfig):
    if pytestconfig.getoption("--provider") == "openvino":
        pytest.skip("the plug-in is registered in this process")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)  # as if it were not installed
    assert "openvino" not in providers.available()
    with pytest.raises(ConfigError, match=r"leave --provider out, or run pip install 'fer-stream\[openvino\]'$"):
        models.shipped("mtcnn-pnet.onnx", "openvino")


def alone(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, in which nothing is registered yet."""
    head = f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom fer_stream.inference import models\n"
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=False)


def test_the_plug_in_refuses_processors_that_are_not_intels():
    pytest.importorskip("onnxruntime_ep_openvino")
    done = alone("models.shipped('mtcnn-pnet.onnx', 'openvino')")
    if "Intel" in Path("/proc/cpuinfo").read_text():
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.stderr.splitlines()[-1].startswith(
            "fer_stream.errors.ConfigError: OpenVINO's plug-in accepts processors of Intel only, and this one is of "
        )


def test_a_process_that_used_openvino_says_nothing_and_ends(openvino):
    code = (
        "import processors; processors.need_openvino()\n"
        "for name in ('mtcnn-pnet.onnx', 'mtcnn-onet.onnx'):\n"
        "    print(models.shipped(name, 'openvino').session.get_providers()[0])\n"
    )
    done = alone(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["OpenVINOExecutionProvider"] * 2


def test_openvino_finds_the_same_faces(openvino, scene):
    ours, theirs = MTCNN().detect(scene), MTCNN(provider=openvino).detect(scene)
    assert len(ours) == len(theirs) >= 2
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one.box, other.box, atol=0.01)  # pixels; with bfloat16 it would be more than 1
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
        assert np.allclose(one.landmarks, other.landmarks, atol=0.01)


def test_openvino_computes_in_float32(openvino):
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 3, 120, 160)).astype(np.float32)
    ours, theirs = (
        models.shipped("mtcnn-pnet.onnx", provider).run(("scores", "offsets"), {"pixels": pixels})
        for provider in ("cpu", openvino)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one - other).max() < 1e-4  # 0.02 with bfloat16


@pytest.mark.parametrize("name", ["emotion-ferplus.onnx", "emotion.onnx", "emotion-tiny.onnx"])
def test_openvino_classifies_as_the_cpu_does(openvino, scene, name):
    """The models are quantised: a value on the edge of a step may be rounded to the other side."""
    faces = MTCNN().detect(scene)
    ours, theirs = (OnnxClassifier(Path(name), provider).classify(scene, faces) for provider in ("cpu", openvino))
    assert np.abs(ours - theirs).max() < 0.1
    assert (ours.argmax(1) == theirs.argmax(1)).all()


def test_openvino_finds_nothing_where_nothing_is(openvino):
    """Its plug-in returns a row even for an empty batch."""
    empty = np.zeros((480, 640, 3), np.uint8)
    assert MTCNN(provider=openvino).detect(empty) == []
    classifier = OnnxClassifier(provider=openvino)
    assert classifier.classify(empty, []).shape == (0, len(classifier.labels))


def test_openvino_follows_faces(openvino, scene):
    """Known faces go through R-Net and O-Net alone, in batches of any size; a lost one is searched for."""
    ours, theirs = MTCNN(), MTCNN(provider=openvino)
    known = [Expected(face.box, due=True) for face in ours.detect(scene)]
    moved = np.roll(scene, 5, axis=1)
    for expected in (known, known[:1], [*known, Expected(Box(0, 0, 50, 50), due=True)]):
        for one, other in zip(ours.look(moved, expected, [])[0], theirs.look(moved, expected, [])[0], strict=True):
            assert (one is None) == (other is None)
            assert one is None or np.allclose(one.box, other.box, atol=0.01)


def test_openvino_computes_on_the_calling_thread(openvino):
    """Workers share the cores, one each: a second thread of one slows the others."""
    classifier, crops = OnnxClassifier(provider=openvino), np.zeros((16, 48, 48), np.float32)
    classifier.run(crops)
    tasks = Path("/proc/self/task")

    def others() -> int:
        """Ticks of processor time of all threads but this one."""
        fields = [
            (task / "stat").read_text().rpartition(")")[2].split()
            for task in tasks.iterdir()
            if task.name != str(threading.get_native_id())
        ]
        return sum(int(field[11]) + int(field[12]) for field in fields)

    before = others()
    for _ in range(40):
        classifier.run(crops)
    assert others() - before <= 1


def test_a_model_of_which_a_provider_can_run_nothing_is_refused(openvino, tmp_path):
    """onnxruntime itself would run it on the CPU, in silence."""
    text = [helper.make_tensor_value_info(name, TensorProto.STRING, [1]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("StringConcat", ["a", "b"], ["c"])], "text", text[:2], text[2:])
    path = tmp_path / "text.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), str(path))
    assert models.load(path, "cpu").session.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(ModelError, match=r"the provider openvino cannot run any part of .*text\.onnx"):
        models.load(path, openvino)


def test_a_file_that_is_no_model_has_the_same_message(openvino, tmp_path):
    path = tmp_path / "none.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"is not a model that onnxruntime can open: .*protobuf"):
        models.load(path, openvino)


def test_an_onnxruntime_with_parts_missing_is_named():
    """An empty package remains if one of two builds, which share a folder, is removed."""
    done = alone("sys.modules['onnxruntime'] = type(sys)('onnxruntime')\nmodels.shipped('mtcnn-pnet.onnx')")
    assert done.stderr.splitlines()[-1].startswith("fer_stream.errors.ConfigError: onnxruntime is incomplete")
