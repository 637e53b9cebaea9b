"""Which other files an ONNX file names: its weights may lie beside it ("external data").

The file is a protobuf message (onnx.proto); only its tensors are looked for, and the rest is skipped unread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Which fields of a message are messages in which there may be tensors, by their numbers."""

_KEY, _VALUE = 1, 2
_LOCATION = b"location"


def locations(content: bytes) -> list[str]:
    """Return the files that an ONNX file names, as it names them, each once; none where it is no ONNX file."""
    found: dict[str, None] = {}
    waiting = [("model", memoryview(content))]
    while waiting:
        kind, message = waiting.pop()
        try:
            parts = list(_fields(message))
        except (IndexError, ValueError):  # not a message, or cut short: onnxruntime will say so
            continue
        if kind == "entry":
            entry = {number: bytes(part) for number, part in parts}
            if entry.get(_KEY) == _LOCATION:
                found[entry.get(_VALUE, b"").decode(errors="surrogateescape")] = None
        waiting += [(_INSIDE[kind][number], part) for number, part in parts if number in _INSIDE.get(kind, {})]
    return sorted(found)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of a message's fields that have a length.

    Raises:
        IndexError, ValueError: it is no message.
    """
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        match tag & 7:
            case 0:
                _, at = _number(message, at)
            case 1:
                at += 8
            case 2:
                length, at = _number(message, at)
                if at + length > len(message):
                    raise ValueError("a field is longer than its message")
                yield tag >> 3, message[at : at + length]
                at += length
            case 5:
                at += 4
            case _:
                raise ValueError("a field is of no kind that is known")


def _number(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of variable length, and where it ends."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
        if shift > 63:
            raise ValueError("a number has no end")
