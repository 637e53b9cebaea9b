"""Finds where a picture changed since it was last searched, by comparing small thumbnails.

A new face must have changed the pixels at its position. Therefore only changed regions are searched between two full
scans. Each cell of the thumbnail is compared with its value when it was last searched, so that slow changes add up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.imaging.yuv import Yuv
from fer_stream.types import THUMBNAIL, Region

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fer_stream.types import Box

ROWS, COLUMNS = THUMBNAIL

SAMPLES = 4
"""Pixels sampled per cell in each direction: enough to average out noise without reading the whole picture."""

CHANGED = 8
"""Minimum difference in grey levels for a cell to count as changed. Averaged sensor noise is one or two levels."""

MARGIN = 1
"""Number of cells around a changed cell that are searched, too."""


def thumbnail(image: NDArray[np.uint8] | Yuv) -> NDArray[np.uint8]:
    """Return the thumbnail of a picture, uint8 ``[36, 64]``: its luma, or the green channel of BGR pixels."""
    height, width = image.shape[:2]
    rows = np.arange(ROWS * SAMPLES) * height // (ROWS * SAMPLES)
    columns = np.arange(COLUMNS * SAMPLES) * width // (COLUMNS * SAMPLES)
    brightness = image.y if isinstance(image, Yuv) else image[:, :, 1]
    cells = brightness[np.ix_(rows, columns)].reshape(ROWS, SAMPLES, COLUMNS, SAMPLES).mean(axis=(1, 3))
    return np.asarray(cells, np.uint8)


def changed(now: NDArray[np.uint8], before: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which cells of two thumbnails differ, enlarged by `MARGIN`: bool ``[36, 64]``."""
    differs = (np.abs(now.astype(np.int16) - before) >= CHANGED).astype(np.uint8)
    side = 2 * MARGIN + 1
    return np.asarray(cv2.dilate(differs, np.ones((side, side), np.uint8)) > 0)


def cover(cells: NDArray[np.bool_], boxes: Iterable[Box], height: int, width: int) -> None:
    """Clear the cells covered by boxes: their faces are known. ``height`` and ``width`` of the picture in pixels."""
    for x1, y1, x2, y2 in boxes:
        top, bottom = (min(max(round(y / height * ROWS), 0), ROWS) for y in (y1, y2))
        left, right = (min(max(round(x / width * COLUMNS), 0), COLUMNS) for x in (x1, x2))
        cells[top:bottom, left:right] = False


def regions(cells: NDArray[np.bool_], height: int, width: int) -> list[Region]:
    """Return rectangles that hold all marked cells, in pixels of a picture of this size."""
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
