"""The checks of annotations, and their form as text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fer_stream.errors import AnnotationRefusedError, WireError
from fer_stream.events.annotations import (
    CLOCKS,
    LONGEST,
    WRONG,
    check_label,
    check_past,
    checked,
    decode,
    encode,
    within,
)  # fmt: skip
from fer_stream.types import Nanoseconds

GIVEN: dict[str, Any] = {
    "id": "0" * 32, "camera": "door", "track": 1, "start": "2026-01-31T08:00:00Z", "end": "2026-01-31T08:00:10Z",
    "label": "sad", "previous": "happy", "annotator": "anna", "note": "smiles <b>\n",
}  # fmt: skip
ANNOTATION = checked(GIVEN)


def test_the_stored_text_has_all_but_the_number() -> None:
    stored = replace(ANNOTATION, made=Nanoseconds(7), number=3)
    assert decode(encode(stored), 3) == stored
    with pytest.raises(WireError, match="an invalid annotation"):
        decode(encode(stored).replace('"track":1', '"track":0'), 3)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"track": True}, "track is True, and must be the number of a face"),
        ({"end": GIVEN["start"]}, "its end must be after its start"),
        ({"start": "2026-01-30T08:00:09Z"}, "it is longer than a day"),
        ({"start": "2026-01-31T08:00:00"}, "must be a time with a time zone"),
        ({"label": " sad"}, "must be a label of at most"),
        ({"note": "a\x1bb"}, "control characters"),
        ({"annotator": "../anna"}, "annotator is"),
        ({"made": 5}, "there is no field 'made'"),
    ],
)
def test_what_is_wrong_gets_one_sentence(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AnnotationRefusedError, match=f"^the annotation is refused: .*{sentence}"):
        checked(GIVEN | changed)


def test_the_longest_interval_is_a_day() -> None:
    assert checked(GIVEN | {"start": 0, "end": LONGEST}).end == LONGEST
    with pytest.raises(AnnotationRefusedError, match="longer than a day"):
        checked(GIVEN | {"start": 0, "end": LONGEST + 1})


def test_an_interval_may_end_little_ahead_of_the_clock() -> None:
    check_past(ANNOTATION, Nanoseconds(ANNOTATION.end - CLOCKS))
    with pytest.raises(AnnotationRefusedError, match="give a time in the past, or correct the clocks"):
        check_past(ANNOTATION, Nanoseconds(ANNOTATION.end - CLOCKS - 1))


def test_a_label_is_one_of_the_service_s() -> None:
    for labels in ((), ("sad", "happy")):
        check_label(ANNOTATION, labels)
        check_label(replace(ANNOTATION, label=WRONG), labels)
    with pytest.raises(AnnotationRefusedError, match="there is no label 'sad': choose happy or wrong"):
        check_label(ANNOTATION, ("happy",))


def test_a_period_has_those_that_reach_into_it() -> None:
    start, end = ANNOTATION.start, ANNOTATION.end
    assert within(ANNOTATION, end - 1, end + 5)
    assert within(ANNOTATION, start - 5, start + 1)
    assert not within(ANNOTATION, end, end + 5)
    assert not within(ANNOTATION, start - 5, start)
