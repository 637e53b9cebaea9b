"""The protocol's tables and its worked example, written from the code for docs/reference/protocol.md."""

from __future__ import annotations

import inspect
import re
import struct
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq
from reference import code, table

from fer_stream import plugins
from fer_stream.aggregator import aggregator, moves
from fer_stream.capture import session as capture
from fer_stream.fleet import answers, seeker
from fer_stream.imaging import limits as imaging_limits
from fer_stream.inference import worker
from fer_stream.protocol import messages, results
from fer_stream.settings.tree import DispatchSettings
from fer_stream.transports import keys
from fer_stream.transports.zeromq import ALL, HIGH_WATER, ZeroMQ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BYTES = {"s": "bytes", "B": "uint8", "H": "uint16", "I": "uint32", "Q": "uint64", "q": "int64", "f": "float32"}

SILENCE = DispatchSettings().silence

FIELDS = {
    "magic": "`FERS` in ASCII",
    "version": f"{messages.VERSION}; other versions are refused",
    "kind": "see [Kinds](#kinds)",
    "encoding": "of a FRAME's pixels, see [Encodings](#encodings); else 0",
    "flags": f"bit 0 (value {messages._CHECKED}): payload CRC-32 is set; only a FRAME may lack it. Of YUV pixels: "
    "bit 1 (value 2): full range; bit 2 (value 4): the matrix of BT.709. Others are 0",
    "epoch": "incremented by each start of a camera's capture or of the aggregator; in FRAME and WELCOME",
    "width": "of a FRAME's picture, in pixels",
    "height": "of a FRAME's picture, in pixels",
    "seq": "FRAME: the frame's number within the epoch; EVENTS: the cursor up to which this answer is complete",
    "ticket": "a number that the answer repeats; use a new one for each request",
    "time": "FRAME, OFFER: capture time, nanoseconds since 1970; EVENTS: the cursor of the latest event",
    "age": "FRAME: microseconds since the picture was captured",
    "captured": "frames captured since the capture's start",
    "superseded": "of these: replaced by fresher ones before they were sent",
    "rejected": "of these: rejected by the capture",
    "sent": "of these: passed to the transport",
    "length": "bytes of the payload",
    "payload CRC-32": "of the payload; 0 if flag bit 0 is not set",
    "header CRC-32": "of the header's bytes before this field",
}

LIMITS = {
    "MAX_SIDE": "pixels of a picture's width, and of its height",
    "MAX_PIXELS": "pixels of a picture",
    "MAX_PAYLOAD": "bytes of a payload",
    "MAX_JSON": "bytes of a JSON body, except STATUS and EVENTS",
    "MAX_FACES": "faces in a DONE, and in hints",
    "MAX_LABELS": "labels of a READY",
    "MAX_LANDMARKS": "landmarks of a face in a DONE",
}
"""Meanings of the limits that have no comment in their module."""

BODIES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "replay": (
        ("after", "whole number, 0 to 9223372036854775807", "return the events after this cursor; 0: all events"),
        ("camera", "text or `null`; may be left out", "return only this camera's events, and every `stream.gap`"),
        ("bytes", "whole number above 0; may be left out", "preferred size of the answer"),
        ("partition", "whole number; may be left out", "its events: see [a cell](#following-a-cell)"),
    ),
    "cursor": (("cursor", "text", "the latest cursor of the cell"),),
    "status": (
        ("pid", "whole number", "process id of the aggregator"),
        ("uptime_s", "number", "seconds since its start"),
        ("cursor", "text", "of the latest event"),
        ("events_held", "whole number", "events held because the journal cannot be written"),
        ("labels", "list of texts", "labels that events may have; empty before the first worker"),
        ("memory", "text", "identifies the machine, user and process namespace that can share memory; empty: none"),
        ("cameras", "object by name", "see below"),
        ("workers", "object by name", "see below"),
        ("events", "object by type", "events published since the start"),
        (
            "sinks",
            "object by name",
            "with `run`: of standard output and of each sink: `new`, `ok`, `failing`, `stuck`, `stopped`, `closed`",
        ),
        ("fleet", "object or `null`", "the cell of this aggregator, see below; `null`: it is alone"),
    ),
    "status-fleet": (
        ("cell", "text", "the cell's name"),
        ("partitions", "whole number", "into how many partitions the cameras fall"),
        ("me", "text", "id of the aggregator that answers"),
        ("aggregators", "object by id", "see below"),
        ("unowned", "list of whole numbers", "partitions without an aggregator that lives"),
    ),
    "status-aggregator": (
        ("address", "text", "as in a [place](#several-aggregators)"),
        ("key", "text", "as in a place"),
        ("load", "number", "its share of the work"),
        ("cameras", "whole number", "its cameras that give frames"),
        ("workers", "whole number", ""),
        ("idle", "whole number", "workers that had nothing to do during the last second"),
        ("leaving", "true or false", "true: it gives everything to others"),
        ("silent_s", "number", "seconds since it was last heard of"),
        ("owns", "list of whole numbers", "its partitions"),
    ),
    "status-camera": (
        ("state", "`online`, `offline` or `ended`", ""),
        ("epoch", "whole number", "as in events"),
        ("pid", "whole number", "process id of the capture"),
        ("policy", "`drop_oldest` or `wait`", ""),
        ("live", "true or false", "true for a camera, false for a recording"),
        ("frames", "whole number or `null`", "number of frames of a recording, if known"),
        ("rate", "number", "frames/s processed at present"),
        ("frame_age_s", "number", "age of the latest frame on arrival"),
        ("heard_s", "number", "seconds since the last message"),
        ("ledger", "object of whole numbers", "number of frames by outcome: [the ledger](../explanation/ledger.md)"),
        ("tracks", "list", "the faces in view, as in an observation"),
    ),
    "status-worker": (
        ("state", "`idle` or `busy`", ""),
        ("frames", "whole number", "frames processed"),
        ("pid", "whole number", ""),
        ("model", "text", "the classifier's name and version"),
        ("detector", "text", "the detector's name"),
    ),
    "observation": (
        ("camera", "text", ""),
        ("epoch", "whole number", "of the frame"),
        ("frame", "whole number", "`seq` of the frame in the preview"),
        ("time", "whole number", "capture time, nanoseconds since 1970; a double cannot hold it exactly"),
        ("size", "list of 2 whole numbers", "width and height in pixels, to which boxes refer"),
        ("searched", "true or false", "true if the whole picture was searched, false if only known faces were checked"),
        ("face_regions", "list of boxes", "regions that may contain a face, confirmed or not: blur them"),
        ("tracks", "list", "the faces in view"),
    ),
    "track": (
        ("track", "whole number", "the track's number within the epoch"),
        ("box", "list of 4 numbers", "x1, y1, x2, y2 in pixels, not clipped to the picture"),
        ("confidence", "number, 0 to 1", "that the box contains a face"),
        ("label", "text or `null`", "`null` while no label is certain"),
        ("since", "whole number or `null`", "capture time at which the label began"),
        ("probabilities", "object of numbers", "the smoothed probability of each label"),
        ("measures", "object of numbers", "each smoothed measure; absent if the model has none"),
    ),
    "hello": (
        ("camera", "text", "its name"),
        ("incarnation", "text", "a new one for each start of the capture"),
        ("pid", "whole number", ""),
        ("policy", "`drop_oldest` or `wait`", ""),
        ("live", "true or false", "true for a camera, false for a recording"),
        ("frames", "whole number or `null`", "number of frames of a recording, if known"),
        ("rate", "number or `null`", "limit of frames/s"),
        ("reported", "object of whole numbers", "the body of the last NEXT, empty before the first"),
        ("memory", "text; may be left out", "as in STATUS; if left out or empty, shared memory is not used"),
        ("moves", "true or false; may be left out", "true: this capture follows MOVED"),
        ("zones", "object; may be left out", "the camera's setting `zones`"),
        ("lines", "object; may be left out", "the camera's setting `lines`"),
    ),
    "welcome": (
        ("memory", "true or false", "whether FRAMEs may be SHARED; only for a capture"),
        ("others", "list of places; may be missing", "other aggregators, if this one does not answer any more"),
    ),
    "moved": (
        ("place", "place or `null`", "the aggregator to connect to; `null`: none has this camera at present"),
        ("wait", "whole number", "if `place` is `null`: milliseconds after which to ask again"),
        ("others", "list of places", "as in WELCOME"),
        ("reported", "object of whole numbers; may be missing", "as in NEXT, with the last outcomes; for a capture"),
    ),
    "place": (
        ("address", "text", "`ipc://FOLDER` or `tcp://HOST:PORT`"),
        ("key", "text", "the public half of that aggregator's pair, Z85, 40 characters; empty: no encryption"),
    ),
    "refused": (
        ("reason", "text", "a sentence for the user"),
        ("final", "true or false", "true: do not ask again"),
        ("silent", "true or false; may be left out", "true: the earlier capture is silent, ask again"),
    ),
    "offer": (("full", "true or false", "whether a frame is ready to be sent"),),
    "bye": (("reason", "`end of stream`, `source failed` or `capture ended`", ""),),
}  # fmt: skip
"""The JSON bodies; a test compares them with those of a running service."""


def body(name: str) -> str:
    """Return a table of a body's keys."""
    return table(("key", "value", "meaning"), ((code(key), value, about) for key, value, about in BODIES[name]))


def links() -> str:
    """Return a table of the links."""
    roles = {link: ", ".join(code(role) for role, opened in keys.ROLES.items() if link in opened) for link in ALL}
    rows = []
    for number, link in enumerate(ALL):
        client = "SUB" if link in plugins.BROADCASTS else "DEALER"
        rows.append((code(link), f"+{number}", client, f"{HIGH_WATER[link]:,}", roles[link]))
    return table(("link", "TCP port", "your socket", "most messages queued for you", "roles that may use it"), rows)


def options() -> str:
    """Return a table of the socket options that our own clients set, as libzmq has them."""
    peer = ZeroMQ().subscribe("tcp://127.0.0.1:9", "events", [""])
    try:
        rows = []
        for name, about in (
            ("TCP_KEEPALIVE", "1: the system checks whether the other host is reachable"),
            ("TCP_KEEPALIVE_IDLE", "s without a packet until the check"),
            ("TCP_KEEPALIVE_INTVL", "s until the next check"),
            ("TCP_MAXRT", "ms without an acknowledgement until the connection is closed; frames and work: 10,000"),
            ("HANDSHAKE_IVL", "ms, most that a handshake may take"),
            ("RECONNECT_IVL", "ms until the first attempt to reconnect"),
            ("RECONNECT_IVL_MAX", "ms, most until a later attempt"),
            ("MAXMSGSIZE", "bytes, most of a message part"),
        ):
            rows.append((f"`ZMQ_{name}`", f"{int(peer._socket.get(getattr(zmq, name))):,}", about))
    finally:
        peer.close()
    return table(("option", "value", "meaning"), rows)


def header() -> str:
    """Return the header's layout.

    Raises:
        ValueError: the layout in the docstring of `fer_stream.protocol.messages` is not the one that it packs.
    """
    drawn = re.search(r"^    (magic .+?)\n\n", messages.__doc__ or "", re.DOTALL | re.MULTILINE)
    fields = [part.split("(")[0].strip() for part in re.split(r"[|\n]", drawn[1])] if drawn else []
    pairs = [field.rpartition(" ") for field in fields if field]
    if "!" + "".join(kind for _, _, kind in pairs) != messages._HEADER.format:
        raise ValueError(
            "the header drawn in the docstring of fer_stream.protocol.messages is not the one that it packs"
        )
    rows, at = [], 0
    for name, _, kind in pairs:
        size = struct.calcsize(f"!{kind}")
        rows.append((str(at), str(size), BYTES[kind[-1]], name, FIELDS[name]))
        at += size
    if at != messages.HEADER_SIZE:
        raise ValueError("the header's fields are not as long as the header")
    return f"{at} bytes, big endian.\n\n" + table(("at", "bytes", "type", "field", "meaning"), rows)


def limits() -> str:
    """Return a table of the limits."""
    rows = []
    for module in (imaging_limits, messages, results, answers):
        for name, about in re.findall(r"^(MAX_\w+) = [^#\n]+(?:# (.+))?$", inspect.getsource(module), re.MULTILINE):
            rows.append((code(name), f"{getattr(module, name):,}", LIMITS.get(name, about)))
    return table(("limit", "value", "meaning"), rows)


def payloads() -> str:
    """Return a table of the largest payload of each kind."""
    rows = [(kind.name, f"{most:,}") for kind, most in messages._LIMITS.items()]
    return table(("payload of", "most bytes"), [*rows, ("any other kind", f"{messages.MAX_JSON:,}")])


def members(enum: Any) -> str:
    """Return a table of an enumeration, with the comments beside its members."""
    comments = dict(re.findall(r"^    (\w+) = (?:\(\s*)?\d+ *(?:# (.+))?$", inspect.getsource(enum), re.MULTILINE))
    return table(("name", "number", "meaning"), ((code(m.name), str(int(m)), comments.get(m.name, "")) for m in enum))


def faces() -> str:
    """Return the layout of the head of a DONE's payload."""
    names = (
        "faces n",
        "labels and measures l",
        "landmarks p",
        "searched, 0 or 1",
        "seconds to decode",
        "seconds to detect",
        "seconds to classify",
    )
    return _layout(results._FACES, names)


def hints() -> str:
    """Return the layout of the head of a FRAME's hints."""
    return _layout(results._HINTS, ("CRC-32 of the bytes after it", "faces n", "search the whole picture, 0 or 1"))


def _layout(layout: struct.Struct, names: Iterable[str]) -> str:
    rows, at = [], 0
    kinds = re.sub(r"[<>!]", "", layout.format)
    for name, kind in zip(names, kinds, strict=True):
        size = struct.calcsize(f"!{kind}")
        rows.append((str(at), str(size), BYTES[kind], name))
        at += size
    return table(("at", "bytes", "type", "field"), rows)


def times() -> str:
    """Return a table of the intervals and timeouts."""
    rows = [
        ("the aggregator publishes the cursor, under `/` on `events`", f"{aggregator.BEAT} s"),
        ("a capture sends OFFER, or HELLO or BYE until it is answered", f"{capture.BEAT} s"),
        ("a worker sends PING", f"{worker.BEAT} s"),
        ("the aggregator sends PING to captures and workers that follow MOVED", f"{moves.SIGN} s"),
        ("time without a message after which they try another aggregator, if they know one", f"{seeker.SILENCE} s"),
        ("time without a message after which a capture or worker counts as dead (`dispatch.silence`)", f"{SILENCE} s"),
    ]
    return table(("what", "interval"), rows)


def example() -> str:
    """Return a request for events and its answer, in hexadecimal."""
    ask = messages.json_message(messages.Kind.REPLAY, {"after": 0, "camera": None}, ticket=1)
    event = b'{"cursor":"1"}'
    answer = messages.pack(messages.Message(messages.Kind.EVENTS, event, seq=1, time=1, ticket=1))
    text = "A REPLAY with ticket 1 and the body `" + bytes(ask[1]).decode() + "`:\n\n" + _dump(ask)
    text += "\n\nThe answer of a journal with one event (here shortened to `" + event.decode() + "`): `seq` is 1, "
    return text + "`time` is 1, so there are no more events:\n\n" + _dump(answer)


def _dump(parts: Iterable[Any]) -> str:
    lines = ["```text"]
    for number, part in enumerate(parts, 1):
        data = bytes(part)
        lines.append(f"part {number}, {len(data)} bytes")
        for at in range(0, len(data), 16):
            row = data[at : at + 16]
            shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            lines.append(f"{at:04x}  {row.hex(' '):<47}  {shown}")
    return "\n".join([*lines, "```"])


PARTS: dict[str, Callable[[], str]] = {
    "protocol-links": links,
    "protocol-options": options,
    "protocol-header": header,
    "protocol-limits": limits,
    "protocol-payloads": payloads,
    "protocol-kinds": lambda: members(messages.Kind),
    "protocol-encodings": lambda: members(messages.Encoding),
    "protocol-times": times,
    "protocol-example": example,
    "protocol-faces": faces,
    "protocol-hints": hints,
    **{f"protocol-body-{name}": partial(body, name) for name in BODIES},
}
"""What stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``."""
