"""MTCNN in onnxruntime: the boxes of facenet-pytorch without torch, at twice its speed or better.

Three nets look one after the other (Zhang et al. 2016, https://arxiv.org/abs/1604.02878): P-Net proposes, over a
pyramid of the image; R-Net refines 24x24 crops of what it proposed; O-Net decides, on 48x48 crops, and adds landmarks.

The weights were trained with, and the boxes depend on, plain averages over windows with whole-numbered edges (torch's
adaptive average pooling): `fer_stream.inference.detectors.windows` makes them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from fer_stream.imaging.geometry import centre as centre_of
from fer_stream.imaging.geometry import contained, overlap
from fer_stream.imaging.pixels import pixels
from fer_stream.inference import models
from fer_stream.inference.detectors.windows import Windows, clipped, patches
from fer_stream.types import Box, Face, Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fer_stream.settings.tree import DetectorSettings
    from fer_stream.types import Expected

    Floats = NDArray[np.float32]
    Ints = NDArray[np.intp]

STRIDE, CELL = 2, 12
"""P-Net's step from window to window, and a window's size, in pixels of a pyramid level."""

KEEP = 0.5
"""Least score of a face that is known already: less than to be found, which costs nothing and bridges weak moments."""

CERTAIN = 0.95
"""R-Net's score above which nobody else is asked whether a known face is still there."""

AROUND = 1.5
"""How far around its expected place a face that was missed is searched for, in its size, to each side."""

SAME = 0.35
"""Overlap (IoU) from which two boxes are one face's."""

SPARSE, PROMISING, ALIKE = 0.5, 0.8, 0.5
"""Of a search for new faces: the ratio of its levels, P-Net's least score, and the overlap from which the better one of
two proposals is enough. It comes again soon, so it may be coarser than `MTCNN.detect`: at half the price it finds 98%.
"""

DOUBLE = 0.5
"""Share of the smaller box from which two boxes are one face."""

APART = 100_000
"""Pixels by which the boxes of one square are shifted from those of the next, so that none hides another's."""

BATCH = 16
"""Most crops in one run: R-Net's and O-Net's time for a crop is flat in the batch, their memory is not."""


def load(settings: DetectorSettings) -> MTCNN:
    """Return the detector that the settings describe (the entry point).

    Raises:
        ModelError: a shipped net is missing or damaged.
    """
    return MTCNN(settings.min_face, settings.thresholds, settings.factor, settings.provider)


class MTCNN:
    """The detector. Finds faces of ``min_face`` pixels and more; state is nothing but the nets.

    ``thresholds`` are the least scores to pass P-, R- and O-Net, ``factor`` is the ratio of the pyramid's levels,
    ``provider`` what runs the nets (`fer_stream.inference.models.PROVIDERS`).
    """

    def __init__(
        self,
        min_face: int = 40,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
        provider: str = "cpu",
    ) -> None:
        self.min_face, self.thresholds, self.factor = min_face, thresholds, factor
        self._pnet, self._rnet, self._onet = (
            models.shipped(f"mtcnn-{net}.onnx", provider) for net in ("pnet", "rnet", "onet")
        )

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces in ``image`` (uint8 ``[H, W, 3]``, BGR), surest first, equals from top left on.

        Boxes are facenet-pytorch's: floats in pixels of the image, not clipped to it. An image smaller than
        ``min_face`` has no faces.

        Raises:
            ValueError: it is not such a picture (`fer_stream.imaging.pixels`).
        """
        image = pixels(image)
        scales = self._scales(min(image.shape[:2]), self.factor)
        return self._cascade(image, scales) if scales else []

    def _cascade(self, image: NDArray[np.uint8], scales: list[float], known: Floats | None = None) -> list[Face]:
        windows = Windows(image)
        if known is None:
            boxes = self._propose(windows, scales, self.thresholds[0], 0.7)
        else:
            boxes = self._propose(windows, scales, max(self.thresholds[0], PROMISING), ALIKE)
            boxes = boxes[(_overlaps(boxes, known) < SAME).all(axis=1)]
        boxes = self._refine(windows, boxes)
        return self._decide(windows, boxes)

    def look(
        self, image: NDArray[np.uint8], expected: Sequence[Expected], regions: Sequence[Region]
    ) -> tuple[list[Face | None], list[Face]]:
        """Return each expected face as it is now, or ``None`` where it is not there; and those new in ``regions``.

        An expected face costs a hundredth of a scan: it is checked by R-Net, and by O-Net where it is ``due`` or R-Net
        is in doubt; only O-Net gives landmarks. Where both miss it, it is searched for around its place. What P-Net
        proposes in a region is not looked at further where a known face is.

        Raises:
            ValueError: as `detect`.
        """
        image = pixels(image)
        found = self._follow(image, expected)
        known = [face for face in found if face is not None]
        new: list[Face] = []
        for region in regions:
            for face in self._search(image, region, [other.box for other in (*known, *new)]):
                if all(contained(face.box, other.box) <= DOUBLE for other in (*known, *new)):
                    new.append(face)
        return found, new

    def _follow(self, image: NDArray[np.uint8], expected: Sequence[Expected]) -> list[Face | None]:
        found: list[Face | None] = [None] * len(expected)
        boxes = _squared(np.array([face.box for face in expected], np.float32).reshape(-1, 4))
        scores, offsets, inside = self._glance(self._rnet, ("scores", "offsets"), image, boxes, 24)
        moved = _moved(boxes, offsets)
        sure = inside & (scores > KEEP)
        close = sure & (np.array([face.due for face in expected], bool) | (scores < CERTAIN))
        for i in np.flatnonzero(sure & ~close).tolist():
            found[i] = Face(Box(*moved[i].tolist()), float(scores[i]))
        closer = np.flatnonzero(close)
        squares = _squared(moved[closer])
        outputs = ("scores", "offsets", "landmarks")
        scores, offsets, landmarks, inside = self._glance(self._onet, outputs, image, squares, 48)
        decided = _faces(squares, scores, offsets, landmarks)
        for i, face, right in zip(closer.tolist(), decided, inside & (scores > KEEP), strict=True):
            if right:
                found[i] = face
        _part(expected, found)
        missed = [i for i, face in enumerate(found) if face is None]
        taken = [face.box for face in found if face is not None]
        for i, again in zip(missed, self._find(image, [expected[i].box for i in missed], taken), strict=True):
            found[i] = again
        return found

    def _find(self, image: NDArray[np.uint8], places: Sequence[Box], taken: Sequence[Box]) -> list[Face | None]:
        """Return for each place where a face was the nearest one of about the same size that is not taken.

        All places go through the nets together, each at the scale at which its face is of P-Net's size.
        """
        if not places:
            return []
        sizes = np.array([max(math.sqrt((x2 - x1) * (y2 - y1)), CELL) for x1, y1, x2, y2 in places])
        centres = np.array([centre_of(box) for box in places])
        corners = (centres - AROUND * sizes[:, None]).astype(np.intp)
        edges = np.hstack((corners, (centres + AROUND * sizes[:, None]).astype(np.intp)))
        pixels = patches(image, edges, round(2 * AROUND * CELL) + 1)
        at, boxes = self._promising(pixels, edges, np.array(taken, np.float32).reshape(-1, 4))
        scores, offsets, inside = self._glance(self._rnet, ("scores", "offsets"), image, boxes, 24)
        passed = inside & (scores > self.thresholds[1])
        at, boxes = at[passed], _squared(_moved(boxes[passed], offsets[passed]))
        keep = _suppress(boxes + at[:, None] * APART, scores[passed], 0.7)
        at, boxes = at[keep], boxes[keep]
        outputs = ("scores", "offsets", "landmarks")
        scores, offsets, landmarks, inside = self._glance(self._onet, outputs, image, boxes, 48)
        faces = _faces(boxes, scores, offsets, landmarks)
        found: list[Face | None] = []
        for i, centre in enumerate(centres.tolist()):
            here = [faces[j] for j in np.flatnonzero((at == i) & inside & (scores > self.thresholds[2])).tolist()]
            free = [face for face in here if all(contained(face.box, other) <= DOUBLE for other in taken)]
            face = min(free, key=lambda face: math.dist(centre_of(face.box), centre), default=None)
            taken = taken if face is None else [*taken, face.box]
            found.append(face)
        return found

    def _promising(self, pixels: Floats, edges: Ints, known: Floats) -> tuple[Ints, Floats]:
        """Return what P-Net proposes in squares of an image of these edges: which square it is in, and its box."""
        scores, offsets = self._pnet.run(("scores", "offsets"), {"pixels": pixels})
        at, y, x = np.nonzero(scores >= max(self.thresholds[0], PROMISING))
        scores, offsets = scores[at, y, x], offsets[at, :, y, x]
        corner = np.stack((x, y), axis=1).astype(np.float32) * STRIDE
        scale = (edges[at, 2:3] - edges[at, :1]) / np.float32(pixels.shape[3])
        boxes = np.floor(np.hstack((corner + 1, corner + CELL)) * scale).astype(np.float32) + np.tile(edges[at, :2], 2)
        keep = _suppress(boxes + at[:, None] * APART, scores, ALIKE)
        at, boxes, offsets = at[keep], boxes[keep], offsets[keep]
        boxes = _squared(boxes + offsets * np.tile(boxes[:, 2:] - boxes[:, :2], 2)).astype(np.float32)
        new = (_overlaps(boxes, known) < SAME).all(axis=1)
        return at[new], boxes[new]

    def _search(self, image: NDArray[np.uint8], region: Region, known: Sequence[Box]) -> list[Face]:
        """Return the faces in a region of the image that are not known."""
        height, width = image.shape[:2]
        x1, y1 = max(region.x1, 0), max(region.y1, 0)
        part = image[y1 : max(min(region.y2, height), 0), x1 : max(min(region.x2, width), 0)]
        scales = self._scales(min(part.shape[:2]), SPARSE)
        if not scales:
            return []
        there = np.array(known, np.float32).reshape(-1, 4) - np.array([x1, y1, x1, y1], np.float32)
        return [_shifted(face, x1, y1) for face in self._cascade(part, scales, there)]

    def _glance(
        self, net: models.Model, outputs: tuple[str, ...], image: NDArray[np.uint8], boxes: Floats, size: int
    ) -> list[NDArray[Any]]:
        """Return a net's outputs for each box, and which boxes lie in the image at all."""
        edges, inside = clipped(boxes, *image.shape[:2])
        crops = np.zeros((len(boxes), 3, size, size), np.float32)
        crops[inside] = patches(image, edges[inside], size)
        batches = [net.run(outputs, {"pixels": crops[i : i + BATCH]}) for i in range(0, max(len(boxes), 1), BATCH)]
        return [*(np.concatenate(parts) for parts in zip(*batches, strict=True)), inside]

    def _scales(self, side: int, factor: float) -> list[float]:
        scales, scale = [], CELL / self.min_face
        while side * scale >= CELL:
            scales.append(scale)
            scale *= factor
        return scales

    def _propose(self, windows: Windows, scales: list[float], threshold: float, alike: float) -> Floats:
        found = [np.empty((0, 9), np.float32)]
        for scale in scales:
            scores, offsets = self._pnet.run(("scores", "offsets"), {"pixels": windows.level(scale)})
            y, x = np.nonzero(scores[0] >= threshold)
            corner = np.stack((x, y), axis=1).astype(np.float32) * STRIDE
            scores, offsets = scores[0, y, x], offsets[0, :, y, x]
            boxes = np.floor(np.hstack((corner + 1, corner + CELL)) / np.float32(scale))
            keep = _suppress(boxes, scores, 0.5)
            found.append(np.hstack((boxes, scores[:, None], offsets))[keep])
        proposals = np.concatenate(found)
        proposals = proposals[_suppress(proposals[:, :4], proposals[:, 4], alike)]
        boxes, offsets = proposals[:, :4], proposals[:, 5:]
        return _squared(boxes + offsets * np.tile(boxes[:, 2:] - boxes[:, :2], 2))

    def _refine(self, windows: Windows, boxes: Floats) -> Floats:
        boxes, scores, offsets = self._look(self._rnet, ("scores", "offsets"), windows, boxes, 24, self.thresholds[1])
        keep = _suppress(boxes, scores, 0.7)
        return _squared(_moved(boxes[keep], offsets[keep]))

    def _decide(self, windows: Windows, boxes: Floats) -> list[Face]:
        boxes, scores, offsets, landmarks = self._look(
            self._onet, ("scores", "offsets", "landmarks"), windows, boxes, 48, self.thresholds[2]
        )
        faces = _faces(boxes, scores, offsets, landmarks)
        return [faces[i] for i in _suppresscontained(_moved(boxes, offsets), scores, 0.7)]

    def _look(
        self, net: models.Model, outputs: tuple[str, ...], windows: Windows, boxes: Floats, size: int, threshold: float
    ) -> list[Floats]:
        """Return the boxes whose crop scores above ``threshold``, and the net's outputs for them."""
        edges, inside = clipped(boxes, windows.height, windows.width)
        boxes, edges = boxes[inside], edges[inside]
        batches = [  # an empty one where there is no box: the nets know the shapes of their outputs
            net.run(outputs, {"pixels": windows.crops(edges[i : i + BATCH], size)})
            for i in range(0, max(len(edges), 1), BATCH)
        ]
        results = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
        passed = results[0] > threshold
        return [boxes[passed], *(result[passed] for result in results)]


def _moved(boxes: Floats, offsets: Floats) -> Floats:
    """Return boxes moved by a net's offsets, which are in units of the box (its last pixel included)."""
    return boxes + offsets * np.tile(boxes[:, 2:] - boxes[:, :2] + 1, 2)


def _part(expected: Sequence[Expected], found: list[Face | None]) -> None:
    """Where one face was found for two that were expected, leave it to the one that it lies nearer to."""
    nearness = [overlap(e.box, face.box) if face else 0.0 for e, face in zip(expected, found, strict=True)]
    kept: list[Face] = []
    for i in sorted(range(len(found)), key=lambda i: -nearness[i]):
        face = found[i]
        if face is not None and any(overlap(face.box, other.box) > SAME for other in kept):
            found[i] = None
        elif face is not None:
            kept.append(face)


def _faces(boxes: Floats, scores: Floats, offsets: Floats, landmarks: Floats) -> list[Face]:
    """Return what O-Net says of boxes."""
    corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2] + 1
    points = landmarks.reshape(-1, 2, 5).transpose(0, 2, 1) * size + corner - 1
    moved = _moved(boxes, offsets)
    return [
        Face(Box(*box), score, tuple((x, y) for x, y in five))
        for box, score, five in zip(moved.tolist(), scores.tolist(), points.tolist(), strict=True)
    ]


def _overlaps(a: Floats, b: Floats) -> Floats:
    """Return the intersection over union of each of N boxes with each of M: ``[N, M]``."""
    corner, end = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    common = np.maximum(end - corner, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    union: Floats = common / (areas[0][:, None] + areas[1] - common)
    return union


def _shifted(face: Face, x: int, y: int) -> Face:
    """Return a face that was found in a part of an image which begins at ``(x, y)``."""
    box = Box(face.box.x1 + x, face.box.y1 + y, face.box.x2 + x, face.box.y2 + y)
    return Face(box, face.confidence, tuple((a + x, b + y) for a, b in face.landmarks))


def _squared(boxes: Floats) -> Floats:
    """Return boxes grown to squares about their centres."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + size * np.float32(0.5) - side * np.float32(0.5)
    return np.hstack((corner, corner + side))


def _suppress(boxes: Floats, scores: Floats, threshold: float) -> Ints:
    """Return which boxes overlap (IoU) no better one by more than ``threshold``, best first."""
    rectangles = np.hstack((boxes[:, :2], boxes[:, 2:] - boxes[:, :2])).astype(np.float64)
    keep = cv2.dnn.NMSBoxes(cast("Any", rectangles), cast("Any", scores), 0.0, threshold)  # typed for lists alone
    return np.asarray(keep, np.intp)


def _suppresscontained(boxes: Floats, scores: Floats, threshold: float) -> Ints:
    """Return which boxes share with no better one more than ``threshold`` of the smaller's area, best first."""
    order = np.lexsort((boxes[:, 0], boxes[:, 1], -scores))
    corner, end = boxes[order, :2], boxes[order, 2:]
    area = (end - corner + 1).prod(axis=1)
    keep: list[int] = []
    for i in range(len(order)):
        shared = np.minimum(end[i], end[keep]) - np.maximum(corner[i], corner[keep]) + 1
        if (np.maximum(shared, 0).prod(axis=1) <= threshold * np.minimum(area[i], area[keep])).all():
            keep.append(i)
    return order[keep]
