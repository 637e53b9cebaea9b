"""Finds the files that an ONNX file refers to: its weights may be in other files ("external data").

The file is a protobuf message (onnx.proto). Only fields that may contain tensors are parsed.
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
"""The fields of each message type that may contain tensors: the types of these fields, by field number."""

_KEY, _VALUE = 1, 2
_LOCATION = b"location"


def locations(content: bytes) -> list[str]:
    """Return the file names that an ONNX file refers to, sorted; an empty list if it is not an ONNX file."""
    found: dict[str, None] = {}
    waiting = [("model", memoryview(content))]
    while waiting:
        kind, message = waiting.pop()
        try:
            parts = list(_fields(message))
        except (IndexError, ValueError):  # not a message, or truncated: onnxruntime reports it
            continue
        if kind == "entry":
            entry = {number: bytes(part) for number, part in parts}
            if entry.get(_KEY) == _LOCATION:
                found[entry.get(_VALUE, b"").decode(errors="surrogateescape")] = None
        waiting += [(_INSIDE[kind][number], part) for number, part in parts if number in _INSIDE.get(kind, {})]
    return sorted(found)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each length-delimited field of a message.

    Raises:
        IndexError, ValueError: the bytes are not a message.
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
                raise ValueError("a field has an unknown type")


def _number(message: memoryview, at: int) -> tuple[int, int]:
    """Return the variable-length integer (varint) at ``at``, and the offset after it."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
        if shift > 63:
            raise ValueError("a varint is too long")
