"""How much a look at a face is worth: less if it is small, blurred, turned away or cut off by the picture's edge.

The worst of four parts, each 1 where nothing is wrong and 0 where nothing can be told, with a straight ramp between.
Size and sharpness follow what our first classifier lost on faces that FER+'s people agree on, shrunk and blurred: of
85% right it kept 80% at 32 pixels, 72% at 24, 50% at 16; 76% at a sharpness of 0.19, 61% at 0.15 and 50% at 0.12.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.imaging.geometry import area, size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fer_stream.types import Face

SIDE = 48
"""Pixels of the grey square on which sharpness is judged: a classifier sees no more than that."""

SMALL = (14.0, 34.0)
"""Size of the box in pixels, ``sqrt(width * height)``."""

BLURRED = (0.1, 0.18)
"""See `sharpness`."""

TURNED = (0.75, 0.45)
"""How far the nose is from between the eyes, in units of the distance of the eyes."""

CUT_OFF = (0.6, 0.9)
"""Share of the box that lies in the picture."""


def of(image: NDArray[np.uint8], face: Face) -> float:
    """Return the weight of a face, 0 to 1, in ``image`` (uint8 ``[H, W, 3]``, BGR)."""
    x1, y1, x2, y2 = face.box
    height, width = image.shape[:2]
    left, top = max(int(x1), 0), max(int(y1), 0)
    right, bottom = min(math.ceil(x2), width), min(math.ceil(y2), height)
    if left >= right or top >= bottom:
        return 0.0
    seen = image[top:bottom, left:right]
    if max(seen.shape[:2]) > 4 * SIDE:  # cheaper, and as good: what is finer than the square does not count
        seen = seen[:: seen.shape[0] // (2 * SIDE) or 1, :: seen.shape[1] // (2 * SIDE) or 1]
    grey = cv2.resize(cv2.cvtColor(seen, cv2.COLOR_BGR2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    inside = (right - left) * (bottom - top) / area(face.box)
    return min(
        _ramp(size(face.box), SMALL),
        judge_sharpness(np.asarray(grey, np.uint8)),
        _ramp(turn(face.landmarks), TURNED),
        _ramp(inside, CUT_OFF),
    )


def judge_sharpness(grey: NDArray[np.uint8]) -> float:
    """Return what the sharpness of ``grey`` (uint8 ``[48, 48]``) alone makes a look worth, 0 to 1."""
    return _ramp(sharpness(grey), BLURRED)


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Return which share of the contrast in ``grey`` (uint8 ``[48, 48]``) is detail, 0 to 1; 0 for a plain square.

    The standard deviation of what lies between two blurs (0.8 and 2 pixels), over that of the whole. What is finer is
    left out: that is where a sensor's noise is, and a blurred face with noise would pass for a sharp one.
    """
    whole = grey.astype(np.float32)
    contrast = float(whole.std())
    if contrast < 1:
        return 0.0
    return float((cv2.GaussianBlur(whole, (0, 0), 0.8) - cv2.GaussianBlur(whole, (0, 0), 2.0)).std()) / contrast


def turn(landmarks: tuple[tuple[float, float], ...]) -> float:
    """Return how far a head is turned: the nose's way from between the eyes, in units of the distance of the eyes.

    Landmarks are those of `fer_stream.types.Face`; without them nothing is known, and 0 is returned. A head that looks
    straight ahead has about 0, one half turned to a side 0.5.
    """
    if len(landmarks) < 3:
        return 0.0
    (lx, ly), (rx, ry), (nx, ny) = landmarks[:3]
    along_x, along_y = rx - lx, ry - ly
    distance = math.hypot(along_x, along_y)
    if distance < 1e-6:
        return math.inf
    return abs((nx - (lx + rx) / 2) * along_x + (ny - (ly + ry) / 2) * along_y) / distance**2


def _ramp(value: float, ends: tuple[float, float]) -> float:
    """Return 0 at and before the first of two ends, 1 at and after the second one; they may fall."""
    return min(max((value - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)
