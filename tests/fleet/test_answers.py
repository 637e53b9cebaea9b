"""WELCOME and MOVED as JSON, and invalid ones."""

from __future__ import annotations

from typing import Any

import pytest

from fer_stream.errors import WireError
from fer_stream.fleet import answers
from fer_stream.fleet.records import Moved, Place, Welcome

PLACE = {"address": "tcp://192.0.2.1:5550", "key": "k" * 40}
MOVED: dict[str, Any] = {"place": PLACE, "wait": 0, "others": []}


def test_answers_survive_the_way() -> None:
    places = Place("tcp://192.0.2.1:5550", "k" * 40), Place("ipc:///run/a")
    for moved in (Moved(places[0], others=places), Moved(None, 0.25)):
        assert answers.moved(answers.to_body(moved)) == moved
    assert answers.welcome(answers.to_body(Welcome(places))) == Welcome(places)
    assert answers.welcome({"memory": True}) is None, "an older aggregator's"


def test_no_more_places_are_named_than_may_be() -> None:
    many = tuple(Place(f"tcp://192.0.2.1:{port}") for port in range(1, 100))
    found = answers.welcome(answers.to_body(Welcome(many)))
    assert found == Welcome(many[: answers.MAX_PLACES])


@pytest.mark.parametrize(
    "change",
    [
        {"place": "tcp://192.0.2.1:5550"},
        {"place": {"address": "192.0.2.1"}},
        {"place": {"address": 7}},
        {"place": PLACE | {"key": "short"}},
        {"place": PLACE | {"key": None}},
        {"place": PLACE | {"address": "tcp://192.0.2.1:5550#" + "k" * 40}},
        {"place": PLACE | {"address": "tcp://" + "a" * 300}},
        {"place": PLACE | {"address": "tcp://192.0.2.1:5550\n"}},
        {"wait": -1},
        {"wait": 60_001},
        {"wait": 0.5},
        {"wait": True},
        {"wait": None},
        {"others": None},
        {"others": [{}]},
        {"others": [PLACE | {"address": f"ipc:///{n}"} for n in range(65)]},
    ],
    ids=str,
)
def test_an_invalid_answer_is_refused(change: dict[str, Any]) -> None:
    answers.moved(MOVED)
    with pytest.raises(WireError):
        answers.moved(MOVED | change)
