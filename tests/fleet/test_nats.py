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


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
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


def test_whoever_sleeps_dies_leaves_or_joins(cluster: Cluster, fleet_of: Callable[..., Fleet], scale: Scale) -> None:
    fleet = fleet_of(cluster, 8, "a0", "b0")
    expected = set()
    for n in range(scale.of(1, 20)):
        a, b, c, d, heir = f"a{n}", f"b{n}", f"c{n}", f"d{n}", f"a{n + 1}"
        owners = fleet.until(shared(a, b), "both own some")
        everything = set(owners)
        wait_for(fleet.stored_since(everything, 0.0), "events of all", log=fleet.log)

        sleeper = process(fleet, b)
        sleeper.signal(signal.SIGSTOP)
        lost, since = sleeper.serves, time.monotonic()
        fleet.until(shared(a), "the other one owns all")
        wait_for(fleet.stored_since(everything, time.monotonic()), "events of all", log=fleet.log)
        tell(f"asleep: owned again after {lengths(fleet, lost, since)}")
        since = time.monotonic()
        sleeper.signal(signal.SIGCONT)
        assert sleeper.end() == 3, fleet.log()
        tell(f"woken: ends after {time.monotonic() - since:.2f} s, because {sleeper.said('end')[0]['reason']}")

        since = time.monotonic()
        fleet.start(c)
        fleet.until(shared(a, c), "the newcomer owns some")
        tell(f"a newcomer owns its first partition after {time.monotonic() - since:.1f} s")

        lost, since = process(fleet, a).serves, time.monotonic()
        process(fleet, a).process.kill()
        fleet.start(d, former=a)
        fleet.until(shared(c, d), "the restarted one owns some")
        tell(f"killed and restarted: owned again after {lengths(fleet, lost, since)}")

        lost, since = process(fleet, c).serves, time.monotonic()
        process(fleet, c).process.kill()
        fleet.until(shared(d), "the last one owns all")
        tell(f"killed: owned again after {lengths(fleet, lost, since)}")

        fleet.start(heir)
        wait_for(lambda: process(fleet, heir).said("joined"), "a newcomer", log=fleet.log)  # noqa: B023
        since = time.monotonic()
        process(fleet, d).signal(signal.SIGTERM)
        assert process(fleet, d).end() == 0, fleet.log()
        tell(f"leaves: has given all away after {time.monotonic() - since:.1f} s")
        fleet.until(shared(heir), "the heir owns all")
        wait_for(fleet.stored_since(everything, time.monotonic()), "events of all", log=fleet.log)
        expected |= {(b, a), (a, d), (c, d)}
        fleet.start(f"b{n + 1}")
    assert fleet.takeovers() <= expected
    fleet.check()


def test_nobody_is_taken_over_while_the_engine_is_away(
    cluster: Cluster, fleet_of: Callable[..., Fleet], scale: Scale
) -> None:
    """A leader dies, then there is no quorum; events wait. In the short form both happen at once."""
    fleet = fleet_of(cluster, 4, "a", "b")
    owners = set(fleet.until(shared("a", "b"), "both own some"))
    wait_for(fleet.stored_since(owners, 0.0), "events of all", log=fleet.log)
    for round_ in range(scale.of(1, 10)):
        leader = cluster.leader(("KV_alive", "KV_parts")[round_ % 2])
        second = next(server for server in cluster.servers if server is not leader)
        leader.kill()
        killed = time.monotonic()
        if scale.share:
            wait_for(fleet.stored_since(owners, killed + 2), "events of all", log=fleet.log)
            tell(f"a leader dies: all have stored events after {time.monotonic() - killed:.1f} s")
        second.kill()
        stuck = time.monotonic()
        wait_for(lambda: time.monotonic() > stuck + T + 1, "an outage of more than a lease")  # noqa: B023
        assert all(one.runs for one in fleet.all), fleet.log()
        leader.start(wait=False)
        second.start(wait=False)
        back = time.monotonic()
        wait_for(fleet.stored_since(owners, back), "events of all", log=fleet.log)
        tell(f"a quorum again: all have stored events after {time.monotonic() - back:.1f} s")
        beats(cluster, "a", "b")
    assert not fleet.takeovers()
    assert all(one.runs for one in fleet.all), fleet.log()
    fleet.check()


def beats(cluster: Cluster, *names: str) -> None:
    """Wait until all of these have written their keys since this call for as long as a lease."""
    begun = {name: beat(cluster, name) for name in names}
    wait_for(lambda: all(beat(cluster, name) > begun[name] + T / BEAT for name in names), "beats")


def beat(cluster: Cluster, name: str) -> float:
    found = api(cluster.address, "STREAM.MSG.GET.KV_alive", {"last_by_subj": f"$KV.alive.{name}"}).get("message")
    return json.loads(base64.b64decode(found["data"]))["beat"] if found else 0.0
