"""Messages as bytes: what goes in comes out, and nothing but a `WireError` comes of anything else."""

from __future__ import annotations

import json
import random
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.errors import WireError
from fer_stream.imaging.limits import MAX_SIDE, check_size
from fer_stream.imaging.yuv import Colour
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Encoding, Kind, Message, Totals

if TYPE_CHECKING:
    from collections.abc import Sequence

profile = settings(deadline=None, max_examples=150)

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
ages = st.integers(0, messages.MAX_AGE)


@st.composite
def totals(draw: st.DrawFn) -> Totals:
    superseded, rejected, sent, slot = (draw(st.integers(0, 2**61)) for _ in range(4))
    return Totals(superseded + rejected + sent + slot, superseded, rejected, sent)


@st.composite
def any_message(draw: st.DrawFn, kinds: Sequence[Kind] = tuple(Kind)) -> Message:
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


def joined(parts: list[messages.Buffer]) -> list[bytes]:
    return [bytes(part) for part in parts]


def resealed(head: bytes) -> bytes:
    """Return a changed header under a checksum that fits."""
    return head[:-4] + struct.pack("!I", zlib.crc32(head[:-4]))


# Messages


@profile
@given(any_message(), st.booleans())
def test_what_is_packed_is_unpacked(message: Message, checked: bool) -> None:
    parts = messages.pack(message, checked or message.kind is not Kind.FRAME)
    assert messages.unpack(joined(parts)) == message
    assert messages.unpack([memoryview(bytes(part)) for part in parts]) == message


@profile
@given(any_message(), st.data())
def test_one_wrong_bit_anywhere_is_noticed(message: Message, data: st.DataObject) -> None:
    parts = joined(messages.pack(message))
    which = data.draw(st.sampled_from([i for i, part in enumerate(parts) if part]))
    changed = bytearray(parts[which])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    parts[which] = bytes(changed)
    with pytest.raises(WireError):
        messages.unpack(parts)


@profile
@given(any_message(), st.data())
def test_a_changed_header_with_a_right_checksum_is_parsed_or_refused(message: Message, data: st.DataObject) -> None:
    head, payload = joined(messages.pack(message))
    changed = bytearray(head)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(head) - 5))] = data.draw(st.integers(0, 255))
    try:
        got = messages.unpack([resealed(bytes(changed)), payload])
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
        messages.unpack(parts)


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
        (Message(Kind.DONE, bytes(messages.MAX_JSON + 1)), True, "over the limit"),
    ],
)
def test_what_breaks_a_limit_is_refused_and_told(message: Message, checked: bool, sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        messages.unpack(messages.pack(message, checked))


def test_other_protocols_and_other_versions_are_told_apart() -> None:
    head, payload = joined(messages.pack(Message(Kind.PING)))
    with pytest.raises(WireError, match="not a fer_stream message"):
        messages.unpack([resealed(b"HTTP" + head[4:]), payload])
    with pytest.raises(WireError, match=r"the peer speaks version 9 .* update the older"):
        messages.unpack([resealed(head[:4] + b"\x09" + head[5:]), payload])
    with pytest.raises(WireError, match="unknown kind or encoding"):
        messages.unpack([resealed(head[:5] + b"\xff" + head[6:]), payload])
    with pytest.raises(WireError, match="a message has 2 parts, not 3"):
        messages.unpack([head, payload, b""])
    with pytest.raises(WireError, match=r"a header has .* bytes"):
        messages.unpack([head + b"more", payload])
    with pytest.raises(WireError, match="its header says 0"):
        messages.unpack([head, b"more"])


def test_who_only_passes_pixels_on_leaves_their_checksum_to_the_last_one() -> None:
    head, _ = joined(messages.pack(frame()))
    torn = [head, bytes(11) + b"\x01"]
    received = messages.unpack(torn, verify=False)
    with pytest.raises(WireError, match="the payload is corrupt"):
        received.verify()
    with pytest.raises(WireError, match="the payload is corrupt"):
        messages.unpack(messages.forwarded(received, epoch=3, ticket=4, age=5))


def test_a_frame_without_a_checksum_is_taken() -> None:
    parts = joined(messages.pack(frame(), checked=False))
    assert messages.unpack([parts[0], bytes(11) + b"\x01"]).payload == bytes(11) + b"\x01"


@profile
@given(any_message([Kind.FRAME]), u32, u64, ages, st.booleans())
def test_a_forwarded_frame_differs_in_epoch_ticket_and_age_alone(
    message: Message, epoch: int, ticket: int, age: int, checked: bool
) -> None:
    received = messages.unpack(messages.pack(message, checked))
    got = messages.unpack(messages.forwarded(received, epoch=epoch, ticket=ticket, age=age))
    same = ("kind", "payload", "seq", "time", "totals", "width", "height", "encoding")
    assert [getattr(got, name) for name in same] == [getattr(message, name) for name in same]
    assert (got.epoch, got.ticket, got.age) == (epoch, ticket, age)
    assert (got.checksum is not None) == checked


def test_pixels_are_passed_on_and_not_copied() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    head, payload = messages.pack(frame(pixels.data.cast("B")))
    pixels[0, 0, 0] = 7
    assert bytes(payload)[0] == 7
    received = messages.unpack([head, payload], verify=False)
    assert messages.forwarded(received, epoch=1, ticket=1, age=1)[1] is payload


# JSON


@profile
@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_a_json_body_comes_back(body: dict[str, object]) -> None:
    message = messages.unpack(messages.json_message(Kind.STATUS, body, ticket=7))
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
    body = json.dumps({"a": "x" * messages.MAX_JSON}).encode()
    with pytest.raises(WireError, match="over 1000000"):
        Message(Kind.HELLO, body).body()


def test_a_status_of_thousands_of_faces_is_read() -> None:
    body = {"tracks": ["x" * 249] * 8000}
    assert messages.unpack(messages.json_message(Kind.STATUS, body)).body() == body


def test_a_full_batch_of_long_events_fits_into_one_answer() -> None:
    """A label set of 64 names makes events of some 2 KB, and a replay sends 500 at once."""
    payload = bytes(500 * 3000)
    assert messages.unpack(messages.pack(Message(Kind.EVENTS, payload))).payload == payload


# In pieces


@pytest.mark.parametrize("size", [0, 1, messages.PIECE, messages.PIECE + 1, 450_000, 6_220_800])
@pytest.mark.parametrize("more", [[], [b"hints"], [b""]])
def test_a_long_payload_travels_in_pieces(size: int, more: list[bytes]) -> None:
    payload = random.Random(size).randbytes(size)
    parts = [*messages.pack(Message(Kind.EVENTS, payload)), *more]
    pieces = messages.split(parts)
    assert len(pieces) <= 1 + messages.PIECES + len(more)
    assert all(len(piece) <= max(messages.PIECE, -(-size // messages.PIECES)) for piece in pieces)
    assert (len(pieces) == len(parts)) == (size <= messages.PIECE)
    whole = messages.joined([bytes(piece) for piece in pieces])
    assert whole == [bytes(part) for part in parts]
    assert messages.unpack(whole[:2]).payload == payload


def test_what_is_no_message_of_ours_is_left_as_it_is() -> None:
    for parts in ([], [b"x"], [b"x", b"y"], [b"x", bytes(100_000), b"z"]):
        assert messages.split(parts) == messages.joined(parts) == parts


def test_pieces_that_are_missing_or_too_many_are_refused() -> None:
    pieces = [bytes(piece) for piece in messages.split(messages.pack(Message(Kind.EVENTS, bytes(100_000))))]
    for wrong in (pieces[:-1], [*pieces, b"x"], [pieces[0], *pieces[2:]]):
        with pytest.raises(WireError):
            messages.unpack(messages.joined(wrong))


@pytest.mark.parametrize("colour", list(map(Colour, range(4))))
def test_a_planar_frame_keeps_its_colours(colour: Colour) -> None:
    frame = Message(Kind.FRAME, bytes(4 * 6), width=4, height=4, encoding=Encoding.YUV, colour=colour)
    for checked in (False, True):
        assert messages.unpack(messages.pack(frame, checked)) == frame


@pytest.mark.parametrize(
    ("width", "height", "length", "reason"),
    [
        (4, 4, 48, "4x4 planar pixels are 24 bytes, not 48"),
        (4, 4, 23, "4x4 planar pixels are 24 bytes, not 23"),
        (3, 4, 18, "planar pixels of odd size, 3x4"),
        (4, 3, 18, "planar pixels of odd size, 4x3"),
    ],
)
def test_planar_frames_of_a_wrong_size_are_refused(width: int, height: int, length: int, reason: str) -> None:
    frame = Message(Kind.FRAME, bytes(length), width=width, height=height, encoding=Encoding.YUV)
    with pytest.raises(WireError, match=reason):
        messages.unpack(messages.pack(frame))
