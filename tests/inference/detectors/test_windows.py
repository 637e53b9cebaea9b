"""Resizing by averages over windows: the boxes that are cut out."""

from __future__ import annotations

import numpy as np

from fer_stream.inference.detectors.windows import clipped


def test_boxes_are_clipped_to_the_image_and_those_outside_are_marked() -> None:
    edges, inside = clipped(np.array([[-5.5, 2.9, 300, 300], [130, 0, 150, 20]], np.float32), 90, 120)
    assert edges[0].tolist() == [0, 1, 120, 90]
    assert inside.tolist() == [True, False]
