"""MTCNN in onnxruntime: gives the boxes of facenet-pytorch without torch, at least twice as fast.

Three nets run in sequence (Zhang et al. 2016, https://arxiv.org/abs/1604.02878): P-Net proposes boxes, over a pyramid
of the image; R-Net refines them on 24x24 crops; O-Net decides on 48x48 crops, and adds landmarks.

The weights were trained on images resized by averages over windows with integer edges (torch's adaptive average
pooling), and the boxes depend on it. `MTCNN.detect` resizes in the same way (`fer_stream.inference.detectors.windows`).
`MTCNN.look` resizes approximately, which is quicker (`fer_stream.inference.detectors.parts`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from fer_stream.imaging import quality
from fer_stream.imaging.geometry import centre as centre_of
from fer_stream.imaging.geometry import contained, overlap, roll, size
from fer_stream.imaging.pixels import pixels
from fer_stream.imaging.yuv import Yuv
from fer_stream.inference import models
from fer_stream.inference.detectors.parts import Parts
from fer_stream.inference.detectors.windows import Windows, clipped
from fer_stream.types import Box, Face, Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fer_stream.settings.tree import DetectorSettings
    from fer_stream.types import Expected

    Floats = NDArray[np.float32]
    Ints = NDArray[np.intp]

STRIDE, CELL = 2, 12
"""P-Net's stride, and the side of its window, in pixels of a pyramid level."""

KEEP = 0.5
"""Minimum score of a known face. It is below the thresholds for new faces, so that tracks survive weak frames."""

CERTAIN = 0.95
"""R-Net's score from which a known face is accepted without O-Net, or although O-Net does not find it."""

AROUND = 1.5
"""A missed face is searched for this far around its expected centre, to each side, in units of its size."""

LEANING = 0.9
"""Minimum score of a new face in a turned picture: it is higher, because each rotation may add false detections."""

SAME_IOU = 0.35
"""Intersection over union (IoU) from which two boxes are the same face."""

SAME_SHARE = 0.5
"""Share of the smaller of two faces above which their overlap makes them the same face."""

# A search for new faces is repeated soon, so these values may be coarser than those of `MTCNN.detect`.

SPARSE = 0.5
"""Ratio of pyramid levels in a search of a part of the picture."""

PROMISING = 0.8
"""P-Net's minimum score."""

ALIKE_LEAN = 0.85
"""Cosine of the angle up to which two views agree about how far a head leans."""

ALIKE = 0.5
"""Overlap (IoU) above which only the better of two proposals of P-Net is kept."""

APART = 100_000
"""Pixels by which the boxes of different squares are moved apart, so that none suppresses a box of another square."""

BATCH = 16
"""Maximum number of crops in one run: larger batches need more memory, and are no faster per crop."""


def load(settings: DetectorSettings) -> MTCNN:
    """Return the detector that the settings describe (the entry point).

    Raises:
        ModelError: a shipped net is missing or damaged.
    """
    return MTCNN(settings.min_face, settings.thresholds, settings.factor, settings.provider, settings.rotations)


class MTCNN:
    """The detector. It finds faces of at least ``min_face`` pixels, and keeps no state between images.

    ``thresholds`` are the minimum scores of P-, R- and O-Net, ``factor`` is the ratio of pyramid levels, and
    ``provider`` is one of `fer_stream.inference.providers.PROVIDERS`.
    """

    def __init__(
        self,
        min_face: int = 40,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
        provider: str = "cpu",
        rotations: Sequence[float] = (),
    ) -> None:
        self.min_face, self.thresholds, self.factor = min_face, thresholds, factor
        self.rotations = tuple(rotations)
        self._pnet, self._rnet, self._onet = (
            models.shipped(f"mtcnn-{net}.onnx", provider) for net in ("pnet", "rnet", "onet")
        )

    planar = True
    """It takes planar pictures, too (`fer_stream.plugins.Detector`), and converts only what it looks at."""

    concurrent = True

    def detect(self, image: NDArray[np.uint8] | Yuv) -> list[Face]:
        """Return the faces in ``image`` (uint8 ``[H, W, 3]``, BGR; or planar), in order of falling confidence.

        Faces of equal confidence are in order of ``y1``, then ``x1``. Boxes are those of facenet-pytorch: floats in
        pixels, not clipped to the image. An image smaller than ``min_face`` has no faces.

        Raises:
            ValueError: ``image`` is not such an array (`fer_stream.imaging.pixels`).
        """
        bgr = image.decode() if isinstance(image, Yuv) else pixels(image)
        scales = self._scales(min(bgr.shape[:2]), self.factor)
        if not scales:
            return []
        faces = self._cascade(Windows(bgr), scales)
        if not self.rotations:
            return faces
        picture = Parts(image if isinstance(image, Yuv) else bgr)
        whole = Region(0, 0, picture.width, picture.height)
        found = [(face, _rank(face, 0)) for face in faces]
        for angle in self.rotations:
            found += self._view(picture, whole, [], angle, coarse=False)
        return sorted(_best(_agreed(found)), key=lambda face: (-face.confidence, face.box.y1, face.box.x1))

    def _cascade(
        self, windows: Windows | Parts, scales: list[float], known: Floats | None = None, *, coarse: bool = False
    ) -> list[Face]:
        """Run the three nets. ``known``, boxes ``[N, 4]``: search for other faces only; ``coarse``: and quickly."""
        if coarse:
            boxes = self._propose(windows, scales, max(self.thresholds[0], PROMISING), ALIKE)
        else:
            boxes = self._propose(windows, scales, self.thresholds[0], 0.7)
        if known is not None:
            boxes = boxes[(_overlaps(boxes, known) < SAME_IOU).all(axis=1)]
        boxes = self._refine(windows, boxes)
        return self._decide(windows, boxes)

    def look(
        self, image: NDArray[np.uint8] | Yuv, expected: Sequence[Expected], regions: Sequence[Region]
    ) -> tuple[list[Face | None], list[Face]]:
        """Return each expected face as it is now, or ``None`` if it was not found, and the new faces in ``regions``.

        An expected face costs a hundredth of a full scan: R-Net checks it, and O-Net if it is ``due`` or R-Net's score
        is below `CERTAIN`. Only O-Net gives landmarks. A face that neither net finds is searched for around its
        expected position. In regions, P-Net's proposals that overlap a known face are discarded.

        Raises:
            ValueError: as `detect`.
        """
        picture = Parts(image if isinstance(image, Yuv) else pixels(image))
        found = self._follow(picture, expected)
        known = [face for face in found if face is not None]
        new: list[Face] = []
        for region in regions:
            new += self._search(picture, region, [*known, *new])
        return found, new

    def _follow(self, picture: Parts, expected: Sequence[Expected]) -> list[Face | None]:
        """Return each expected face as it is now, or ``None`` if it was not found.

        A face of which the nets are not certain is looked at in turned pictures, too; the best view counts.
        """
        found: list[Face | None] = [None] * len(expected)
        ranks = [0.0] * len(expected)
        views = [picture, *(Parts(picture.image, angle=angle) for angle in self.rotations)]
        for view in views:
            # The nets are certain of some heads that are upside down, too, so a face that is due is compared in all.
            unsure = [i for i, rank in enumerate(ranks) if rank < CERTAIN or expected[i].due]
            for i, face in zip(unsure, self._check(view, [expected[i] for i in unsure]), strict=True):
                if face is not None and (rank := _rank(face, view.angle)) > ranks[i]:
                    found[i], ranks[i] = face, rank
        _drop_duplicates(expected, found)
        missed = [i for i, face in enumerate(found) if face is None]
        taken = [face.box for face in found if face is not None]
        ranks = [0.0] * len(expected)
        for view in views:
            for i, again in zip(missed, self._find(view, [expected[i].box for i in missed], taken), strict=True):
                if again is not None and (rank := _rank(again, view.angle)) > ranks[i]:
                    found[i], ranks[i] = again, rank
        if self.rotations:  # two views may have found the same face for two expected ones
            _drop_duplicates(expected, found)
        return found

    def _check(self, view: Parts, expected: Sequence[Expected]) -> list[Face | None]:
        """Return each expected face as it is now in a view, or ``None`` if it is not there or leans otherwise."""
        found: list[Face | None] = [None] * len(expected)
        if not expected:
            return found
        boxes = _squared(np.array([view.from_picture(face.box) for face in expected], np.float32))
        scores, offsets, inside = self._run_on_crops(self._rnet, ("scores", "offsets"), view, boxes, 24)
        moved = _moved(boxes, offsets)
        for i in np.flatnonzero(inside & (scores >= CERTAIN)).tolist():
            found[i] = Face(Box(*moved[i].tolist()), float(scores[i]))
        due = np.array([face.due for face in expected], bool)
        closer = np.flatnonzero(inside & (scores > KEEP) & (due | (scores < CERTAIN)))
        squares = _squared(moved[closer])
        outputs = ("scores", "offsets", "landmarks")
        scores, offsets, landmarks, inside = self._run_on_crops(self._onet, outputs, view, squares, 48)
        decided = _faces(squares, scores, offsets, landmarks)
        for i, face, right in zip(closer.tolist(), decided, inside & (scores > KEEP), strict=True):
            certain = found[i]
            if right:
                found[i] = face
            elif certain is not None:  # O-Net's guess of the landmarks is better than none
                found[i] = replace(certain, landmarks=face.landmarks)
        return [None if face is None else view.to_picture(face) for face in found]

    def _find(self, view: Parts, missed: Sequence[Box], taken: Sequence[Box]) -> list[Face | None]:
        """Return for each missed box the nearest face of about the same size that overlaps no box in ``taken``.

        All boxes go through the nets together, each at the scale at which its face has the size of P-Net's window.
        """
        if not missed:
            return []
        sizes = np.array([max(size(box), CELL) for box in missed])
        centres = np.array([centre_of(view.from_picture(box)) for box in missed])
        corners = (centres - AROUND * sizes[:, None]).astype(np.intp)
        edges = np.hstack((corners, (centres + AROUND * sizes[:, None]).astype(np.intp)))
        crops = view.crops(edges, round(2 * AROUND * CELL) + 1)
        known = np.array([view.from_picture(box) for box in taken], np.float32).reshape(-1, 4)
        at, boxes = self._promising(crops, edges, known)
        scores, offsets, inside = self._run_on_crops(self._rnet, ("scores", "offsets"), view, boxes, 24)
        passed = inside & (scores > self.thresholds[1])
        at, boxes = at[passed], _squared(_moved(boxes[passed], offsets[passed]))
        keep = _suppress(boxes + at[:, None] * APART, scores[passed], 0.7)
        at, boxes = at[keep], boxes[keep]
        outputs = ("scores", "offsets", "landmarks")
        scores, offsets, landmarks, inside = self._run_on_crops(self._onet, outputs, view, boxes, 48)
        faces = [view.to_picture(face) for face in _faces(boxes, scores, offsets, landmarks)]
        found: list[Face | None] = []
        for i, before in enumerate(missed):
            here = [faces[j] for j in np.flatnonzero((at == i) & inside & (scores > self.thresholds[2])).tolist()]
            free = [face for face in here if all(contained(face.box, other) <= SAME_SHARE for other in taken)]
            face = min(free, key=lambda face: math.dist(centre_of(face.box), centre_of(before)), default=None)
            taken = taken if face is None else [*taken, face.box]
            found.append(face)
        return found

    def _promising(self, crops: Floats, edges: Ints, known: Floats) -> tuple[Ints, Floats]:
        """Return P-Net's proposals in squares of the picture, without those that overlap a known face.

        Args:
            crops: the resized squares, ``[N, 3, h, h]``.
            edges: the squares' edges in the picture, ``[N, 4]``.
            known: boxes of known faces, ``[M, 4]``.

        Returns:
            For each proposal, the index of its square ``[K]``, and its box in the picture ``[K, 4]``.
        """
        scores, offsets = self._pnet.run(("scores", "offsets"), {"pixels": crops}, joint=True)
        at, y, x = np.nonzero(scores >= max(self.thresholds[0], PROMISING))
        scores, offsets = scores[at, y, x], offsets[at, :, y, x]
        corner = np.stack((x, y), axis=1).astype(np.float32) * STRIDE
        scale = (edges[at, 2:3] - edges[at, :1]) / np.float32(crops.shape[3])
        boxes = np.floor(np.hstack((corner + 1, corner + CELL)) * scale).astype(np.float32) + np.tile(edges[at, :2], 2)
        keep = _suppress(boxes + at[:, None] * APART, scores, ALIKE)
        at, boxes, offsets = at[keep], boxes[keep], offsets[keep]
        boxes = _squared(_moved(boxes, offsets, last=0)).astype(np.float32)
        new = (_overlaps(boxes, known) < SAME_IOU).all(axis=1)
        return at[new], boxes[new]

    def _search(self, picture: Parts, region: Region, known: Sequence[Face]) -> list[Face]:
        """Return the faces in a region of the picture, turned or not, that do not overlap the ``known`` ones."""
        found = [pair for angle in (0.0, *self.rotations) for pair in self._view(picture, region, known, angle)]
        return _best(_agreed(found) if self.rotations else found, known)

    def _view(
        self, picture: Parts, region: Region, known: Sequence[Face], angle: float, *, coarse: bool = True
    ) -> list[tuple[Face, float]]:
        """Return the other faces in a region that is turned by an angle, each with its `_rank`."""
        part = Parts(picture.image, region, angle)
        # The whole picture is not searched again soon, so that search uses all levels.
        scales = self._scales(min(part.height, part.width), self.factor if part.whole else SPARSE)
        if not scales:
            return []
        there = np.array([part.from_picture(face.box) for face in known], np.float32).reshape(-1, 4)
        least = LEANING if angle else 0.0
        seen = self._cascade(part, scales, there, coarse=coarse)
        faces = [part.to_picture(face) for face in seen if face.confidence > least]
        return [(face, _rank(face, angle) if self.rotations else face.confidence) for face in faces]

    def _run_on_crops(
        self, net: models.Model, outputs: tuple[str, ...], picture: Parts, boxes: Floats, size: int
    ) -> list[NDArray[Any]]:
        """Return a net's outputs for each box, and which boxes intersect the picture; for the others they are 0."""
        edges, inside = clipped(boxes, picture.height, picture.width)
        found = _run(net, outputs, picture, edges[inside], size)
        spread = [np.zeros((len(boxes), *part.shape[1:]), part.dtype) for part in found]
        for whole, part in zip(spread, found, strict=True):
            whole[inside] = part
        return [*spread, inside]

    def _scales(self, side: int, factor: float) -> list[float]:
        """Return the scales of the pyramid's levels, falling; ``side`` is the image's shorter side."""
        scales, scale = [], CELL / self.min_face
        while side * scale >= CELL:
            scales.append(scale)
            scale *= factor
        return scales

    def _propose(self, windows: Windows | Parts, scales: list[float], threshold: float, alike: float) -> Floats:
        """Return P-Net's proposals of at least this score, squared; of two with an IoU above ``alike``, the better."""
        found = [np.empty((0, 9), np.float32)]
        for scale, level in zip(scales, windows.levels(scales), strict=True):
            scores, offsets = self._pnet.run(("scores", "offsets"), {"pixels": level}, joint=True)
            y, x = np.nonzero(scores[0] >= threshold)
            corner = np.stack((x, y), axis=1).astype(np.float32) * STRIDE
            scores, offsets = scores[0, y, x], offsets[0, :, y, x]
            boxes = np.floor(np.hstack((corner + 1, corner + CELL)) / np.float32(scale))
            keep = _suppress(boxes, scores, 0.5)
            found.append(np.hstack((boxes, scores[:, None], offsets))[keep])
        proposals = np.concatenate(found)
        proposals = proposals[_suppress(proposals[:, :4], proposals[:, 4], alike)]
        boxes, offsets = proposals[:, :4], proposals[:, 5:]
        return _squared(_moved(boxes, offsets, last=0))

    def _refine(self, windows: Windows | Parts, boxes: Floats) -> Floats:
        boxes, scores, offsets = self._passing(
            self._rnet, ("scores", "offsets"), windows, boxes, 24, self.thresholds[1]
        )
        keep = _suppress(boxes, scores, 0.7)
        return _squared(_moved(boxes[keep], offsets[keep]))

    def _decide(self, windows: Windows | Parts, boxes: Floats) -> list[Face]:
        boxes, scores, offsets, landmarks = self._passing(
            self._onet, ("scores", "offsets", "landmarks"), windows, boxes, 48, self.thresholds[2]
        )
        faces = _faces(boxes, scores, offsets, landmarks)
        return [faces[i] for i in _suppress_contained(_moved(boxes, offsets), scores, 0.7)]

    def _passing(
        self,
        net: models.Model,
        outputs: tuple[str, ...],
        windows: Windows | Parts,
        boxes: Floats,
        size: int,
        threshold: float,
    ) -> list[Floats]:
        """Return the boxes whose crop scores above ``threshold``, and the net's outputs for them."""
        edges, inside = clipped(boxes, windows.height, windows.width)
        results = _run(net, outputs, windows, edges[inside], size)
        passed = results[0] > threshold
        return [boxes[inside][passed], *(result[passed] for result in results)]


def _run(
    net: models.Model, outputs: tuple[str, ...], picture: Windows | Parts, edges: Ints, size: int
) -> list[NDArray[Any]]:
    """Return a net's outputs for rectangles of a picture, given by their edges."""
    starts = range(0, max(len(edges), 1), BATCH)  # an empty batch gives outputs of the right shape
    batches = [
        net.run(outputs, {"pixels": picture.crops(edges[start : start + BATCH], size)}, joint=True) for start in starts
    ]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _moved(boxes: Floats, offsets: Floats, last: int = 1) -> Floats:
    """Return boxes moved by a net's offsets, in units of the box's size: with its last pixel, without it for P-Net."""
    return boxes + offsets * np.tile(boxes[:, 2:] - boxes[:, :2] + last, 2)


def _rank(face: Face, angle: float) -> float:
    """Return how reliable a face is that was found in a view turned by an angle (degrees): its confidence, lowered.

    The nets also find faces that lean in their view, or are upside down, but then they place the landmarks less well:
    the head should be about upright in the view, and the lines through its eyes and its mouth should be parallel.
    """
    if not face.landmarks:
        return face.confidence
    lean, skew = math.radians(roll(face.landmarks) - angle), math.radians(quality.skew(face.landmarks))
    return face.confidence * max(abs(math.cos(lean / 2)) * math.cos(skew), 0.01)


def _agreed(found: Sequence[tuple[Face, float]]) -> list[tuple[Face, float]]:
    """Add to each face's rank the confidence of the same face in other views, if its lean is similar.

    Neighbouring views agree about how far a head leans. A view that shows it upside down agrees with no other.
    """

    def votes(face: Face) -> float:
        lean = roll(face.landmarks)
        others = (other for other, _ in found if other is not face and overlap(other.box, face.box) > SAME_IOU)
        return sum(o.confidence for o in others if math.cos(math.radians(roll(o.landmarks) - lean)) > ALIKE_LEAN)

    return [(face, rank + votes(face)) for face, rank in found]


def _best(found: Sequence[tuple[Face, float]], known: Sequence[Face] = ()) -> list[Face]:
    """Return the faces that overlap little with known or better ones, best rank first; equal ones keep their order."""
    new: list[Face] = []
    for face, _ in sorted(found, key=lambda pair: -pair[1]):
        if all(contained(face.box, other.box) <= SAME_SHARE for other in (*known, *new)):
            new.append(face)
    return new


def _drop_duplicates(expected: Sequence[Expected], found: list[Face | None]) -> None:
    """If the same face was found for two expected faces, keep it only for the one whose box it overlaps most."""
    nearness = [overlap(e.box, face.box) if face else 0.0 for e, face in zip(expected, found, strict=True)]
    kept: list[Face] = []
    for i in sorted(range(len(found)), key=lambda i: -nearness[i]):
        face = found[i]
        if face is not None and any(overlap(face.box, other.box) > SAME_IOU for other in kept):
            found[i] = None
        elif face is not None:
            kept.append(face)


def _faces(boxes: Floats, scores: Floats, offsets: Floats, landmarks: Floats) -> list[Face]:
    """Return the faces that O-Net's outputs describe: ``boxes`` are those of its crops."""
    corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2] + 1
    points = landmarks.reshape(-1, 2, 5).transpose(0, 2, 1) * size + corner - 1
    moved = _moved(boxes, offsets)
    return [
        Face(Box(*box), score, tuple((x, y) for x, y in five))
        for box, score, five in zip(moved.tolist(), scores.tolist(), points.tolist(), strict=True)
    ]


def _overlaps(a: Floats, b: Floats) -> Floats:
    """Return the intersection over union (IoU) of each of N boxes with each of M boxes: ``[N, M]``."""
    corner, end = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    common = np.maximum(end - corner, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    ratios: Floats = common / (areas[0][:, None] + areas[1] - common)
    return ratios


def _squared(boxes: Floats) -> Floats:
    """Return squares with the boxes' centres and longer sides."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + size * np.float32(0.5) - side * np.float32(0.5)
    return np.hstack((corner, corner + side))


def _suppress(boxes: Floats, scores: Floats, threshold: float) -> Ints:
    """Return the indices of the boxes that overlap no better box by more than ``threshold`` (IoU), best first."""
    rectangles = np.hstack((boxes[:, :2], boxes[:, 2:] - boxes[:, :2])).astype(np.float64)
    keep = cv2.dnn.NMSBoxes(cast("Any", rectangles), cast("Any", scores), 0.0, threshold)  # typed for lists only
    return np.asarray(keep, np.intp)


def _suppress_contained(boxes: Floats, scores: Floats, threshold: float) -> Ints:
    """Return the indices of the boxes that share at most ``threshold`` of the smaller area with each better box."""
    order = np.lexsort((boxes[:, 0], boxes[:, 1], -scores))
    corner, end = boxes[order, :2], boxes[order, 2:]
    area = (end - corner + 1).prod(axis=1)
    keep: list[int] = []
    for i in range(len(order)):
        shared = np.minimum(end[i], end[keep]) - np.maximum(corner[i], corner[keep]) + 1
        if (np.maximum(shared, 0).prod(axis=1) <= threshold * np.minimum(area[i], area[keep])).all():
            keep.append(i)
    return order[keep]
