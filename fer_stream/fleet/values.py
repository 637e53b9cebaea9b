"""The texts of what aggregators share through the engine: the values of its buckets, and fences. JSON.

What cannot be read, because an operator or another program wrote it, is ``None``.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from fer_stream.fleet.records import Mark, Part, Place, Status


def encode_status(number: int, status: Status) -> str:
    """Return the value of an aggregator's key in ``alive``, with the number of its beat."""
    return json.dumps({"beat": number, **asdict(status)})


def decode_status(text: str) -> tuple[int, Status] | None:
    """Return what `encode_status` was given."""
    try:
        value = json.loads(text)
        workers, idle, leaving = int(value["workers"]), int(value["idle"]), bool(value["leaving"])
        load, cameras = _load(value["load"]), int(value.get("cameras", 0))
        return int(value["beat"]), Status(_place(value["place"]), load, workers, idle, leaving, cameras)
    except _INVALID:
        return None


def encode_part(part: Part) -> str:
    """Return the value of a partition's key in ``parts``."""
    return json.dumps(asdict(part))


def decode_part(text: str) -> Part | None:
    """Return what `encode_part` was given."""
    try:
        value = json.loads(text)
        owner, heir = _text(value["owner"]), _text(value["heir"])
        return Part(owner, _place(value["place"]), int(value["fence"]), heir, _load(value["weight"]))
    except _INVALID:
        return None


def encode_mark(mark: Mark) -> str:
    """Return the text of a fence."""
    return json.dumps(asdict(mark))


def decode_mark(text: str) -> Mark | None:
    """Return what `encode_mark` was given."""
    try:
        value = json.loads(text)
        return Mark(_text(value["owner"]), int(value["term"]))
    except _INVALID:
        return None


_INVALID = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


def _place(value: dict[str, Any]) -> Place:
    return Place(_text(value["address"]), _text(value["key"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _load(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(value)
    return float(value)
