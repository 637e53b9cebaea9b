"""facenet-pytorch, the reference of measurements, with a stand-in for torchvision, of which it uses two names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.settings.tree import DetectorSettings

if TYPE_CHECKING:
    from fer_stream.plugins import Detector

sys.path.append(str(Path(__file__).parents[1] / "standin"))  # at the end: an installed torchvision comes first


def detector() -> Detector:
    """Return facenet-pytorch's detector, with torch limited to one thread."""
    import torch  # noqa: PLC0415 - slow to import, and only the reference needs it

    from fer_stream.inference.detectors import facenet  # noqa: PLC0415

    torch.set_num_threads(1)
    return facenet.load(DetectorSettings())
