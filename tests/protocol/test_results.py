"""Hints and results as bytes: what is packed is unpacked, and invalid bytes raise `WireError` alone."""

from __future__ import annotations

import math
import struct
import zlib
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.errors import WireError
from fer_stream.protocol import results
from fer_stream.protocol.results import Result, Stages
from fer_stream.types import THUMBNAIL, Box, Expected, Face, Hints, Measure, Measures, Probabilities, Searched

LABELS = ("happy", "sad", "neutral")

profile = settings(deadline=None, max_examples=150)


def rounded(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


unit = st.floats(0, 1, width=32)
place = st.floats(-5000, 5000, width=32)


@st.composite
def faces(draw: st.DrawFn) -> list[Face]:
    points = draw(st.sampled_from([0, 5]))
    found = []
    for _ in range(draw(st.integers(0, 4))):
        x, y = draw(st.integers(-500, 5000)), draw(st.integers(-500, 5000))
        box = Box(float(x), float(y), x + float(draw(st.integers(1, 900))), y + float(draw(st.integers(1, 900))))
        landmarks = tuple((draw(place), draw(place)) for _ in range(points))
        scores = draw(st.sampled_from([None, Probabilities(LABELS, (draw(unit), draw(unit), draw(unit)))]))
        found.append(Face(box, draw(unit), draw(st.sampled_from([landmarks, ()])), scores))
    return found


@profile
@given(faces(), st.floats(0, 60, width=32))
def test_faces_come_back(found: list[Face], seconds: float) -> None:
    stages = Stages(seconds, seconds / 2, 0.0)
    got = results.unpack_faces(results.pack_faces(Result(tuple(found), stages), LABELS), LABELS)
    assert list(got.faces) == found
    assert (got.stages.decode, got.stages.detect) == (rounded(seconds), rounded(seconds / 2))
    assert got.searched is None


MEASURES = (Measure("valence", -1.0, 1.0), Measure("AU12", 0.0, 5.0))


def measured(*values: float) -> Face:
    return Face(
        Box(1, 2, 30, 40),
        0.75,
        (),
        Probabilities(LABELS, (0.5, 0.25, 0.25)),
        1.0,
        Measures(("valence", "AU12"), values),
    )


def test_measures_come_back() -> None:
    found = (measured(-0.5, 4.5), Face(Box(1, 2, 30, 40), 0.5), measured(1.0, 0.0))
    packed = results.pack_faces(Result(found), LABELS, MEASURES)
    assert results.unpack_faces(packed, LABELS, MEASURES).faces == found
    bare = Result((replace(found[0], measures=None),))
    assert results.pack_faces(bare, LABELS, ()) == results.pack_faces(bare, LABELS)
    with pytest.raises(WireError, match="3 labels and 0 landmarks"):
        results.unpack_faces(results.pack_faces(bare, LABELS), (*LABELS, "more"))


def test_measures_that_were_not_announced_are_refused() -> None:
    for face, measures in ((measured(0.5, 1.0), ()), (measured(0.5, 1.0), MEASURES[:1])):
        with pytest.raises(WireError, match="a face with other measures than announced cannot be sent"):
            results.pack_faces(Result((face,)), LABELS, measures)
    with pytest.raises(WireError, match="a face with other measures"):
        results.pack_faces(Result((replace(measured(0, 0), measures=None),)), LABELS, MEASURES)
    with pytest.raises(WireError, match="a result of 1 faces, 5 labels"):
        results.unpack_faces(results.pack_faces(Result((measured(0.5, 1.0),)), LABELS, MEASURES), LABELS)


def test_a_measure_beyond_its_scale_is_refused_and_rounding_is_not() -> None:
    packed = results.pack_faces(Result((measured(1.001, -0.001),)), LABELS, MEASURES)
    (face,) = results.unpack_faces(packed, LABELS, MEASURES).faces
    assert face.measures == Measures(("valence", "AU12"), (1.0, 0.0))
    packed = results.pack_faces(Result((measured(0.5, 6.0),)), LABELS, MEASURES)
    with pytest.raises(WireError, match="a face whose AU12 is not on its scale"):
        results.unpack_faces(packed, LABELS, MEASURES)


def searched() -> Searched:
    random = np.random.default_rng(3)
    return Searched(random.random(THUMBNAIL) < 0.3, random.integers(0, 256, THUMBNAIL, np.uint8))


def test_what_was_searched_comes_back() -> None:
    for found in ((), (FACE,)):
        got = results.unpack_faces(results.pack_faces(Result(found, Stages(), searched()), LABELS), LABELS).searched
        assert got is not None
        np.testing.assert_array_equal(got.cells, searched().cells)
        np.testing.assert_array_equal(got.thumbnail, searched().thumbnail)


@profile
@given(faces(), st.data())
def test_mutated_faces_are_parsed_or_refused(found: list[Face], data: st.DataObject) -> None:
    payload = bytearray(results.pack_faces(Result(tuple(found)), LABELS))
    for _ in range(data.draw(st.integers(1, 5))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    for result in (bytes(payload), bytes(payload[:cut]), memoryview(payload)):
        try:
            got = results.unpack_faces(result, LABELS)
        except WireError:
            continue
        for face in got.faces:
            assert face.box.x1 < face.box.x2
            assert face.box.y1 < face.box.y2
            assert all(
                map(
                    math.isfinite,
                    (*face.box, face.confidence, *(face.probabilities.values if face.probabilities else ())),
                )
            )


@profile
@given(st.binary(max_size=200))
def test_random_faces_are_parsed_or_refused(payload: bytes) -> None:
    with suppress(WireError):
        results.unpack_faces(payload, LABELS)


FACE = Face(Box(0.0, 0.0, 10.0, 10.0), 0.9, (), Probabilities(LABELS, (0.5, 0.25, 0.25)))
POINTS = tuple((float(i), float(i)) for i in range(5))


@pytest.mark.parametrize(
    "found",
    [
        [Face(FACE.box, 0.9, POINTS[:3], FACE.probabilities), Face(FACE.box, 0.9, POINTS, FACE.probabilities)],
        [Face(FACE.box, 0.9, (), Probabilities(("sad", "happy", "neutral"), (0.5, 0.25, 0.25)))],
        [FACE] * (results.MAX_FACES + 1),
        [FACE] * 70_000,
    ],
    ids=["different landmarks", "other labels", "too many", "far too many"],
)
def test_a_result_that_nobody_could_read_is_not_sent(found: list[Face]) -> None:
    with pytest.raises(WireError):
        results.pack_faces(Result(tuple(found)), LABELS)


@pytest.mark.parametrize(
    "face",
    [
        Face(Box(10.0, 0.0, 0.0, 10.0), 0.9, (), FACE.probabilities),
        Face(Box(0.0, math.nan, 10.0, 10.0), 0.9, (), FACE.probabilities),
        Face(Box(0.0, 0.0, math.inf, 10.0), 0.9, (), FACE.probabilities),
        Face(FACE.box, 1.5, (), FACE.probabilities),
        Face(FACE.box, 0.9, (), Probabilities(LABELS, (2.0, 0.0, 0.0))),
    ],
    ids=["inside out", "not a number", "infinite", "confidence", "probability"],
)
def test_an_impossible_face_is_refused(face: Face) -> None:
    with pytest.raises(WireError):
        results.unpack_faces(results.pack_faces(Result((face,)), LABELS), LABELS)


def test_other_labels_than_announced_are_refused() -> None:
    payload = results.pack_faces(Result((FACE,)), LABELS)
    with pytest.raises(WireError, match="1 faces, 3 labels"):
        results.unpack_faces(payload, LABELS[:2])
    with pytest.raises(WireError, match="without a head"):
        results.unpack_faces(payload[:5], LABELS)


# Hints


@st.composite
def hints(draw: st.DrawFn) -> Hints:
    expected = []
    for _ in range(draw(st.integers(0, 4))):
        x, y = draw(st.integers(-500, 5000)), draw(st.integers(-500, 5000))
        box = Box(float(x), float(y), x + float(draw(st.integers(1, 900))), y + float(draw(st.integers(1, 900))))
        expected.append(Expected(box, draw(st.booleans())))
    seen = draw(st.sampled_from([None, searched().thumbnail]))
    return Hints(tuple(expected), draw(st.booleans()), seen)


@profile
@given(hints())
def test_hints_come_back(given: Hints) -> None:
    got = results.unpack_hints(results.pack_hints(given))
    assert (got.faces, got.whole) == (given.faces, given.whole)
    np.testing.assert_array_equal(got.seen, given.seen)


@profile
@given(hints(), st.data())
def test_mutated_hints_are_refused(given: Hints, data: st.DataObject) -> None:
    part = bytearray(results.pack_hints(given))
    at = data.draw(st.integers(0, len(part) - 1))
    part[at] ^= data.draw(st.integers(1, 255))
    for changed in (bytes(part), bytes(part[:at])):
        with pytest.raises(WireError):
            results.unpack_hints(changed)


@profile
@given(st.binary(max_size=200))
def test_random_hints_are_parsed_or_refused(part: bytes) -> None:
    with suppress(WireError):
        results.unpack_hints(part)


@pytest.mark.parametrize(
    "box",
    [
        Box(10.0, 0.0, 0.0, 10.0),
        Box(0.0, math.nan, 10.0, 10.0),
        Box(0.0, 0.0, math.inf, 10.0),
        Box(0.0, 0.0, 1e30, 10.0),
    ],
    ids=["inside out", "not a number", "infinite", "far away"],
)
def test_an_impossible_expectation_is_not_sent_and_refused(box: Box) -> None:
    near = Expected(Box(5.0, 5.0, 50.0, 50.0), False)
    assert results.unpack_hints(results.pack_hints(Hints((Expected(box, False), near)))).faces == (near,)
    body = struct.pack("!HH", 1, 0) + struct.pack("=4fB", *box, 0)
    with pytest.raises(WireError, match="impossible"):
        results.unpack_hints(struct.pack("!I", zlib.crc32(body)) + body)
