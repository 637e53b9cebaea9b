"""facenet-pytorch, which ours is measured against, also where there is no torchvision, of which it uses two names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.settings.tree import DetectorSettings

if TYPE_CHECKING:
    from fer_stream.plugins import Detector

sys.path.append(str(Path(__file__).parents[1] / "standin"))  # at the end: the real one wins where it is installed


def detector() -> Detector:
    """Return facenet-pytorch's detector, with torch held to one thread."""
    import torch  # noqa: PLC0415 - slow, and only measured against

    from fer_stream.inference.detectors import facenet  # noqa: PLC0415

    torch.set_num_threads(1)
    return facenet.load(DetectorSettings())
