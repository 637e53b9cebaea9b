"""The answers to captures and workers as the JSON bodies of WELCOME and MOVED. Invalid bodies raise `WireError`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fer_stream.errors import WireError
from fer_stream.fleet.records import Moved, Place, Welcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fer_stream.fleet.records import Answer

MAX_PLACES = 64  # other places in WELCOME or MOVED
MAX_ADDRESS = 300  # characters of an address in WELCOME or MOVED
MAX_WAIT = 60_000  # milliseconds in MOVED

_ADDRESS = re.compile(rf"(?=[ -~]{{5,{MAX_ADDRESS}}}\Z)[a-z][a-z0-9+.-]*://[^#]+")
_KEY = re.compile(r"[!-~]{40}|")


def to_body(answer: Answer) -> dict[str, Any]:
    """Return an answer as a JSON object."""
    body: dict[str, Any] = {"others": [_object(place) for place in answer.others[:MAX_PLACES]]}
    if isinstance(answer, Moved):
        body |= {"place": answer.place and _object(answer.place), "wait": round(1000 * answer.wait)}
    return body


def welcome(body: dict[str, Any]) -> Welcome | None:
    """Return the answer in the body of WELCOME; ``None`` from an older aggregator, which names no others.

    Raises:
        WireError: a field is not valid.
    """
    return Welcome(_others(body["others"])) if "others" in body else None


def moved(body: dict[str, Any]) -> Moved:
    """Return the answer in the body of MOVED.

    Raises:
        WireError: a field is missing or not valid.
    """
    wait, place = body.get("wait"), body.get("place")
    if type(wait) is not int or not 0 <= wait <= MAX_WAIT:
        raise WireError(f"MOVED with a wait of {wait!r:.40}")
    return Moved(None if place is None else _place(place), wait / 1000, _others(body.get("others")))


def _others(value: object) -> tuple[Place, ...]:
    if not isinstance(value, list) or len(value) > MAX_PLACES:
        raise WireError(f"other places that are no list of at most {MAX_PLACES}")
    return tuple(map(_place, _distinct(value)))


def _distinct(values: Iterable[object]) -> list[object]:
    found: list[object] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _object(place: Place) -> dict[str, str]:
    return {"address": place.address, "key": place.key}


def _place(value: object) -> Place:
    if isinstance(value, dict):
        address, key = value.get("address"), value.get("key", "")
        if isinstance(address, str) and isinstance(key, str) and _ADDRESS.fullmatch(address) and _KEY.fullmatch(key):
            return Place(address, key)
    raise WireError(f"a place without a valid address or key: {value!r:.80}")
