"""Converts messages to bytes and back. Invalid bytes raise `WireError` and no other exception.

A message has two parts: a fixed header, then a payload (pixels, JSON, or a result: `fer_stream.protocol.results`). A
FRAME for a worker may have a third part, its hints. A transport may send a long payload as several parts (`split`)::

    magic 4s | version B | kind B | encoding B | flags B | epoch I | width H | height H
    seq Q | ticket Q | time q | age Q | captured Q | superseded Q | rejected Q | sent Q | length I | payload CRC-32 I
    | header CRC-32 I                                                        (big endian)

``age`` is microseconds since the picture was taken. Each process adds the time that it measured on a monotonic clock,
so the machines' clocks need not agree. In NEXT, ``age`` is the transfer time of the last frame. The four totals count
the capture's frames since its start, so a later message makes up for lost ones. A flag says whether the payload has a
checksum; raw pixels are sent without one, which would take as long as decoding the picture.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from fer_stream.errors import WireError
from fer_stream.imaging.limits import MAX_PIXELS, check_size
from fer_stream.imaging.yuv import Colour

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Buffer = bytes | bytearray | memoryview

VERSION = 1
MAX_PAYLOAD = 3 * MAX_PIXELS
MAX_JSON = 1_000_000
MAX_EVENTS = 33_000_000  # an answer to REPLAY with the longest events, or to STATUS with all tracks
MAX_AGE = 1_000_000 * 86_400 * 366  # a year, in microseconds

_MAGIC = b"FERS"
_HEADER = struct.Struct("!4sBBBBIHHQQqQQQQQIII")
HEADER_SIZE = _HEADER.size
"""Bytes of the first part of every message."""

PIECE = 16_384
"""Payloads of more than this many bytes are sent in several parts; all parts but the last have at least this many."""

PIECES = 32
"""Most parts of one payload. Each part costs time, and 32 are enough to show that a raw picture is on its way."""

_LENGTH = struct.Struct("!I")  # of the payload, before the two checksums
_CRC = struct.Struct("!I")
_CHECKED = 1
_COLOUR = 1  # bits 1 and 2 of the flags


class Kind(IntEnum):
    """What a message says, and who sends it."""

    HELLO = 1  # capture: registers its camera and itself
    WELCOME = 2  # aggregator to capture: the epoch; to worker: accepted
    REFUSED = 3  # aggregator: the capture or worker cannot take part, and why
    WHO = 4  # aggregator: it does not know the sender (it may have restarted); answer with HELLO or READY
    OFFER = 5  # capture: its totals, and whether a frame waits in the slot; also its heartbeat
    NEXT = 6  # aggregator to capture: send the frame in the slot; outcomes of earlier ones; age: transfer of the last
    FRAME = 7  # capture to aggregator to worker
    BYE = 8  # capture, worker: it ends; with a capture's last totals
    GOODBYE = 9  # aggregator to capture: all its frames are resolved and their events journaled
    READY = 10  # worker: registers; it is warmed up and can take frames
    DONE = 11  # worker: the faces in a frame; it can take the next one
    REJECT = 12  # worker: the frame cannot be processed, and why; it can take the next one
    PING = 13  # worker: heartbeat, with the ticket of its latest frame; aggregator: a sign of life
    STATUS = 14  # client: asks for the state; aggregator: the state
    REPLAY = 15  # client: asks for the events after a cursor
    EVENTS = 16  # aggregator: these events
    MOVED = 17  # aggregator: the capture or worker belongs to another aggregator, or to none at present
    CURSOR = 18  # aggregator: the latest cursor of a whole cell
    ANNOTATE = 19  # client: stores an annotation; aggregator: its number, or why it is not stored
    ANNOTATIONS = 20  # client: asks for annotations; aggregator: these


class Encoding(IntEnum):
    """How a frame's pixels are encoded."""

    NONE = 0
    RAW = 1  # BGR, uint8 [H, W, 3]
    JPEG = 2  # sequential, 8 bits, one scan, no Exif; from the camera, or encoded by the capture
    SHARED = 3  # raw, in this machine's memory: the payload is a descriptor (`fer_stream.protocol.shared`)
    YUV = 4  # planar YUV 4:2:0: uint8 Y [H, W], U [H/2, W/2], V [H/2, W/2]; flags 1 and 2 tell its colours
    SHARED_YUV = 5  # the same, in this machine's memory

    @property
    def in_memory(self) -> bool:
        """Whether the payload is a descriptor of memory on this machine."""
        return self in (Encoding.SHARED, Encoding.SHARED_YUV)

    @property
    def planar(self) -> bool:
        """Whether the pixels are planar YUV 4:2:0."""
        return self in (Encoding.YUV, Encoding.SHARED_YUV)


_LIMITS = {Kind.FRAME: MAX_PAYLOAD, Kind.EVENTS: MAX_EVENTS, Kind.STATUS: MAX_EVENTS, Kind.ANNOTATIONS: MAX_EVENTS}


@dataclass(frozen=True, slots=True)
class Totals:
    """A capture's running totals since its start, in frames.

    ``sent`` counts the frames given to the transport. ``captured - superseded - rejected - sent`` are in the slot.
    """

    captured: int = 0
    superseded: int = 0
    rejected: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """A header with its payload. Fields that a kind does not use are 0.

    ``time`` is capture time in nanoseconds since the Unix epoch. In EVENTS, ``time`` is the cursor of the latest event,
    and ``seq`` the last cursor that the answer covers. In a worker's PING, ``seq`` is the number of its
    connection.
    """

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
    colour: Colour = Colour.LIMITED_BT601
    """How a YUV frame stores colours."""
    checksum: int | None = field(default=None, compare=False, repr=False)
    """The payload's CRC-32 in the header that was received; ``None`` if there was none. `pack` computes a new one."""

    def verify(self) -> None:
        """Compare the payload with the checksum that came with it.

        Raises:
            WireError: they differ.
        """
        if self.checksum is not None and zlib.crc32(self.payload) != self.checksum:
            raise WireError("the payload is corrupt")

    def body(self) -> dict[str, Any]:
        """Return the JSON payload.

        Raises:
            WireError: it is not a JSON object, or it is too large.
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
        checked: whether to compute the payload's CRC-32 (about 1 ms per megabyte).
    """
    return _pack(message, zlib.crc32(message.payload) if checked else None)


def forwarded(message: Message, *, epoch: int, ticket: int, age: int) -> list[Buffer]:
    """Return the parts of a received FRAME with another epoch, ticket and age; payload and checksum are unchanged.

    Args:
        message: from `unpack`.
        epoch: the camera's epoch when the frame arrived.
        ticket: a number that the worker's answer repeats.
        age: microseconds since the picture was taken.
    """
    return _pack(replace(message, epoch=epoch, ticket=ticket, age=age), message.checksum)


def _pack(message: Message, checksum: int | None) -> list[Buffer]:
    m, t = message, message.totals
    flags = (0 if checksum is None else _CHECKED) | m.colour << _COLOUR
    fields = (m.kind, m.encoding, flags, m.epoch, m.width, m.height, m.seq, m.ticket, m.time, m.age)
    totals = (t.captured, t.superseded, t.rejected, t.sent)
    draft = _HEADER.pack(_MAGIC, VERSION, *fields, *totals, memoryview(m.payload).nbytes, checksum or 0, 0)
    head = draft[: -_CRC.size]
    return [head + _CRC.pack(zlib.crc32(head)), m.payload]


def unpack(parts: Sequence[Buffer], verify: bool = True) -> Message:
    """Return the message in these parts, after checking its header and all limits.

    Args:
        parts: header and payload.
        verify: whether to compare the payload with its checksum (`Message.verify`). A process that only forwards
            pixels leaves this to the process that reads them.

    Raises:
        WireError: it is not a message of this version of the protocol.
    """
    if len(parts) != 2:
        raise WireError(f"a message has 2 parts, not {len(parts)}")
    head, payload = bytes(parts[0][: HEADER_SIZE + 1]), parts[1]
    if len(head) != HEADER_SIZE:
        raise WireError(f"a header has {HEADER_SIZE} bytes, not {len(parts[0])}")
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
        if encoding.planar and (width % 2 or height % 2):
            raise WireError(f"planar pixels of odd size, {width}x{height}")
        if encoding is Encoding.YUV and length != width * height * 3 // 2:
            raise WireError(f"{width}x{height} planar pixels are {width * height * 3 // 2} bytes, not {length}")
        if encoding is Encoding.NONE:
            raise WireError("a frame without an encoding")
    if age > MAX_AGE:
        raise WireError(f"a {kind.name} that is {age} microseconds old")
    if captured < superseded + rejected + sent:
        raise WireError("the totals do not add up")
    checksum = payload_crc if flags & _CHECKED else None
    if checksum is None and kind is not Kind.FRAME:
        raise WireError(f"a {kind.name} without a checksum")
    totals = Totals(captured, superseded, rejected, sent)
    colour = Colour(flags >> _COLOUR & 3)
    message = Message(kind, payload, epoch, seq, ticket, time, age, totals, width, height, encoding, colour, checksum)
    if verify:
        message.verify()
    return message


def split(parts: Sequence[Buffer]) -> list[Buffer]:
    """Return a message's parts, with a payload of more than `PIECE` bytes in up to `PIECES` parts; `joined` undoes it.

    A receiver notices only complete parts: while one part of 400 kB arrives on a slow link, its peer would seem dead.
    """
    if len(parts) < 2 or memoryview(parts[1]).nbytes <= PIECE or len(parts[0]) != HEADER_SIZE:
        return list(parts)
    payload = memoryview(parts[1]).cast("B")
    step = max(PIECE, -(-len(payload) // PIECES))
    return [parts[0], *(payload[at : at + step] for at in range(0, len(payload), step)), *parts[2:]]


def joined(parts: Sequence[Buffer]) -> list[Buffer]:
    """Return a message's parts with the payload in one part. The length in its header says how many parts to join.

    Parts without a valid header are returned unchanged, and `unpack` refuses them.
    """
    if len(parts) < 3 or len(parts[0]) != HEADER_SIZE:
        return list(parts)
    (length,) = _LENGTH.unpack_from(parts[0], HEADER_SIZE - 3 * _LENGTH.size)
    size, end = memoryview(parts[1]).nbytes, 2
    while size < length and end < len(parts):
        size, end = size + memoryview(parts[end]).nbytes, end + 1
    return list(parts) if end == 2 else [parts[0], b"".join(parts[1:end]), *parts[end:]]
