"""The quality of a face, used as weight of its score: lower if it is small, blurred, turned or cut off by the edge.

It is the minimum of five values, each a linear ramp from 0 (useless) to 1 (no fault). The ramps for size and sharpness
follow the accuracy of our first classifier on shrunk and blurred faces on which FER+'s annotators agree. It is 85% on
the originals; 80% at 32 pixels, 72% at 24 and 50% at 16; 76% at a sharpness of 0.19, 61% at 0.15 and 50% at 0.12.

The lean of a head in the picture plane (its roll) does not lower it: the crop is turned with the head, and the accuracy
is the same at any lean if the landmarks are right. If they are wrong, the line through the eyes and that through the
corners of the mouth are not parallel. The accuracy is 88% on faces for which their angles differ by less than 3
degrees, 73% at 3 to 6, and 64% at 6 to 9 (PublicTest faces turned by 0 to 90 degrees, in the scenes of
`training.turned`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.imaging.geometry import area, roll, size
from fer_stream.imaging.yuv import grey as grey_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fer_stream.imaging.yuv import Yuv
    from fer_stream.types import Face

SIDE = 48
"""Side in pixels of the grey square on which sharpness is measured: our classifiers take 48x48 pixels."""

SMALL = (14.0, 34.0)
"""Size of the box in pixels, ``sqrt(width * height)``, for quality 0 and 1."""

BLURRED = (0.1, 0.18)
"""`sharpness` for quality 0 and 1."""

TURNED = (0.75, 0.45)
"""`turn` for quality 0 and 1."""

SKEWED = (10.0, 2.5)
"""`skew` in degrees, for quality 0 and 1."""

CUT_OFF = (0.6, 0.9)
"""Share of the box inside the picture, for quality 0 and 1."""


def of(image: NDArray[np.uint8] | Yuv, face: Face) -> float:
    """Return the quality of a face, 0 to 1, in ``image`` (uint8 ``[H, W, 3]``, BGR; or planar)."""
    x1, y1, x2, y2 = face.box
    height, width = image.shape[:2]
    left, top = max(int(x1), 0), max(int(y1), 0)
    right, bottom = min(math.ceil(x2), width), min(math.ceil(y2), height)
    if left >= right or top >= bottom:
        return 0.0
    seen = grey_of(image, left, top, right, bottom, 2 * SIDE)
    grey = cv2.resize(seen, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    inside = (right - left) * (bottom - top) / area(face.box)
    return min(
        _ramp(size(face.box), SMALL),
        judge_sharpness(np.asarray(grey, np.uint8)),
        _ramp(turn(face.landmarks), TURNED),
        _ramp(skew(face.landmarks), SKEWED),
        _ramp(inside, CUT_OFF),
    )


def judge_sharpness(grey: NDArray[np.uint8]) -> float:
    """Return the quality of ``grey`` (uint8 ``[48, 48]``) by sharpness alone, 0 to 1."""
    return _ramp(sharpness(grey), BLURRED)


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Return the share of the contrast in ``grey`` (uint8 ``[48, 48]``) that is detail, 0 to 1; 0 for a uniform square.

    It is the standard deviation of the difference of two Gaussian blurs (sigma 0.8 and 2 pixels), divided by that of
    the square. Finer detail is left out, because it contains sensor noise: a noisy blurred face would seem sharp.
    """
    whole = grey.astype(np.float32)
    contrast = float(whole.std())
    if contrast < 1:
        return 0.0
    return float((cv2.GaussianBlur(whole, (0, 0), 0.8) - cv2.GaussianBlur(whole, (0, 0), 2.0)).std()) / contrast


def turn(landmarks: tuple[tuple[float, float], ...]) -> float:
    """Return how far a head is turned to a side: about 0 for a frontal face, 0.5 for a half-turned one.

    It is the nose's distance from the midpoint between the eyes, along the line through the eyes, in units of the
    distance of the eyes. Landmarks are those of `fer_stream.types.Face`; without them, 0 is returned.
    """
    if len(landmarks) < 3:
        return 0.0
    (lx, ly), (rx, ry), (nx, ny) = landmarks[:3]
    along_x, along_y = rx - lx, ry - ly
    distance = math.hypot(along_x, along_y)
    if distance < 1e-6:
        return math.inf
    return abs((nx - (lx + rx) / 2) * along_x + (ny - (ly + ry) / 2) * along_y) / distance**2


def skew(landmarks: tuple[tuple[float, float], ...]) -> float:
    """Return the angle between the lines through the eyes and through the mouth, 0 to 180 degrees.

    The larger it is, the less certain is the roll of the head.

    Landmarks are those of `fer_stream.types.Face`; unless there are five, 0 is returned.
    """
    if len(landmarks) != 5:
        return 0.0
    return abs((roll(landmarks[:2]) - roll(landmarks[3:]) + 180) % 360 - 180)


def _ramp(value: float, ends: tuple[float, float]) -> float:
    """Interpolate linearly: 0 at and before ``ends[0]``, 1 at and after ``ends[1]``, which may be the smaller one."""
    return min(max((value - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)
