"""Converts hints (where a worker looks in a frame) and results (the faces that it found) to bytes and back.

Hints are the third part of a FRAME for a worker. A result is the payload of DONE. Invalid bytes raise `WireError`.
"""

from __future__ import annotations

import math
import struct
import zlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fer_stream.errors import WireError
from fer_stream.imaging.limits import MAX_SIDE
from fer_stream.types import THUMBNAIL, Box, Expected, Face, Hints, Measures, Probabilities, Searched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.protocol.messages import Buffer
    from fer_stream.types import Measure

MAX_FACES = 1_000
MAX_LABELS = 64
MAX_LANDMARKS = 68
MAX_DISTANCE = 10 * MAX_SIDE  # pixels from the picture's corner to a box in hints

_FACES = struct.Struct("<HHHHfff")
_HINTS = struct.Struct("!IHH")
_CRC = struct.Struct("!I")
_CELLS = THUMBNAIL[0] * THUMBNAIL[1]
_MASK = -(-_CELLS // 8)


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds that a worker spent on each stage of a frame."""

    decode: float = 0.0
    detect: float = 0.0
    classify: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker found in a frame."""

    faces: tuple[Face, ...]
    stages: Stages = Stages()
    searched: Searched | None = None


def pack_hints(hints: Hints) -> bytes:
    """Return the third part of a FRAME for a worker.

    It consists of a head (CRC-32 of what follows it, number of faces, whether to search the whole picture), a float32
    box for each face, a byte for each face (whether to classify it), and the thumbnail if there is one. Faces with
    implausible boxes, and those beyond `MAX_FACES`, are left out.
    """
    faces = [face for face in hints.faces if _plausible(face.box)][:MAX_FACES]
    boxes = array("f", [side for face in faces for side in face.box])
    seen = b"" if hints.seen is None else hints.seen.tobytes()
    body = boxes.tobytes() + bytes(face.due for face in faces) + seen
    body = struct.pack("!HH", len(faces), hints.whole) + body
    return _CRC.pack(zlib.crc32(body)) + body


def unpack_hints(part: Buffer) -> Hints:
    """Return what `pack_hints` packed.

    Raises:
        WireError: the part is malformed or corrupt, or has an implausible box.
    """
    if len(part) < _HINTS.size:
        raise WireError("hints without a head")
    crc, count, whole = _HINTS.unpack_from(part)
    if crc != zlib.crc32(part[_CRC.size :]):
        raise WireError("the hints are corrupt")
    body = bytes(part[_HINTS.size :])
    if count > MAX_FACES or whole > 1 or len(body) not in (17 * count, 17 * count + _CELLS):
        raise WireError(f"hints of {len(body)} bytes for {count} faces")
    sides = array("f", body[: 16 * count]).tolist()
    expected = []
    for at, due in zip(range(0, 4 * count, 4), body[16 * count : 17 * count], strict=True):
        box = Box(*sides[at : at + 4])
        if not _plausible(box) or due > 1:
            raise WireError("hints with an impossible face")
        expected.append(Expected(box, bool(due)))
    cells = body[17 * count :]
    seen = np.frombuffer(cells, np.uint8).reshape(THUMBNAIL) if cells else None
    return Hints(tuple(expected), bool(whole), seen)


def _plausible(box: Box) -> bool:
    """Return whether a box is within `MAX_DISTANCE`, and at least one pixel wide and high, even rounded to float32."""
    return box.x1 + 1 <= box.x2 and box.y1 + 1 <= box.y2 and all(-MAX_DISTANCE < side < MAX_DISTANCE for side in box)


def pack_faces(result: Result, labels: Sequence[str], measures: Sequence[Measure] = ()) -> bytes:
    """Return the payload of DONE.

    After a head (`_FACES`), each face is a float32 row: box, confidence, quality, whether it has landmarks, whether it
    has probabilities, landmarks, probabilities in the order of ``labels``, measures in the order of ``measures``. What
    is missing is zeros. If ``searched`` is set, the thumbnail follows, and a bit for each of its cells: whether it was
    searched.

    Raises:
        WireError: there are more than `MAX_FACES` faces, their numbers of landmarks differ, or probabilities are over
            other labels, or measures others than those announced.
    """
    faces, stages = result.faces, result.stages
    if len(faces) > MAX_FACES:
        raise WireError(f"a result of {len(faces)} faces is over {MAX_FACES}")
    points = max((len(face.landmarks) for face in faces), default=0)
    flag = result.searched is not None
    head = _FACES.pack(
        len(faces), len(labels) + len(measures), points, flag, stages.decode, stages.detect, stages.classify
    )
    values, names = array("f"), tuple(measure.name for measure in measures)
    for face in faces:
        values.extend(face.box)
        values.extend((face.confidence, face.quality, bool(face.landmarks), face.probabilities is not None))
        if len(face.landmarks) not in (0, points):
            raise WireError(f"a face with {len(face.landmarks)} landmarks beside one with {points} cannot be sent")
        for point in face.landmarks or ((0.0, 0.0),) * points:
            values.extend(point)
        if face.probabilities is not None and face.probabilities.labels != tuple(labels):
            raise WireError("a face with probabilities over other labels than announced cannot be sent")
        values.extend(face.probabilities.values if face.probabilities else [0.0] * len(labels))
        if face.probabilities is not None and (face.measures.names if face.measures else ()) != names:
            raise WireError("a face with other measures than announced cannot be sent")
        values.extend(face.measures.values if face.measures else [0.0] * len(names))
    tail = b""
    if result.searched is not None:
        tail = result.searched.thumbnail.tobytes() + np.packbits(result.searched.cells).tobytes()
    return head + values.tobytes() + tail


def unpack_faces(payload: Buffer, labels: tuple[str, ...], measures: Sequence[Measure] = ()) -> Result:
    """Return the result in a DONE of a worker that announced these labels and measures.

    Raises:
        WireError: the payload's size is not the one that its head gives, or a value is out of range.
    """
    if len(payload) < _FACES.size:
        raise WireError("a result without a head")
    count, width, points, flag, *seconds = _FACES.unpack_from(payload)
    if count > MAX_FACES or width != len(labels) + len(measures) or points > MAX_LANDMARKS:
        raise WireError(f"a result of {count} faces, {width} labels and {points} landmarks")
    row = 8 + 2 * points + width
    end = _FACES.size + 4 * row * count
    if flag > 1 or len(payload) != end + flag * (_CELLS + _MASK):
        raise WireError(f"a result of {len(payload)} bytes for {count} faces")
    values = array("f", bytes(payload[_FACES.size : end]))
    if not all(map(math.isfinite, values)) or not all(0 <= s < math.inf for s in seconds):
        raise WireError("a result with a number that is not finite, or with negative seconds")
    faces, names = [], tuple(measure.name for measure in measures)
    for at in range(0, len(values), row):
        x1, y1, x2, y2, confidence, quality, marked, scored, *rest = values[at : at + row].tolist()
        shares, levels = rest[2 * points :][: len(labels)], rest[2 * points + len(labels) :]
        if not (
            x1 < x2 and y1 < y2 and all(-0.01 <= share <= 1.01 for share in (confidence, quality, *shares))
        ) or not ({marked, scored} <= {0.0, 1.0}):
            raise WireError("a result with an impossible face")
        confidence, quality, *shares = (min(max(share, 0.0), 1.0) for share in (confidence, quality, *shares))
        found = _measured(measures, names, levels) if scored and measures else None
        landmarks = tuple(zip(rest[0 : 2 * points : 2], rest[1 : 2 * points : 2], strict=True)) if marked else ()
        probabilities = Probabilities(labels, tuple(shares)) if scored else None
        faces.append(Face(Box(x1, y1, x2, y2), confidence, landmarks, probabilities, quality, found))
    return Result(tuple(faces), Stages(*seconds), _searched(bytes(payload[end:])) if flag else None)


def _measured(measures: Sequence[Measure], names: tuple[str, ...], levels: Sequence[float]) -> Measures:
    """Return a face's measures, without what rounding added to an end of a scale.

    Raises:
        WireError: a value is not on its scale.
    """
    values = []
    for measure, level in zip(measures, levels, strict=True):
        slack = (measure.greatest - measure.least) / 100
        if not measure.least - slack <= level <= measure.greatest + slack:
            raise WireError(f"a face whose {measure.name} is not on its scale")
        values.append(min(max(level, measure.least), measure.greatest))
    return Measures(names, tuple(values))


def _searched(tail: bytes) -> Searched:
    thumbnail = np.frombuffer(tail, np.uint8, _CELLS).reshape(THUMBNAIL)
    cells = np.unpackbits(np.frombuffer(tail, np.uint8, offset=_CELLS), count=_CELLS).astype(np.bool_)
    return Searched(cells.reshape(THUMBNAIL), thumbnail)
