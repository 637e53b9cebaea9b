"""Bytes <-> messages. Every limit stands here, and nothing but `WireError` leaves.

A message is two parts: a fixed header, then a payload (pixels, faces or JSON). A FRAME for a worker may have a third:
what to look at in it (`pack_hints`). A transport may send a long payload as several parts (`split`)::

    magic 4s | version B | kind B | encoding B | flags B | epoch I | width H | height H
    seq Q | ticket Q | time q | age Q | captured Q | superseded Q | rejected Q | sent Q | length I | payload CRC-32 I
    | header CRC-32 I                                                        (big endian)

``age`` is microseconds since the picture was taken, measured on monotonic clocks and added up hop by hop, so machines
need not agree on the time; in NEXT it is how long the last frame took to come. The four totals are the capture's own,
since its start: whatever message arrives tells them all. The payload's checksum may be left out (flag) for raw pixels
that do not leave the machine.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from array import array
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_stream.errors import WireError
from fer_stream.imaging.limits import MAX_PIXELS, MAX_SIDE, check_size
from fer_stream.types import THUMBNAIL, Box, Expected, Face, Hints, Probabilities, Searched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Buffer = bytes | bytearray | memoryview

VERSION = 1
MAX_PAYLOAD = 3 * MAX_PIXELS
PIECE = 16_384  # bytes from which a payload is sent in pieces, and the least that a piece but the last has
PIECES = 32  # of one payload at most: each costs time, and even a raw picture needs no more to show that it is coming
MAX_JSON = 1_000_000
MAX_EVENTS = 33_000_000  # a full answer to REPLAY of the longest events; or to STATUS, of all tracks
MAX_FACES = 1_000
MAX_LABELS = 64
MAX_LANDMARKS = 68
MAX_PLACE = 10 * MAX_SIDE  # how far from the picture's corner a face may be expected
MAX_AGE = 1_000_000 * 86_400 * 366  # a year, in microseconds

_MAGIC = b"FERS"
_HEADER = struct.Struct("!4sBBBBIHHQQqQQQQQIII")
_LENGTH = struct.Struct("!I")  # of the payload, before the two checksums
_CRC = struct.Struct("!I")
_FACES = struct.Struct("<HHHHfff")
_HINTS = struct.Struct("!IHH")
_CHECKED = 1
_CELLS = THUMBNAIL[0] * THUMBNAIL[1]
_MASK = -(-_CELLS // 8)


class Kind(IntEnum):
    """What a message says, and who says it."""

    HELLO = 1  # capture: who I am
    WELCOME = 2  # aggregator to capture: your epoch
    REFUSED = 3  # aggregator: you cannot take part, and why
    WHO = 4  # aggregator: I do not know you (I may be new), say who you are
    OFFER = 5  # capture: my totals, and whether a frame waits in the slot; also its sign of life
    NEXT = 6  # aggregator to capture: send the freshest frame; what became of the earlier ones; age: the last one's way
    FRAME = 7  # capture to aggregator to worker
    BYE = 8  # capture, worker: I end; a capture's last totals
    GOODBYE = 9  # aggregator to capture: all your frames are resolved and their events journaled
    READY = 10  # worker: warmed up, one credit
    DONE = 11  # worker: the faces of a frame, and the credit back
    REJECT = 12  # worker: no picture in this frame, and the credit back
    PING = (
        13  # worker: a sign of life, and the ticket of the frame that came last; aggregator to capture: are you there
    )
    STATUS = 14  # client: how are you; aggregator: so
    REPLAY = 15  # client: the events after a cursor
    EVENTS = 16  # aggregator: these


class Encoding(IntEnum):
    """Of a frame's pixels."""

    NONE = 0
    RAW = 1  # BGR, uint8 [H, W, 3]
    JPEG = 2  # sequential, 8 bits, one scan, no Exif; as its camera sent it, or made by the capture
    SHARED = 3  # raw, in memory of this machine: the payload says where (`fer_stream.protocol.shared`)


_LIMITS = {Kind.FRAME: MAX_PAYLOAD, Kind.EVENTS: MAX_EVENTS, Kind.STATUS: MAX_EVENTS}


@dataclass(frozen=True, slots=True)
class Totals:
    """A capture's running totals since its start, in frames.

    ``sent`` counts the frames given to the transport. ``captured - superseded - rejected - sent`` lie in the slot.
    """

    captured: int = 0
    superseded: int = 0
    rejected: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """A header with its payload. Fields that a kind does not use are 0."""

    kind: Kind
    payload: Buffer = b""
    epoch: int = 0
    seq: int = 0
    ticket: int = 0
    time: int = 0
    age: int = 0
    totals: Totals = Totals()
    width: int = 0
    height: int = 0
    encoding: Encoding = Encoding.NONE

    def body(self) -> dict[str, Any]:
        """Return the JSON payload.

        Raises:
            WireError: it is not a JSON object, or too large.
        """
        if len(self.payload) > (most := _LIMITS.get(self.kind, MAX_JSON)):
            raise WireError(f"a {self.kind.name} body of {len(self.payload)} bytes is over {most}")
        try:
            body = json.loads(bytes(self.payload)) if len(self.payload) else {}
        except (ValueError, RecursionError) as error:
            raise WireError(f"the body of {self.kind.name} is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise WireError(f"the body of {self.kind.name} is not a JSON object")
        return body


def json_message(kind: Kind, body: Mapping[str, Any] | None = None, **fields: Any) -> list[Buffer]:
    """Return the parts of a message whose payload is JSON; ``fields`` are those of `Message`."""
    text = json.dumps(body, separators=(",", ":")).encode() if body else b""
    return pack(Message(kind, text, **fields))


def pack(message: Message, checked: bool = True) -> list[Buffer]:
    """Return a message's parts; the payload is passed on, not copied.

    Args:
        message: what to send.
        checked: whether the payload's CRC-32 is taken (about 1 ms a megabyte).
    """
    m, t = message, message.totals
    payload_crc = zlib.crc32(m.payload) if checked else 0
    flags = _CHECKED if checked else 0
    fields = (m.kind, m.encoding, flags, m.epoch, m.width, m.height, m.seq, m.ticket, m.time, m.age)
    totals = (t.captured, t.superseded, t.rejected, t.sent)
    draft = _HEADER.pack(_MAGIC, VERSION, *fields, *totals, memoryview(m.payload).nbytes, payload_crc, 0)
    head = draft[: -_CRC.size]
    return [head + _CRC.pack(zlib.crc32(head)), m.payload]


def unpack(parts: Sequence[Buffer], verify: bool = True) -> Message:
    """Return the message in these parts, whose header is whole and within all limits.

    Args:
        parts: header and payload.
        verify: whether to check the payload's CRC-32; who only passes pixels on leaves that to the last one.

    Raises:
        WireError: not a message of this version of ours.
    """
    if len(parts) != 2:
        raise WireError(f"a message has 2 parts, not {len(parts)}")
    head, payload = bytes(parts[0][: _HEADER.size + 1]), parts[1]
    if len(head) != _HEADER.size:
        raise WireError(f"a header has {_HEADER.size} bytes, not {len(parts[0])}")
    magic, version, kind, encoding, flags, epoch, width, height, *rest = _HEADER.unpack(head)
    seq, ticket, time, age, captured, superseded, rejected, sent, length, payload_crc, crc = rest
    if magic != _MAGIC:
        raise WireError("not a fer_stream message")
    if version != VERSION:
        raise WireError(
            f"the peer speaks version {version} of the protocol, this is version {VERSION}; update the older"
        )
    if crc != zlib.crc32(head[: -_CRC.size]):
        raise WireError("the header is corrupt")
    try:
        kind, encoding = Kind(kind), Encoding(encoding)
    except ValueError as error:
        raise WireError(f"unknown kind or encoding: {error}") from error
    if length != memoryview(payload).nbytes:
        raise WireError(f"the payload has {memoryview(payload).nbytes} bytes, its header says {length}")
    if length > _LIMITS.get(kind, MAX_JSON):
        raise WireError(f"a {kind.name} payload of {length} bytes is over the limit")
    if kind is Kind.FRAME:
        check_size(width, height)
        if encoding is Encoding.RAW and length != width * height * 3:
            raise WireError(f"{width}x{height} raw pixels are {width * height * 3} bytes, not {length}")
        if encoding is Encoding.NONE:
            raise WireError("a frame without an encoding")
    if age > MAX_AGE:
        raise WireError(f"a {kind.name} that is {age} microseconds old")
    if captured < superseded + rejected + sent:
        raise WireError("the totals do not add up")
    if flags & _CHECKED:
        if verify and zlib.crc32(payload) != payload_crc:
            raise WireError("the payload is corrupt")
    elif kind is not Kind.FRAME:
        raise WireError(f"a {kind.name} without a checksum")
    totals = Totals(captured, superseded, rejected, sent)
    return Message(kind, payload, epoch, seq, ticket, time, age, totals, width, height, encoding)


def split(parts: Sequence[Buffer]) -> list[Buffer]:
    """Return a message's parts, with a payload of more than `PIECE` bytes in up to `PIECES` parts, for `joined`.

    ZeroMQ counts parts that arrive as signs of life, not bytes: one of 400 kB on a slow link would look like silence.
    """
    if len(parts) < 2 or memoryview(parts[1]).nbytes <= PIECE or len(parts[0]) != _HEADER.size:
        return list(parts)
    payload = memoryview(parts[1]).cast("B")
    step = max(PIECE, -(-len(payload) // PIECES))
    return [parts[0], *(payload[at : at + step] for at in range(0, len(payload), step)), *parts[2:]]


def joined(parts: Sequence[Buffer]) -> list[Buffer]:
    """Return a message's parts with the payload in one: as many parts make it as its header's length takes.

    What is no message of ours stays as it is, for `unpack` to refuse.
    """
    if len(parts) < 3 or len(parts[0]) != _HEADER.size:
        return list(parts)
    (length,) = _LENGTH.unpack_from(parts[0], _HEADER.size - 3 * _LENGTH.size)
    size, end = memoryview(parts[1]).nbytes, 2
    while size < length and end < len(parts):
        size, end = size + memoryview(parts[end]).nbytes, end + 1
    return list(parts) if end == 2 else [parts[0], b"".join(parts[1:end]), *parts[end:]]


def forwarded(
    parts: Sequence[Buffer], *, epoch: int, ticket: int, age: int, hints: Hints | None = None
) -> list[Buffer]:
    """Return a FRAME's parts for a worker: another epoch, ticket and age, the same payload and checksum, and hints."""
    magic, version, kind, encoding, flags, _, width, height, seq, _, time, _, *rest = _HEADER.unpack(bytes(parts[0]))
    draft = _HEADER.pack(magic, version, kind, encoding, flags, epoch, width, height, seq, ticket, time, age, *rest)
    head = draft[: -_CRC.size]
    whole = [head + _CRC.pack(zlib.crc32(head)), parts[1]]
    return whole if hints is None else [*whole, pack_hints(hints)]


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds that a worker spent on a frame, by stage."""

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
    """Return the third part of a FRAME for a worker: float32 boxes, a byte each (due), the thumbnail, a checksum."""
    faces = [face for face in hints.faces if _plausible(face.box)][:MAX_FACES]
    boxes = array("f", [side for face in faces for side in face.box])
    seen = b"" if hints.seen is None else hints.seen.tobytes()
    body = boxes.tobytes() + bytes(face.due for face in faces) + seen
    body = struct.pack("!HH", len(faces), hints.whole) + body
    return _CRC.pack(zlib.crc32(body)) + body


def unpack_hints(part: Buffer) -> Hints:
    """Return what `pack_hints` packed.

    Raises:
        WireError: it is not that, is corrupt, or holds a box that cannot be.
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
    """Whether a face may be expected there; its sides are a pixel at least, which float32 does not lose."""
    return box.x1 + 1 <= box.x2 and box.y1 + 1 <= box.y2 and all(-MAX_PLACE < side < MAX_PLACE for side in box)


def pack_faces(result: Result, labels: Sequence[str]) -> bytes:
    """Return the payload of DONE.

    A float32 row a face: box, confidence, quality, whether it has landmarks and probabilities, landmarks, probabilities
    ordered as ``labels``, with zeros for what it has not. Then the thumbnail and which of its cells were searched, if
    any were.

    Raises:
        WireError: more than `MAX_FACES`, or faces with different landmarks, or probabilities over other labels.
    """
    faces, stages = result.faces, result.stages
    if len(faces) > MAX_FACES:
        raise WireError(f"a result of {len(faces)} faces is over {MAX_FACES}")
    points = max((len(face.landmarks) for face in faces), default=0)
    flag = result.searched is not None
    head = _FACES.pack(len(faces), len(labels), points, flag, stages.decode, stages.detect, stages.classify)
    values = array("f")
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
    tail = b""
    if result.searched is not None:
        tail = result.searched.thumbnail.tobytes() + np.packbits(result.searched.cells).tobytes()
    return head + values.tobytes() + tail


def unpack_faces(payload: Buffer, labels: tuple[str, ...]) -> Result:
    """Return what is in a DONE whose worker announced these labels.

    Raises:
        WireError: another size than announced, or a number that cannot be.
    """
    if len(payload) < _FACES.size:
        raise WireError("a result without a head")
    count, width, points, flag, *seconds = _FACES.unpack_from(payload)
    if count > MAX_FACES or width != len(labels) or points > MAX_LANDMARKS:
        raise WireError(f"a result of {count} faces, {width} labels and {points} landmarks")
    row = 8 + 2 * points + width
    end = _FACES.size + 4 * row * count
    if flag > 1 or len(payload) != end + flag * (_CELLS + _MASK):
        raise WireError(f"a result of {len(payload)} bytes for {count} faces")
    values = array("f", bytes(payload[_FACES.size : end]))
    if not all(map(math.isfinite, values)) or not all(0 <= s < math.inf for s in seconds):
        raise WireError("a result with a number that is none")
    faces = []
    for at in range(0, len(values), row):
        x1, y1, x2, y2, confidence, quality, marked, scored, *rest = values[at : at + row].tolist()
        shares = rest[2 * points :]
        if not (
            x1 < x2 and y1 < y2 and all(-0.01 <= share <= 1.01 for share in (confidence, quality, *shares))
        ) or not ({marked, scored} <= {0.0, 1.0}):
            raise WireError("a result with an impossible face")
        confidence, quality, *shares = (min(max(share, 0.0), 1.0) for share in (confidence, quality, *shares))
        landmarks = tuple(zip(rest[0 : 2 * points : 2], rest[1 : 2 * points : 2], strict=True)) if marked else ()
        probabilities = Probabilities(labels, tuple(shares)) if scored else None
        faces.append(Face(Box(x1, y1, x2, y2), confidence, landmarks, probabilities, quality))
    return Result(tuple(faces), Stages(*seconds), _searched(bytes(payload[end:])) if flag else None)


def _searched(tail: bytes) -> Searched:
    thumbnail = np.frombuffer(tail, np.uint8, _CELLS).reshape(THUMBNAIL)
    cells = np.unpackbits(np.frombuffer(tail, np.uint8, offset=_CELLS), count=_CELLS).astype(np.bool_)
    return Searched(cells.reshape(THUMBNAIL), thumbnail)
