"""The texts of what aggregators share through the engine: the values of its buckets, and fences. JSON.

What cannot be read, because an operator or another program wrote it, is ``None``.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from fer_stream.fleet.records import Mark, Part, Place, Status


def encode_status(number: int, status: Status) -> str:
    """Return the value of an aggregator's key in ``alive``, with the number of its beat."""
    return json.dumps({"beat": number, **asdict(status)})


def decode_status(text: str) -> tuple[int, Status] | None:
    """Return what `encode_status` was given."""
    try:
        value = json.loads(text)
        place, load = Place(**value.pop("place")), float(value.pop("load"))
        return int(value.pop("beat")), Status(place, load, **value)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def encode_part(part: Part) -> str:
    """Return the value of a partition's key in ``parts``."""
    return json.dumps(asdict(part))


def decode_part(text: str) -> Part | None:
    """Return what `encode_part` was given."""
    try:
        value = json.loads(text)
        return Part(value.pop("owner"), Place(**value.pop("place")), **value)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def encode_mark(mark: Mark) -> str:
    """Return the text of a fence."""
    return json.dumps(asdict(mark))


def decode_mark(text: str) -> Mark | None:
    """Return what `encode_mark` was given."""
    try:
        value = json.loads(text)
        return Mark(str(value["owner"]), int(value["term"]))
    except (ValueError, KeyError, TypeError):
        return None
