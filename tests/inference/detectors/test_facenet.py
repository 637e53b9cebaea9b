import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_error_without_facenet_says_what_to_install(tmp_path):
    # A process in which our package works, but facenet-pytorch cannot be imported.
    (tmp_path / "facenet_pytorch.py").write_text("raise ImportError('No module named torchvision')\n")
    code = (
        "from fer_stream.settings.tree import DetectorSettings\n"
        "from fer_stream.errors import PluginError\n"
        "from fer_stream.inference.detectors import facenet\n"
        "try:\n    facenet.load(DetectorSettings(name='facenet'))\n"
        "except PluginError as error:\n    print(error)\n"
    )
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (
        "the detector 'facenet' needs facenet-pytorch (No module named torchvision): pip install 'fer-stream[train]'"
    )
