"""An environment in which OpenCV and onnxruntime come from other distributions: opencv-python and onnxruntime-gpu."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]

OTHERS = {"opencv_python_headless": "opencv_python", "onnxruntime": "onnxruntime_gpu"}


def environment(folder: Path) -> dict[str, str]:
    """Return variables with which ``python -S`` finds the packages of this environment under these names.

    All entries are links to the installed packages, except the metadata of these distributions.
    """
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        name, dash, version = entry.name.removesuffix(".dist-info").partition("-")
        if entry.suffix == ".dist-info" and name in OTHERS:
            other = folder / f"{OTHERS[name]}{dash}{version}.dist-info"
            other.mkdir()
            text = (entry / "METADATA").read_text(encoding="utf-8")
            before, after = (f"Name: {it}\n" for it in (name.replace("_", "-"), OTHERS[name].replace("_", "-")))
            assert before in text
            (other / "METADATA").write_text(text.replace(before, after, 1), encoding="utf-8")
        elif entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
