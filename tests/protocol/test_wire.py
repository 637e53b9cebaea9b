"""Messages as bytes: what goes in comes out, and nothing but a `WireError` comes of anything else."""

from __future__ import annotations

import json
import math
import random
import struct
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.errors import WireError
from fer_stream.imaging.limits import MAX_SIDE, check_size
from fer_stream.protocol import wire
from fer_stream.protocol.wire import Encoding, Kind, Message, Result, Stages, Totals
from fer_stream.types import THUMBNAIL, Box, Expected, Face, Hints, Probabilities, Searched

if TYPE_CHECKING:
    from collections.abc import Sequence

LABELS = ("happy", "sad", "neutral")

profile = settings(deadline=None, max_examples=150)

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
ages = st.integers(0, wire.MAX_AGE)


@st.composite
def totals(draw: st.DrawFn) -> Totals:
    superseded, rejected, sent, slot = (draw(st.integers(0, 2**61)) for _ in range(4))
    return Totals(superseded + rejected + sent + slot, superseded, rejected, sent)


@st.composite
def messages(draw: st.DrawFn, kinds: Sequence[Kind] = tuple(Kind)) -> Message:
    kind = draw(st.sampled_from(kinds))
    shared = {"epoch": draw(u32), "seq": draw(u64), "ticket": draw(u64), "time": draw(i64), "age": draw(ages)}
    if kind is not Kind.FRAME:
        return Message(kind, draw(st.binary(max_size=200)), totals=draw(totals()), **shared)
    width, height = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    encoding = draw(st.sampled_from([Encoding.RAW, Encoding.JPEG]))
    size = width * height * 3 if encoding is Encoding.RAW else draw(st.integers(0, 300))
    payload = draw(st.binary(min_size=size, max_size=size))
    return Message(kind, payload, totals=draw(totals()), width=width, height=height, encoding=encoding, **shared)


def frame(payload: bytes = bytes(12), **changes: object) -> Message:
    fields = {"width": 2, "height": 2, "encoding": Encoding.RAW} | changes
    return Message(Kind.FRAME, payload, **fields)  # type: ignore[arg-type]


def joined(parts: list[wire.Buffer]) -> list[bytes]:
    return [bytes(part) for part in parts]


def resealed(head: bytes) -> bytes:
    """Return a changed header under a checksum that fits."""
    return head[:-4] + struct.pack("!I", zlib.crc32(head[:-4]))


# Messages


@profile
@given(messages(), st.booleans())
def test_what_is_packed_is_unpacked(message: Message, checked: bool) -> None:
    parts = wire.pack(message, checked or message.kind is not Kind.FRAME)
    assert wire.unpack(joined(parts)) == message
    assert wire.unpack([memoryview(bytes(part)) for part in parts]) == message


@profile
@given(messages(), st.data())
def test_one_wrong_bit_anywhere_is_noticed(message: Message, data: st.DataObject) -> None:
    parts = joined(wire.pack(message))
    which = data.draw(st.sampled_from([i for i, part in enumerate(parts) if part]))
    changed = bytearray(parts[which])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    parts[which] = bytes(changed)
    with pytest.raises(WireError):
        wire.unpack(parts)


@profile
@given(messages(), st.data())
def test_a_changed_header_with_a_right_checksum_is_parsed_or_refused(message: Message, data: st.DataObject) -> None:
    head, payload = joined(wire.pack(message))
    changed = bytearray(head)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(head) - 5))] = data.draw(st.integers(0, 255))
    try:
        got = wire.unpack([resealed(bytes(changed)), payload])
    except WireError:
        return
    assert got.kind in Kind
    if got.kind is Kind.FRAME:
        check_size(got.width, got.height)
        assert got.encoding in (Encoding.RAW, Encoding.JPEG)
        assert got.encoding is Encoding.JPEG or len(got.payload) == got.width * got.height * 3
    slot = got.totals.captured - got.totals.superseded - got.totals.rejected - got.totals.sent
    assert slot >= 0


@profile
@given(st.lists(st.binary(max_size=120), max_size=4))
def test_random_parts_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(WireError):
        wire.unpack(parts)


@pytest.mark.parametrize(
    ("message", "checked", "sentence"),
    [
        (frame(width=0), True, "0x2 is over the limit"),
        (frame(width=MAX_SIDE + 1), True, "over the limit"),
        (frame(width=MAX_SIDE, height=MAX_SIDE), True, "over the limit"),
        (frame(bytes(11)), True, "2x2 raw pixels are 12 bytes, not 11"),
        (frame(encoding=Encoding.NONE), True, "without an encoding"),
        (frame(totals=Totals(captured=3, superseded=1, rejected=1, sent=2)), True, "totals do not add up"),
        (Message(Kind.DONE, b"abc"), False, "DONE without a checksum"),
        (Message(Kind.DONE, bytes(wire.MAX_JSON + 1)), True, "over the limit"),
    ],
)
def test_what_breaks_a_limit_is_refused_and_told(message: Message, checked: bool, sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        wire.unpack(wire.pack(message, checked))


def test_other_protocols_and_other_versions_are_told_apart() -> None:
    head, payload = joined(wire.pack(Message(Kind.PING)))
    with pytest.raises(WireError, match="not a fer_stream message"):
        wire.unpack([resealed(b"HTTP" + head[4:]), payload])
    with pytest.raises(WireError, match=r"the peer speaks version 9 .* update the older"):
        wire.unpack([resealed(head[:4] + b"\x09" + head[5:]), payload])
    with pytest.raises(WireError, match="unknown kind or encoding"):
        wire.unpack([resealed(head[:5] + b"\xff" + head[6:]), payload])
    with pytest.raises(WireError, match="a message has 2 parts, not 3"):
        wire.unpack([head, payload, b""])
    with pytest.raises(WireError, match=r"a header has .* bytes"):
        wire.unpack([head + b"more", payload])
    with pytest.raises(WireError, match="its header says 0"):
        wire.unpack([head, b"more"])


def test_who_only_passes_pixels_on_leaves_their_checksum_to_the_last_one() -> None:
    head, _ = joined(wire.pack(frame()))
    torn = [head, bytes(11) + b"\x01"]
    assert wire.unpack(torn, verify=False).seq == 0
    passed = wire.forwarded(torn, epoch=3, ticket=4, age=5)
    with pytest.raises(WireError, match="the payload is corrupt"):
        wire.unpack(passed)


def test_a_frame_without_a_checksum_is_taken() -> None:
    parts = joined(wire.pack(frame(), checked=False))
    assert wire.unpack([parts[0], bytes(11) + b"\x01"]).payload == bytes(11) + b"\x01"


@profile
@given(messages([Kind.FRAME]), u32, u64, ages, st.booleans())
def test_a_forwarded_frame_differs_in_epoch_ticket_and_age_alone(
    message: Message, epoch: int, ticket: int, age: int, checked: bool
) -> None:
    got = wire.unpack(wire.forwarded(wire.pack(message, checked), epoch=epoch, ticket=ticket, age=age))
    same = ("kind", "payload", "seq", "time", "totals", "width", "height", "encoding")
    assert [getattr(got, name) for name in same] == [getattr(message, name) for name in same]
    assert (got.epoch, got.ticket, got.age) == (epoch, ticket, age)


def test_pixels_are_passed_on_and_not_copied() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    head, payload = wire.pack(frame(pixels.data.cast("B")))
    pixels[0, 0, 0] = 7
    assert bytes(payload)[0] == 7
    assert wire.forwarded([head, payload], epoch=1, ticket=1, age=1)[1] is payload


# JSON


@profile
@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_a_json_body_comes_back(body: dict[str, object]) -> None:
    message = wire.unpack(wire.json_message(Kind.STATUS, body, ticket=7))
    assert message.body() == body
    assert message.ticket == 7


@profile
@given(st.binary(max_size=100))
def test_any_body_is_an_object_or_refused(payload: bytes) -> None:
    try:
        body = Message(Kind.HELLO, payload).body()
    except WireError:
        return
    assert isinstance(body, dict)


@pytest.mark.parametrize(
    "payload", [b"[1]", b"7", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'{"n": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_object_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError, match="HELLO is not"):
        Message(Kind.HELLO, payload).body()


def test_a_body_has_a_limit() -> None:
    body = json.dumps({"a": "x" * wire.MAX_JSON}).encode()
    with pytest.raises(WireError, match="over 1000000"):
        Message(Kind.HELLO, body).body()


def test_a_status_of_thousands_of_faces_is_read() -> None:
    body = {"tracks": ["x" * 249] * 8000}
    assert wire.unpack(wire.json_message(Kind.STATUS, body)).body() == body


def test_a_full_batch_of_long_events_fits_into_one_answer() -> None:
    """A label set of 64 names makes events of some 2 KB, and a replay sends 500 at once."""
    payload = bytes(500 * 3000)
    assert wire.unpack(wire.pack(Message(Kind.EVENTS, payload))).payload == payload


# Faces


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
    got = wire.unpack_faces(wire.pack_faces(Result(tuple(found), stages), LABELS), LABELS)
    assert list(got.faces) == found
    assert (got.stages.decode, got.stages.detect) == (rounded(seconds), rounded(seconds / 2))
    assert got.searched is None


def searched() -> Searched:
    random = np.random.default_rng(3)
    return Searched(random.random(THUMBNAIL) < 0.3, random.integers(0, 256, THUMBNAIL, np.uint8))


def test_what_was_searched_comes_back() -> None:
    for found in ((), (FACE,)):
        got = wire.unpack_faces(wire.pack_faces(Result(found, Stages(), searched()), LABELS), LABELS).searched
        assert got is not None
        np.testing.assert_array_equal(got.cells, searched().cells)
        np.testing.assert_array_equal(got.thumbnail, searched().thumbnail)


@profile
@given(faces(), st.data())
def test_mutated_faces_are_parsed_or_refused(found: list[Face], data: st.DataObject) -> None:
    payload = bytearray(wire.pack_faces(Result(tuple(found)), LABELS))
    for _ in range(data.draw(st.integers(1, 5))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    for result in (bytes(payload), bytes(payload[:cut]), memoryview(payload)):
        try:
            got = wire.unpack_faces(result, LABELS)
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
        wire.unpack_faces(payload, LABELS)


FACE = Face(Box(0.0, 0.0, 10.0, 10.0), 0.9, (), Probabilities(LABELS, (0.5, 0.25, 0.25)))
POINTS = tuple((float(i), float(i)) for i in range(5))


@pytest.mark.parametrize(
    "found",
    [
        [Face(FACE.box, 0.9, POINTS[:3], FACE.probabilities), Face(FACE.box, 0.9, POINTS, FACE.probabilities)],
        [Face(FACE.box, 0.9, (), Probabilities(("sad", "happy", "neutral"), (0.5, 0.25, 0.25)))],
        [FACE] * (wire.MAX_FACES + 1),
        [FACE] * 70_000,
    ],
    ids=["different landmarks", "other labels", "too many", "far too many"],
)
def test_a_result_that_nobody_could_read_is_not_sent(found: list[Face]) -> None:
    with pytest.raises(WireError):
        wire.pack_faces(Result(tuple(found)), LABELS)


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
        wire.unpack_faces(wire.pack_faces(Result((face,)), LABELS), LABELS)


def test_other_labels_than_announced_are_refused() -> None:
    payload = wire.pack_faces(Result((FACE,)), LABELS)
    with pytest.raises(WireError, match="1 faces, 3 labels"):
        wire.unpack_faces(payload, LABELS[:2])
    with pytest.raises(WireError, match="without a head"):
        wire.unpack_faces(payload[:5], LABELS)


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
    got = wire.unpack_hints(wire.pack_hints(given))
    assert (got.faces, got.whole) == (given.faces, given.whole)
    np.testing.assert_array_equal(got.seen, given.seen)


def test_hints_travel_as_the_third_part_of_a_frame() -> None:
    parts = wire.pack(Message(Kind.FRAME, bytes(12), width=2, height=2, encoding=Encoding.RAW))
    assert len(wire.forwarded(parts, epoch=1, ticket=2, age=3)) == 2
    sent = wire.forwarded(parts, epoch=1, ticket=2, age=3, hints=Hints((Expected(FACE.box, True),)))
    assert wire.unpack_hints(sent[2]).faces == (Expected(FACE.box, True),)


@profile
@given(hints(), st.data())
def test_mutated_hints_are_refused(given: Hints, data: st.DataObject) -> None:
    part = bytearray(wire.pack_hints(given))
    at = data.draw(st.integers(0, len(part) - 1))
    part[at] ^= data.draw(st.integers(1, 255))
    for changed in (bytes(part), bytes(part[:at])):
        with pytest.raises(WireError):
            wire.unpack_hints(changed)


@profile
@given(st.binary(max_size=200))
def test_random_hints_are_parsed_or_refused(part: bytes) -> None:
    with suppress(WireError):
        wire.unpack_hints(part)


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
    assert wire.unpack_hints(wire.pack_hints(Hints((Expected(box, False), near)))).faces == (near,)
    body = struct.pack("!HH", 1, 0) + struct.pack("=4fB", *box, 0)
    with pytest.raises(WireError, match="impossible"):
        wire.unpack_hints(struct.pack("!I", zlib.crc32(body)) + body)


# In pieces


@pytest.mark.parametrize("size", [0, 1, wire.PIECE, wire.PIECE + 1, 450_000, 6_220_800])
@pytest.mark.parametrize("more", [[], [b"hints"], [b""]])
def test_a_long_payload_travels_in_pieces(size: int, more: list[bytes]) -> None:
    payload = random.Random(size).randbytes(size)
    parts = [*wire.pack(Message(Kind.EVENTS, payload)), *more]
    pieces = wire.split(parts)
    assert len(pieces) <= 1 + wire.PIECES + len(more)
    assert all(len(piece) <= max(wire.PIECE, -(-size // wire.PIECES)) for piece in pieces)
    assert (len(pieces) == len(parts)) == (size <= wire.PIECE)
    whole = wire.joined([bytes(piece) for piece in pieces])
    assert whole == [bytes(part) for part in parts]
    assert wire.unpack(whole[:2]).payload == payload


def test_what_is_no_message_of_ours_is_left_as_it_is() -> None:
    for parts in ([], [b"x"], [b"x", b"y"], [b"x", bytes(100_000), b"z"]):
        assert wire.split(parts) == wire.joined(parts) == parts


def test_pieces_that_are_missing_or_too_many_are_refused() -> None:
    pieces = [bytes(piece) for piece in wire.split(wire.pack(Message(Kind.EVENTS, bytes(100_000))))]
    for wrong in (pieces[:-1], [*pieces, b"x"], [pieces[0], *pieces[2:]]):
        with pytest.raises(WireError):
            wire.unpack(wire.joined(wrong))
