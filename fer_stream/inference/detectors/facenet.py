"""facenet-pytorch's MTCNN, the reference for `fer_stream.inference.detectors.mtcnn`.

It is several times slower, and needs torch and torchvision (some gigabytes). Use it for comparisons, not for cameras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2

from fer_stream.errors import PluginError
from fer_stream.imaging.pixels import pixels
from fer_stream.types import Box, Face

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.settings.tree import DetectorSettings


def load(settings: DetectorSettings) -> FacenetMTCNN:
    """Return the detector that the settings describe (the entry point).

    Raises:
        PluginError: facenet-pytorch, or a package that it needs, is not installed.
    """
    return FacenetMTCNN(settings.min_face, settings.thresholds, settings.factor)


class FacenetMTCNN:
    """The reference detector, with the arguments of `fer_stream.inference.detectors.mtcnn.MTCNN`.

    Raises:
        PluginError: facenet-pytorch, or a package that it needs, is not installed.
    """

    def __init__(
        self, min_face: int = 40, thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7), factor: float = 0.709
    ) -> None:
        try:
            import torch  # noqa: PLC0415 - an extra
            from facenet_pytorch import MTCNN  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise PluginError(
                f"the detector 'facenet' needs facenet-pytorch ({error}): pip install 'fer-stream[train]'"
            ) from error
        torch.set_num_threads(1)
        self.min_face = min_face
        self._mtcnn: Any = MTCNN(
            min_face_size=min_face, thresholds=list(thresholds), factor=factor, keep_all=True, select_largest=False
        )

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces in ``image`` (uint8 ``[H, W, 3]``, BGR), in order of falling confidence.

        Raises:
            ValueError: ``image`` is not such an array (`fer_stream.imaging.pixels`).
        """
        image = pixels(image)
        if min(image.shape[:2]) < self.min_face:  # facenet-pytorch fails on an empty pyramid
            return []
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        boxes, scores, points = self._mtcnn.detect(rgb, landmarks=True)
        if boxes is None:
            return []
        return [
            Face(Box(*box.tolist()), float(score), tuple((x, y) for x, y in landmarks.tolist()))
            for box, score, landmarks in zip(boxes, scores, points, strict=True)
        ]
