"""The status of a whole cell, from whichever aggregator is asked; one that does not answer is told, and no error."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from processes import PATIENCE, free_port, wait_for
from scripted import Cell, camera_of

from fer_stream.client import NoAnswerError, StateReader, status
from fer_stream.client.state import places
from fer_stream.errors import WireError
from fer_stream.transports.zeromq import ZeroMQ

if TYPE_CHECKING:
    from collections.abc import Iterator

numbers = itertools.count()


def camera(**changes: Any) -> dict[str, Any]:
    return {"state": "online", "heard_s": 0.1, "ledger": {}, "tracks": []} | changes


@pytest.fixture
def cell() -> Iterator[Cell]:
    """Three aggregators, which own every third of six partitions each."""
    made = Cell([f"tcp://127.0.0.1:{free_port()}" for _ in range(3)], 6)
    for number, each in enumerate(made.all):
        each.state = {
            "cameras": {camera_of(number, 6): camera(), camera_of(number + 3, 6): camera()},
            "workers": {"gpu": {"state": "idle"}, f"cpu-{number}": {"state": "busy"}},
            "events": {"face.entered": number + 1, f"only.{number}": 1},
            "events_held": 2,
            "labels": ["happy", f"label-{number}"],
        }
        each.start()
    yield made
    made.close()


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_every_aggregator_tells_of_the_whole_cell(cell: Cell, asked: int) -> None:
    cell.store(camera_of(0, 6), camera_of(4, 6))
    settings = cell.settings.model_copy(update={"address": cell.all[asked].address})
    state = status(settings, PATIENCE)
    where = {name: (about["partition"], about["aggregator"]) for name, about in state["cameras"].items()}
    assert where == {camera_of(number, 6): (number, f"agg-{number % 3}") for number in range(6)}
    assert state["workers"] == {
        **{f"gpu at agg-{n}": {"state": "idle", "aggregator": f"agg-{n}"} for n in range(3)},
        **{f"cpu-{n}": {"state": "busy", "aggregator": f"agg-{n}"} for n in range(3)},
    }
    assert state["events"] == {"face.entered": 6, "only.0": 1, "only.1": 1, "only.2": 1}
    assert state["events_held"] == 6
    assert set(state["labels"]) == {"happy", "label-0", "label-1", "label-2"}
    assert state["cursor"] == "00:1,01:0,02:0,03:0,04:1,05:0"
    assert {name: about["error"] for name, about in state["fleet"]["aggregators"].items()} == dict.fromkeys(
        ["agg-0", "agg-1", "agg-2"], ""
    )


def test_the_latest_cursor_is_that_of_the_one_that_knows_most(cell: Cell) -> None:
    cell.store(camera_of(0, 6), camera_of(4, 6))
    cell.all[0].knows, cell.all[1].knows = {4: 0}, {0: 0}
    cell.all[2].knows = {0: 0, 4: 0}
    assert status(cell.settings, PATIENCE)["cursor"] == "00:1,01:0,02:0,03:0,04:1,05:0"


def test_one_that_does_not_answer_is_told(cell: Cell) -> None:
    cell.all[1].end()
    settings = cell.settings.model_copy(update={"address": cell.all[0].address})
    state = status(settings, 0.5)
    about = state["fleet"]["aggregators"]["agg-1"]
    assert (about["error"], about["uptime_s"]) == ("no answer within 0.5 s", None)
    assert camera_of(1, 6) not in state["cameras"]
    assert camera_of(2, 6) in state["cameras"]


def test_one_that_cannot_be_asked_is_told(cell: Cell) -> None:
    fleet = {"cell": "site", "partitions": 6, "me": "agg-0", "unowned": [4]}
    places_ = {"agg-0": {"address": cell.all[0].address, "key": "", "owns": []},
               "agg-1": {"address": "tcp://192.0.2.1:5550", "key": "k" * 40, "owns": []}}  # fmt: skip
    cell.all[0].state["fleet"] = fleet | {"aggregators": places_}
    state = status(cell.settings.model_copy(update={"address": cell.all[0].address}), PATIENCE)
    assert "accepts only peers with a key" in state["fleet"]["aggregators"]["agg-1"]["error"]
    assert len(state["cameras"]) == 2


def test_a_camera_that_moves_is_told_once(cell: Cell) -> None:
    moving, nowhere = camera_of(0, 6), camera_of(1, 6, 1)
    cell.all[2].state["cameras"][moving] = camera(heard_s=0.0, epoch=1)
    cell.all[0].state["cameras"][nowhere] = camera(heard_s=5.0)
    cell.all[2].state["cameras"][nowhere] = camera(heard_s=0.2)
    state = status(cell.settings, PATIENCE)
    assert state["cameras"][moving]["aggregator"] == "agg-0", "its owner, although another one heard of it later"
    assert state["cameras"][nowhere]["aggregator"] == "agg-2", "nobody who has it owns it"


def test_links_are_used_again_and_aggregators_come_and_go(cell: Cell) -> None:
    cell.all[2].end()
    whole = cell.all
    cell.all = whole[:2]
    reader = StateReader(ZeroMQ(), whole[0].address)
    try:
        assert len(reader.ask(PATIENCE)["fleet"]["aggregators"]) == 2
        links = dict(reader._others)
        whole[2].start()
        cell.all = whole
        state = wait_for(
            lambda: (found := reader.ask(PATIENCE)) and camera_of(2, 6) in found["cameras"], "the third one"
        )
        assert state
        assert reader._others.items() >= links.items()
        cell.all = whole[:1]
        assert len(reader.ask(PATIENCE)["fleet"]["aggregators"]) == 1
        assert reader.others == []
    finally:
        reader.close()
        cell.all = whole


def test_on_one_machine_the_answer_is_passed_on(cell: Cell) -> None:
    cell.all[0].state["fleet"] = None
    state = status(cell.settings.model_copy(update={"address": cell.all[0].address}), PATIENCE)
    assert state["fleet"] is None
    assert state["workers"] == {"gpu": {"state": "idle"}, "cpu-0": {"state": "busy"}}
    with pytest.raises(NoAnswerError, match="nothing listens there"):
        status(cell.settings.model_copy(update={"address": f"tcp://127.0.0.1:{free_port()}"}), 0.3)


def test_a_strange_answer_is_one_error(cell: Cell) -> None:
    settings = cell.settings.model_copy(update={"address": cell.all[0].address})
    for fleet in ({"aggregators": {"a": {}}}, {"aggregators": []}, {"x": 1}, "site", {"aggregators": {"a": 1}}):
        with pytest.raises(WireError, match="a status with an invalid fleet"):
            places({"fleet": fleet})
    for changes in ({"cameras": 1}, {"cameras": {"door": {}}}, {"cursor": "00:1"}, {"cursor": "5"}):
        cell.all[1].state |= changes
        with pytest.raises(WireError, match="the cell's aggregators are of several versions"):
            status(settings, PATIENCE)
        for key in changes:
            del cell.all[1].state[key]
