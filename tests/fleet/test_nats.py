"""Aggregators as real processes on a real cluster of three: whoever dies or sleeps, each partition has one owner.

Each test ends with `Fleet.check`, which reads all streams. Times are printed, not asserted.
"""

from __future__ import annotations

import base64
import json
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from fleet.aggregators import Fleet
from nats_servers import Cluster, api
from processes import wait_for

from fer_stream.fleet.liveness import BEAT, T

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fleet.aggregators import Running
    from scale import Scale


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    servers = Cluster(tmp_path_factory.mktemp("cluster")).start()
    yield servers
    servers.kill()


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose servers a test may kill."""
    servers = Cluster(tmp_path).start()
    yield servers
    servers.kill()


@pytest.fixture
def fleet_of() -> Iterator[Callable[..., Fleet]]:
    fleets: list[Fleet] = []

    def make(cluster: Cluster, partitions: int, *names: str) -> Fleet:
        fleets.append(Fleet(cluster.address, partitions))
        fleets[-1].start(*names)
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.close()


def shared(*names: str) -> Callable[[dict[int, str]], bool]:
    """Return whether all of these own something, and nobody else does."""
    return lambda owners: set(owners.values()) == set(names)


def tell(text: str) -> None:
    """Print a duration; ``pytest -s`` shows it."""
    sys.stdout.write(f"{text}\n")


def lengths(fleet: Fleet, numbers: set[int], since: float) -> str:
    found = sorted(fleet.takes(number, since)[0] - since for number in numbers)
    return f"{found[0]:.1f} to {found[-1]:.1f} s"


def process(fleet: Fleet, name: str) -> Running:
    return next(one for one in fleet.all if one.me == name)


def no_more_than_at_first(fleet: Fleet) -> Callable[[], list[str]]:
    """Return what tells which take-overs there were since now: a partition is served by another process."""
    known = [len(one.said("serve")) for one in fleet.all]

    def later() -> list[str]:
        return [f"{one.me}: {one.said('serve')[n:]}" for one, n in zip(fleet.all, known, strict=True)
                if one.said("serve")[n:]]  # fmt: skip

    return later


def test_two_share_and_one_is_killed(cluster: Cluster, fleet_of: Callable[..., Fleet], scale: Scale) -> None:
    """The other one takes over, closes what was open, and stores events; a supervisor that saw it need not wait."""
    fleet = fleet_of(cluster, 4, "a.0", "b.0")
    rounds = scale.of(1, 20)
    for round_ in range(rounds):
        names = f"a.{round_}", f"b.{round_}"
        owners = fleet.until(shared(*names), f"both own some in round {round_}")
        wait_for(fleet.stored_since(set(owners), 0.0), "events of all", log=fleet.log)
        victim, heir = (process(fleet, names[(round_ + n) % 2]) for n in range(2))
        lost, killed = victim.serves, time.monotonic()
        victim.process.kill()
        fleet.until(shared(heir.me), "the other one owns all")
        tell(f"killed: owned again after {lengths(fleet, lost, killed)}")
        wait_for(fleet.stored_since(set(owners), time.monotonic()), "events of all", log=fleet.log)
        if round_ + 1 == rounds:
            killed = time.monotonic()
            heir.process.kill()
            fleet.start("c.0", former=heir.me)
            fleet.until(shared("c.0"), "the restarted one owns all")
            tell(f"started again at once: owned after {lengths(fleet, set(owners), killed)} with Python's start")
            wait_for(fleet.stored_since(set(owners), time.monotonic()), "events of all", log=fleet.log)
        else:
            heir.process.kill()
            fleet.start(f"a.{round_ + 1}", f"b.{round_ + 1}", former=heir.me)
    fleet.check()


def test_one_sleeps_beyond_the_lease(cluster: Cluster, fleet_of: Callable[..., Fleet], scale: Scale) -> None:
    """It wakes in the middle of an append or not, stores nothing more, and ends."""
    fleet = fleet_of(cluster, 4, "a.0", "b.0")
    for round_ in range(scale.of(1, 20)):
        names = f"a.{round_}", "b.0"
        owners = fleet.until(shared(*names), "both own some")
        wait_for(fleet.stored_since(set(owners), 0.0), "events of all", log=fleet.log)
        sleeper = process(fleet, names[0])
        sleeper.signal(signal.SIGSTOP)
        lost, asleep = sleeper.serves, time.monotonic()
        wait_for(lambda: process(fleet, "b.0").serves >= set(owners), "the other one owns all", log=fleet.log)  # noqa: B023
        tell(f"asleep: owned again after {lengths(fleet, lost, asleep)}")
        wait_for(fleet.stored_since(set(owners), time.monotonic()), "events of all", log=fleet.log)
        woken = time.monotonic()
        sleeper.signal(signal.SIGCONT)
        assert sleeper.end() == 3
        tell(f"woken: ended after {time.monotonic() - woken:.2f} s: {sleeper.said('end')[0]['reason']}")
        fleet.start(f"a.{round_ + 1}")
    fleet.check()


def test_a_newcomer_gets_its_share_and_one_leaves(cluster: Cluster, fleet_of: Callable[..., Fleet]) -> None:
    """Both give partitions away without a take-over: the giver's events end before the heir's fence."""
    fleet = fleet_of(cluster, 8, "a", "b", "c")
    fleet.until(shared("a", "b", "c"), "all three own some")
    begun = time.monotonic()
    fleet.start("d")
    fleet.until(shared("a", "b", "c", "d"), "the newcomer owns some")
    tell(f"a newcomer: it owns its first partition after {time.monotonic() - begun:.1f} s")
    begun = time.monotonic()
    leaver = process(fleet, "a")
    leaver.signal(signal.SIGTERM)
    assert leaver.end() == 0
    tell(f"one leaves: it has given all away after {time.monotonic() - begun:.1f} s")
    assert leaver.said("left")
    owners = fleet.until(shared("b", "c", "d"), "the others own all")
    wait_for(fleet.stored_since(set(owners), time.monotonic()), "events of all", log=fleet.log)
    assert not any(one.said("end") for one in fleet.all)
    fleet.check()


def test_the_leaders_of_the_buckets_die(own_cluster: Cluster, fleet_of: Callable[..., Fleet], scale: Scale) -> None:
    """Nobody is taken over, and events go on."""
    fleet = fleet_of(own_cluster, 4, "a", "b")
    owners = fleet.until(shared("a", "b"), "both own some")
    wait_for(fleet.stored_since(set(owners), 0.0), "events of all", log=fleet.log)
    moved = no_more_than_at_first(fleet)
    for round_ in range(scale.of(1, 10)):
        leader = own_cluster.leader(("KV_alive", "KV_parts")[round_ % 2])
        killed = time.monotonic()
        leader.kill()
        wait_for(fleet.stored_since(set(owners), time.monotonic() + 2), "events of all", log=fleet.log)
        tell(f"a leader dies: all have stored events after {time.monotonic() - killed:.1f} s")
        wait_for(lambda: beats(own_cluster, "a", "b"), "beats", log=fleet.log)
        leader.start()
    assert not moved()
    fleet.check()


def test_no_quorum_and_back(own_cluster: Cluster, fleet_of: Callable[..., Fleet]) -> None:
    """Nobody is taken over while nobody can write, nor after that; events wait."""
    fleet = fleet_of(own_cluster, 4, "a", "b")
    owners = fleet.until(shared("a", "b"), "both own some")
    wait_for(fleet.stored_since(set(owners), 0.0), "events of all", log=fleet.log)
    moved = no_more_than_at_first(fleet)
    for server in own_cluster.servers[:2]:
        server.kill()
    stuck = time.monotonic()
    wait_for(lambda: time.monotonic() > stuck + 2 * T, "an outage of two leases")
    assert all(one.runs for one in fleet.all), fleet.log()
    for server in own_cluster.servers[:2]:
        server.start(wait=False)
    back = time.monotonic()
    wait_for(fleet.stored_since(set(owners), back), "events of all", log=fleet.log)
    tell(f"quorum again: all have stored events after {time.monotonic() - back:.1f} s")
    wait_for(lambda: beats(own_cluster, "a", "b"), "beats", log=fleet.log)
    assert not moved()
    fleet.check()


def beats(cluster: Cluster, *names: str) -> bool:
    """Return whether all of these have written their keys since this call, for longer than a lease."""
    begun = {name: beat(cluster, name) for name in names}
    wait_for(lambda: all(beat(cluster, name) > begun[name] + T / BEAT for name in names), "beats")
    return True


def beat(cluster: Cluster, name: str) -> float:
    found = api(cluster.address, "STREAM.MSG.GET.KV_alive", {"last_by_subj": f"$KV.alive.{name}"}).get("message")
    return json.loads(base64.b64decode(found["data"]))["beat"] if found else 0.0
