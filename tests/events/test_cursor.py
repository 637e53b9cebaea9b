"""Cursors: of one journal, and of a cell with several partitions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from house import event
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.errors import WireError
from fer_stream.events.cloudevents import decode, encode, with_cursors
from fer_stream.events.cursor import CellCursor, to_cursor, to_number, to_numbers
from fer_stream.journal import gap
from fer_stream.journal.contents import stored_gap
from fer_stream.types import Cursor, GapData


@given(st.lists(st.integers(0, 10**19 - 1), min_size=1, max_size=256))
def test_numbers_become_a_cursor_and_numbers_again(numbers: list[int]) -> None:
    cursor = to_cursor(*numbers)
    assert to_numbers(cursor) == tuple(numbers)
    assert to_numbers(cursor) == (to_number(cursor),) if len(numbers) == 1 else "," in cursor


def test_a_cell_s_cursor_has_all_partitions() -> None:
    assert to_cursor(17, 4) == "00:17,01:4"
    assert to_cursor(*range(256)).endswith(",fe:254,ff:255")


@given(st.lists(st.integers(0, 99), min_size=2, max_size=20), st.data())
def test_a_cell_s_cursor_follows_changes_of_one_number(numbers: list[int], data: st.DataObject) -> None:
    cell = CellCursor(numbers)
    for _ in range(5):
        partition = data.draw(st.integers(0, len(numbers) - 1))
        numbers[partition] = data.draw(st.integers(0, 99))
        assert cell.at(partition, numbers[partition]) == to_cursor(*numbers)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "01", "1.0", " 1", "1\n", "9" * 20, "00:1", "00:1,01:", "00:1,", ",", "00:1,01:2,", "00:1 01:2",
     "0:1,1:2",
     "00:1,01:02", "00:1,01:-2", "00:1,0A:2", "00:1,01:\u0661", to_cursor(*range(256)) + ",100:5", "x" * 10_000],
)  # fmt: skip
def test_other_texts_are_refused_in_one_sentence(text: str) -> None:
    for read in (to_numbers, to_number):
        with pytest.raises(ValueError, match=r"is not a cursor: .*give the cursor of an event") as refused:
            read(text)
        assert len(str(refused.value)) < 200


@pytest.mark.parametrize(("text", "found", "wanted"), [("01:1,00:1", "01", "00"), ("00:1,02:1", "02", "01")])
def test_a_cursor_with_missing_partitions_is_refused(text: str, found: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"it has partition {found} in place of {wanted}; .*complete"):
        to_numbers(text)


def test_the_cursor_of_a_cell_is_none_of_a_journal() -> None:
    with pytest.raises(ValueError, match="'00:1,01:1' is not a cursor"):
        to_number("00:1,01:1")


# In an event


def moved(cursor: Cursor) -> Cursor:
    return to_cursor(5, to_number(cursor), 7)


@pytest.mark.parametrize("camera", ["door", 'a"cursor":"3","epoch":', "tür \\ \u2028"])
def test_an_event_gets_another_cursor_and_stays_the_same_otherwise(camera: str) -> None:
    old = event(3, camera)
    new, text = with_cursors(old, encode(old), moved)
    assert new == replace(old, cursor=Cursor("00:5,01:3,02:7"))
    assert json.loads(text) == json.loads(encode(old)) | {"cursor": "00:5,01:3,02:7"}
    assert decode(text) == new


def test_a_text_in_another_form_gets_another_cursor_too() -> None:
    old = event(3)
    _, text = with_cursors(old, json.dumps(json.loads(encode(old))), moved)
    assert json.loads(text) == json.loads(encode(old)) | {"cursor": "00:5,01:3,02:7"}


def test_a_gap_gets_other_cursors_and_keeps_its_id() -> None:
    for old, text in ((gap(2, 9, "retention"), ""), stored_gap(2, 9, "journal full")[:2]):
        before = text or encode(old)
        new, after = with_cursors(old, before, moved)
        assert isinstance(new.data, GapData)
        assert (new.data.from_cursor, new.data.to_cursor) == ("00:5,01:2,02:7", "00:5,01:9,02:7")
        assert new.cursor == new.data.to_cursor
        assert decode(after) == new
        assert json.loads(after)["id"] == json.loads(before)["id"]


def test_an_event_with_an_incomplete_cursor_is_refused() -> None:
    for cursor in ("00:1,02:1", "00:1"):
        with pytest.raises(WireError, match="is not a cursor"):
            decode(encode(event(1)).replace('"cursor":"1"', f'"cursor":"{cursor}"'))
