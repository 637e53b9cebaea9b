"""Texts in the engine are read as they were written; what others wrote is no value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.fleet import values
from fer_stream.fleet.records import Mark, Part, Place, Status

if TYPE_CHECKING:
    from collections.abc import Callable

numbers = st.integers(0, 2**53)
loads = st.floats(0, 1e9)
places = st.builds(Place, st.text(), st.text())
statuses = st.builds(Status, places, loads, numbers, numbers, st.booleans())


@given(numbers, statuses)
def test_a_status(number: int, status: Status) -> None:
    assert values.decode_status(values.encode_status(number, status)) == (number, status)


@given(st.builds(Part, st.text(), places, numbers, st.text(), loads))
def test_a_part(part: Part) -> None:
    """Exactly: who reads back its own write must find it equal."""
    assert values.decode_part(values.encode_part(part)) == part


@given(st.builds(Mark, st.text(), numbers))
def test_a_mark(mark: Mark) -> None:
    assert values.decode_mark(values.encode_mark(mark)) == mark


@pytest.mark.parametrize("decode", [values.decode_status, values.decode_part, values.decode_mark])
@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{}", "7", "host 12 0123", "[" * 100_000, '{"owner": "a", "term": "x"}',
        '{"owner": 1, "term": 1}', '{"owner": "a", "term": 1e999}',
        '{"owner": "a", "place": {"address": "b", "key": 1}, "fence": 1, "heir": "", "weight": 1}',
        '{"owner": "a", "place": {"address": "b", "key": ""}, "fence": 1, "heir": "", "weight": NaN}',
        '{"beat": 1, "place": null, "load": 1, "workers": 1, "idle": 1, "leaving": false}',
    ],
)  # fmt: skip
def test_another_programs_text(decode: Callable[[str], Any], text: str) -> None:
    assert decode(text) is None
