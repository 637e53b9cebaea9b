"""``async for``: it waits on the sockets, yields to other tasks, and leaves nothing open."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop
from house import House
from processes import PATIENCE, wait_for

from fer_stream.errors import ConfigError, TransportError
from fer_stream.events import cloudevents

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from fer_stream.client import Subscription


@pytest.fixture(params=["memory", "zeromq"])
def house(request: pytest.FixtureRequest, short_folder: Path, tmp_path: Path) -> Iterator[House]:
    address = f"memory://{tmp_path}" if request.param == "memory" else f"ipc://{short_folder}/hub"
    found = House(request.param, address, tmp_path / "events.db")
    yield found
    found.end()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def cursors(subscription: Subscription, count: int | None = None) -> list[int]:
    found = []
    async for event in subscription:
        found.append(int(event.cursor))
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_events_arrive_while_it_waits(house: House, run: Callable[[Coroutine[None, None, None]], None]) -> None:
    house.start()

    async def follow() -> None:
        with house.listen(after=0) as subscription:
            waiting = asyncio.create_task(cursors(subscription, 9))
            for count in (2, 5):
                await asyncio.sleep(0.05)
                await asyncio.to_thread(house.take, count)
            assert await asyncio.wait_for(waiting, PATIENCE) == list(range(1, 10))

    run(follow())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_single_events_can_be_awaited(house: House, run: Callable[[Coroutine[None, None, None]], None]) -> None:
    house.start()
    house.take(2)

    async def receive() -> None:
        with house.listen(after=0) as subscription:
            for number in (1, 2, 3):
                found = await subscription.receive_async(PATIENCE)
                assert found is not None
                assert (found[0].cursor, cloudevents.decode(found[1])) == (str(number), found[0])
            assert await subscription.receive_async(0.0) is None
            assert await subscription.receive_async(0.05) is None
            waiting = asyncio.create_task(subscription.receive_async(PATIENCE))
            await asyncio.to_thread(house.take, 1)
            assert await waiting is not None
            assert subscription.cursor == "4"
        with pytest.raises(TransportError, match="closed"):
            await subscription.receive_async(1.0)

    run(receive())


def test_waiting_uses_no_cpu_and_delays_no_other_task(house: House) -> None:
    """Compare, in turns, a loop with five waiting subscriptions with a bare loop: other tasks must not be delayed."""
    house.start()
    house.take(1)

    async def lateness(seconds: float = 0.5) -> float:
        late, end = [], time.monotonic() + seconds
        while (begin := time.monotonic()) < end:
            await asyncio.sleep(0.002)
            late.append(time.monotonic() - begin - 0.002)
        return statistics.median(late)

    async def measure() -> tuple[float, float, float]:
        subscriptions = [house.listen(after=2) for _ in range(5)]
        tasks = [asyncio.create_task(cursors(waiting, 1)) for waiting in subscriptions]
        bare, beside = [], []
        for turn in range(6):
            if turn % 2:
                beside.append(await lateness())
            else:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                bare.append(await lateness())
                tasks = [asyncio.create_task(cursors(waiting, 1)) for waiting in subscriptions]
                await asyncio.sleep(0.3)
        begin, used = time.monotonic(), time.thread_time()
        await asyncio.sleep(2.0)
        share = (time.thread_time() - used) / (time.monotonic() - begin)
        for task, waiting in zip(tasks, subscriptions, strict=True):
            task.cancel()
            waiting.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        return min(bare), min(beside), share

    bare, beside, share = asyncio.run(measure())
    assert beside < 2 * bare, f"{1e6 * beside:.0f} us late beside {1e6 * bare:.0f}"
    assert share < 0.02, f"{share:.1%} of a core while nothing comes; a poll every 10 ms takes 6%"


def test_a_cancelled_loop_ends_at_once_and_can_be_continued(house: House) -> None:
    house.start()
    house.take(2)

    async def cut() -> list[int]:
        with house.listen(after=0) as subscription:
            found: list[int] = []

            async def take() -> None:
                async for event in subscription:
                    found.append(int(event.cursor))  # noqa: PERF401  (the events before the cancellation are used)

            task = asyncio.create_task(take())
            while len(found) < 3:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])  # the loop runs no longer than needed
            assert task.cancelled()
            await asyncio.to_thread(house.take, 3)
            return found + await asyncio.wait_for(cursors(subscription, 4), PATIENCE)

    assert asyncio.run(cut()) == [1, 2, 3, 4, 5, 6, 7]


def test_breaking_out_closes_the_sockets(house: House) -> None:
    house.start()
    house.take(3)
    threads, before = threading.active_count(), descriptors()

    def closed() -> None:
        """Wait for libzmq's reaper thread, which closes the descriptors. The event loop does not run meanwhile."""
        wait_for(lambda: descriptors() <= inside, "the descriptors of the closed sockets")

    async def leave() -> None:
        subscription = house.listen(after=0)
        for first in (1, 3):
            async for event in subscription:
                assert int(event.cursor) == first
                break
            closed()
            assert await cursors(subscription, 1) == [first + 1], "the next loop continues there"
        async for event in house.listen(after=0):
            assert int(event.cursor) == 1
            break
        with suppress(ZeroDivisionError):
            async for event in house.listen(after=0):
                assert int(event.cursor) / 0
        closed()

    async def outer() -> None:
        nonlocal inside
        inside = descriptors()
        await leave()

    inside = 0
    asyncio.run(outer())
    assert threading.active_count() == threads
    wait_for(lambda: descriptors() <= before, "the descriptors of ZeroMQ's threads")


def test_a_second_event_loop_continues_the_subscription(house: House) -> None:
    house.start()
    house.take(4)
    subscription = house.listen(after=0)
    assert asyncio.run(cursors(subscription, 2)) == [1, 2]
    assert asyncio.run(cursors(subscription, 2)) == [3, 4]
    assert uvloop.run(cursors(subscription, 1)) == [5]
    house.take(1)
    assert [int(event.cursor) for _, event in zip(range(2), subscription, strict=False)] == [6, 7], (
        "and without an event loop"
    )
    subscription.close()


def test_a_thread_may_have_a_subscription_of_its_own(house: House) -> None:
    house.start()
    in_thread: list[int] = []

    def follow() -> None:
        with house.listen(after=0) as subscription:
            in_thread.extend(int(event.cursor) for _, event in zip(range(7), subscription, strict=False))

    async def both() -> list[int]:
        thread = threading.Thread(target=follow)
        thread.start()
        with house.listen(after=0) as subscription:
            waiting = asyncio.create_task(cursors(subscription, 7))
            await asyncio.to_thread(house.take, 6)
            found = await asyncio.wait_for(waiting, PATIENCE)
        await asyncio.to_thread(thread.join)
        return found

    assert asyncio.run(both()) == in_thread == list(range(1, 8))


def test_a_long_replay_yields_to_other_tasks(house: House) -> None:
    """Another task runs regularly during a long replay."""
    house.start()
    house.take(900)

    async def beside() -> int:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        with house.listen(after=0, until_now=True) as subscription:
            async for event in subscription:
                if int(event.cursor) == 1:
                    turns = 0
                time.sleep(0.0005)  # the caller's work
        ticking.cancel()
        return turns

    assert asyncio.run(beside()) > 20


def test_a_loop_ends_when_another_task_closes_the_subscription(house: House) -> None:
    house.start()

    async def close() -> list[int]:
        subscription = house.listen(after=0)
        waiting = asyncio.create_task(cursors(subscription))
        await asyncio.sleep(0.2)
        subscription.close()
        return await asyncio.wait_for(waiting, PATIENCE)

    assert asyncio.run(close()) == []


def test_a_second_concurrent_loop_is_refused(house: House) -> None:
    house.start()

    async def twice() -> None:
        with house.listen(after=0) as subscription:
            waiting = asyncio.create_task(cursors(subscription))
            await asyncio.sleep(0.05)
            with pytest.raises(ConfigError, match="one loop at a time"):
                await cursors(subscription)
            waiting.cancel()

    asyncio.run(twice())


def test_a_missing_aggregator_is_an_error(tmp_path: Path, short_folder: Path) -> None:
    house = House("zeromq", f"ipc://{short_folder}/hub", tmp_path / "events.db")
    with (
        house.listen(after=0, until_now=True, timeout=0.3) as subscription,
        pytest.raises(TransportError, match="nothing listens there"),
    ):
        asyncio.run(cursors(subscription))
