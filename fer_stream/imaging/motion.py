"""Finds where a picture changed since it was last searched, by comparing small thumbnails.

A face that is new must have changed the pixels where it is, so between two scans of the whole picture only what
changed is searched. Thumbnails are compared cell by cell with how each cell looked when it was last searched: slow
changes add up until they count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.types import THUMBNAIL, Region

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fer_stream.types import Box

ROWS, COLUMNS = THUMBNAIL

SAMPLES = 4
"""Pixels a cell, down and across: enough to average noise out, and no need to read the whole picture."""

CHANGED = 8
"""Grey levels by which a cell differs once something has moved in it; a sensor's noise, averaged, has one or two."""

MARGIN = 1
"""Cells around a change that are searched with it."""


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture (uint8 ``[H, W, 3]``, BGR) in grey, uint8 ``[36, 64]``."""
    height, width = image.shape[:2]
    rows = np.arange(ROWS * SAMPLES) * height // (ROWS * SAMPLES)
    columns = np.arange(COLUMNS * SAMPLES) * width // (COLUMNS * SAMPLES)
    green = image[:, :, 1][np.ix_(rows, columns)]
    cells = green.reshape(ROWS, SAMPLES, COLUMNS, SAMPLES).mean(axis=(1, 3))
    return np.asarray(cells, np.uint8)


def changed(now: NDArray[np.uint8], before: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which cells of two thumbnails differ, with a margin around them: bool ``[36, 64]``."""
    differs = (np.abs(now.astype(np.int16) - before) >= CHANGED).astype(np.uint8)
    side = 2 * MARGIN + 1
    return np.asarray(cv2.dilate(differs, np.ones((side, side), np.uint8)) > 0)


def cover(cells: NDArray[np.bool_], boxes: Iterable[Box], height: int, width: int) -> None:
    """Clear the cells that lie in boxes of a picture of this size: the faces there are known already."""
    for x1, y1, x2, y2 in boxes:
        top, bottom = (min(max(round(y / height * ROWS), 0), ROWS) for y in (y1, y2))
        left, right = (min(max(round(x / width * COLUMNS), 0), COLUMNS) for x in (x1, x2))
        cells[top:bottom, left:right] = False


def regions(cells: NDArray[np.bool_], height: int, width: int) -> list[Region]:
    """Return rectangles of a picture of this size that hold all cells marked."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(cells.astype(np.uint8))
    found = []
    for x, y, columns, rows, _ in stats[1:count].tolist():
        found.append(
            Region(
                x * width // COLUMNS,
                y * height // ROWS,
                -(-(x + columns) * width // COLUMNS),
                -(-(y + rows) * height // ROWS),
            )
        )
    return found
