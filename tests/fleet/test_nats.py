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
from nats_servers import Cluster, NatsServer, api
from processes import wait_for
from slow_link import FAR, slow_link

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


def test_a_fleet_that_nobody_leaves_in_peace(cluster: Cluster, fleet_of: Callable[..., Fleet], scale: Scale) -> None:
    """One sleeps, is killed, leaves or joins; leaders die, and so many servers that nobody can write."""
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
        both = fleet.until(shared(heir, f"b{n + 1}"), "the newcomer owns some")
        leader = cluster.leader(("KV_alive", "KV_parts")[n % 2])
        second = next(server for server in cluster.servers if server is not leader)
        leader.kill()
        if scale.share:
            since = time.monotonic()
            wait_for(fleet.stored_since(everything, since + 2), "events of all", log=fleet.log)
            tell(f"a leader dies: all have stored events after {time.monotonic() - since:.1f} s")
        second.kill()
        since = time.monotonic()
        wait_for(lambda: time.monotonic() > since + T + 1, "an outage of more than a lease")  # noqa: B023
        assert all(process(fleet, me).runs for me in both.values()), fleet.log()
        leader.start(wait=False)
        second.start(wait=False)
        since = time.monotonic()
        wait_for(fleet.stored_since(everything, since), "events of all", log=fleet.log)
        tell(f"a quorum again: all have stored events after {time.monotonic() - since:.1f} s")
        beats(cluster, heir, f"b{n + 1}")
        assert fleet.takeovers() <= expected, "nobody is taken over who lives"
    fleet.check()


def test_one_is_cut_off_from_the_engine(tmp_path: Path, fleet_of: Callable[..., Fleet], scale: Scale) -> None:
    """It serves on, is taken over, and ends when it learns of that; what it had sent is not stored then."""
    if not scale.share:
        pytest.skip("only with --soak")
    server = NatsServer(tmp_path)
    with slow_link() as link:
        if not link.real:
            pytest.skip("this needs network namespaces")
        server.host, server.under = FAR, link.far
        server.configure()
        server.start()
        try:
            fleet = fleet_of(server, 4)
            fleet.start("a", under=link.far)
            for n in range(scale.of(1, 20)):
                name = f"b{n}"
                fleet.start(name, under=link.near)
                everything = set(fleet.until(shared("a", name), "both own some"))
                wait_for(fleet.stored_since(everything, 0.0), "events of all", log=fleet.log)
                lost, since = process(fleet, name).serves, time.monotonic()
                link.cut()
                wait_for(lambda: process(fleet, "a").serves == everything, "the other one owns all", log=fleet.log)  # noqa: B023
                tell(f"cut off: owned again after {lengths(fleet, lost, since)}")
                assert process(fleet, name).runs, fleet.log()
                link.mend()
                since = time.monotonic()
                assert process(fleet, name).end() == 3, fleet.log()
                tell(f"mended: ends after {time.monotonic() - since:.1f} s")
                wait_for(fleet.stored_since(everything, time.monotonic()), "events of all", log=fleet.log)
        finally:
            fleet.close()
            server.kill()
    server.host, server.under = "127.0.0.1", ()
    server.configure()
    server.start()
    try:
        fleet.address = server.address
        fleet.check()
    finally:
        server.kill()


def beats(cluster: Cluster, *names: str) -> None:
    """Wait until all of these have written their keys since this call for as long as a lease."""
    begun = {name: beat(cluster, name) for name in names}
    wait_for(lambda: all(beat(cluster, name) > begun[name] + T / BEAT for name in names), "beats")


def beat(cluster: Cluster, name: str) -> float:
    found = api(cluster.address, "STREAM.MSG.GET.KV_alive", {"last_by_subj": f"$KV.alive.{name}"}).get("message")
    return json.loads(base64.b64decode(found["data"]))["beat"] if found else 0.0
