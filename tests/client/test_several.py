"""Readers that are given several addresses: they use the first aggregator that answers."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
from house import House
from processes import PATIENCE, free_port, wait_for

from fer_stream.client import NoAnswerError, Subscription, status
from fer_stream.errors import ConfigError
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

numbers = itertools.count()


@pytest.fixture(params=["memory", "zeromq"])
def houses(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[House]]:
    """Two aggregators that do not run yet."""
    memory = request.param == "memory"
    addresses = [f"memory://several-{next(numbers)}" if memory else f"tcp://127.0.0.1:{free_port()}" for _ in range(2)]
    found = [House(request.param, address, tmp_path / f"{n}.db") for n, address in enumerate(addresses)]
    yield found
    for house in found:
        house.end()


def subscription(houses: list[House], **how: object) -> Subscription:
    return Subscription(
        ",".join(house.address for house in houses),
        transport=houses[0].settings.transport,
        **how,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("there", [0, 1])
def test_the_one_that_answers_is_followed(houses: list[House], there: int) -> None:
    with subscription(houses, after=0) as events:
        assert events.receive(0.1) is None
        houses[there].start()
        houses[there].take(3)
        assert [events.receive(PATIENCE) is not None for _ in range(4)] == [True] * 4
        settings = houses[0].settings.model_copy(update={"address": ",".join(one.address for one in houses)})
        assert status(settings, PATIENCE)["cursor"] == "4"


def test_another_one_is_followed_when_it_dies(houses: list[House]) -> None:
    houses[0].start()
    with subscription(houses) as events:
        wait_for(lambda: events.receive(0.05) or events._follower._opened, "the latest cursor")
        links = events._follower._links
        houses[0].end()
        houses[1].start()
        wait_for(lambda: events.receive(0.05) or events._follower._links not in (links, None), "the other one")
        houses[1].take(2)
        assert wait_for(lambda: events.receive(0.1), "an event of the other one")


def test_a_loop_in_an_event_loop_finds_it(houses: list[House]) -> None:
    houses[1].start()
    houses[1].take(2)

    async def read() -> list[str]:
        return [event.type async for event in subscription(houses, after=0, until_now=True)]

    assert asyncio.run(asyncio.wait_for(read(), PATIENCE))[0] == "camera.online"


def test_the_error_says_why_none_answers(short_folder: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()},ipc://{short_folder}/nobody"
    match = f"no aggregator answers at {address} within .*: nothing listens there; ipc://.*: nothing listens there"
    with pytest.raises(NoAnswerError, match=match):
        status(Settings(address=address), 0.3)
    with Subscription(address, timeout=0.3) as events, pytest.raises(NoAnswerError, match=match):
        events.receive(PATIENCE)


def test_each_address_must_be_one(short_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"'tcp://127.0.0.1' is not an address"):
        Subscription(f"ipc://{short_folder}/a,tcp://127.0.0.1")
