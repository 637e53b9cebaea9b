"""Blanks masked regions of pictures, and makes faces unrecognisable in pictures that are shown to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.imaging.yuv import Yuv

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fer_stream.types import Box

CELLS = 6
"""Blocks across and down to which a hidden face and its margin are reduced. Sixteen blocks are enough to recognise a
known person (Harmon and Julesz 1973, doi:10.1126/science.180.4091.1194). Unlike a mild blur, block averages cannot be
undone."""

MARGIN = 0.25
"""A face is hidden this far beyond its box, in units of the box's width and height, to include hair and ears."""


def hide_faces(image: NDArray[np.uint8], boxes: Iterable[Box]) -> NDArray[np.uint8]:
    """Return a copy of ``image`` (uint8 ``[H, W, 3]``) in which faces in the boxes cannot be recognised."""
    hidden = image.copy()
    height, width = image.shape[:2]
    for x1, y1, x2, y2 in boxes:
        across, down = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
        left, right = max(int(x1 - across), 0), min(int(x2 + across) + 1, width)
        top, bottom = max(int(y1 - down), 0), min(int(y2 + down) + 1, height)
        if right <= left or bottom <= top:
            continue
        part = hidden[top:bottom, left:right]
        few = cv2.resize(part, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
        hidden[top:bottom, left:right] = cv2.resize(few, part.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(hidden, np.uint8)


def mask(image: NDArray[np.uint8] | Yuv, masks: list[tuple[float, float, float, float]]) -> NDArray[np.uint8] | Yuv:
    """Blank regions of ``image`` (uint8 ``[H, W, 3]``, or planar) in place, or in a copy if it is read-only.

    ``masks`` are ``(x1, y1, x2, y2)`` as fractions of width and height, rounded outwards to whole pixels, and in a
    planar picture to whole samples of chroma.
    """
    if not masks:
        return image
    if isinstance(image, Yuv):
        return _mask_planes(image, masks)
    image = image if image.flags.writeable else image.copy()
    height, width = image.shape[:2]
    for x1, y1, x2, y2 in masks:
        image[int(y1 * height) : int(np.ceil(y2 * height)), int(x1 * width) : int(np.ceil(x2 * width))] = 0
    return image


def _mask_planes(image: Yuv, masks: list[tuple[float, float, float, float]]) -> Yuv:
    if not all(plane.flags.writeable for plane in (image.y, image.u, image.v)):
        image = Yuv.from_i420(image.i420().copy(), image.colour)
    height, width = image.u.shape
    for x1, y1, x2, y2 in masks:
        top, bottom = int(y1 * height), int(np.ceil(y2 * height))
        left, right = int(x1 * width), int(np.ceil(x2 * width))
        image.y[2 * top : 2 * bottom, 2 * left : 2 * right] = 0 if image.full else 16
        image.u[top:bottom, left:right] = image.v[top:bottom, left:right] = 128
    return image
