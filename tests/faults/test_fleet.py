"""The promises of a cell, on a real cluster of three servers: whoever dies or sleeps, no event is lost or stored twice.

The aggregators are real. Captures and workers are synthetic (`synthetic`), so that a small machine carries many.
"""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from cells import Cell, Listener
from faults.service import megabytes
from machines import Network, possible
from nats_servers import Cluster
from processes import wait_for

from fer_stream.fleet.partitions import partition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.table import Tell
    from processes import Cli, Process
    from scale import Scale


class Fleet(Cell):
    """A cell under load, and everything that its aggregators have published."""

    def __init__(
        self,
        cli: Cli,
        cluster: Cluster,
        cameras: int = 8,
        workers: int = 4,
        aggregators: int = 2,
        partitions: int = 4,
        rate: float = 4.0,
    ) -> None:
        super().__init__(cli, cluster.address, partitions)
        self.cluster = cluster
        self.names = [name for number in range(partitions) for name in self.of(number, cameras // partitions)]
        self.listeners: dict[str, Listener] = {}
        for _ in range(aggregators):
            self.aggregator()
        self.until_owned(*self.aggregators)
        for address in self.aggregators:
            self.listeners[address] = Listener(address)
        self.peers: Process = self.load(rate, workers, *self.names)
        self.until_served()

    # What goes on

    def until_served(self) -> None:
        """Wait until every camera is welcome."""
        self.until(
            lambda: self.peers.events and self.peers.events[-1]["welcome"] == len(self.names), "a welcome of all"
        )

    def served_again(self, since: float) -> float:
        """Wait until cameras that were left after a time are welcome again; return the seconds until the last was."""

        def found() -> float:
            lines = [line for line in self.peers.events if line["time"] > since]
            left = next((line["time"] for line in lines if line["welcome"] < len(self.names)), None)
            back = (line for line in lines if left and line["time"] > left and line["welcome"] == len(self.names))
            return next((line["time"] - since for line in back), 0.0)

        return float(self.until(found, "a welcome of all cameras"))

    def until_stored(self, since: float) -> float:
        """Wait until every partition has published an event after a time; return the seconds until the last had one."""

        def found() -> float:
            first: dict[int, float] = {}
            for listener in self.listeners.values():
                for when, camera in list(listener.heard.values()):
                    if when > since:
                        number = partition(camera, self.partitions)
                        first[number] = min(first.get(number, when), when)
            return max(first.values()) - since if len(first) == self.partitions else 0.0

        return float(self.until(found, "events of all partitions"))

    def sent(self) -> tuple[float, int]:
        """Return when the peers said last how many frames they had sent, and that number."""
        line = self.peers.events[-1]
        return line["time"], line["sent"]

    def rate(self, begin: tuple[float, int], end: tuple[float, int]) -> float:
        """Return the frames a second between two answers of `sent`."""
        return (end[1] - begin[1]) / (end[0] - begin[0])

    def at(self, address: str) -> dict[str, Any]:
        """Return what an aggregator says, which must answer."""
        found: dict[str, Any] = self.until(lambda: self.status(address), "an answer")
        return found

    def held(self) -> int:
        """Return how many events wait for the engine."""
        return sum(self.at(address)["events_held"] for address in self.aggregators)

    def spread(self) -> float:
        """Return how far an aggregator's load is from the mean at most, as a share of the mean."""
        loads = [one["load"] for one in self.at(next(iter(self.aggregators)))["fleet"]["aggregators"].values()]
        mean = sum(loads) / len(loads)
        return max(abs(load - mean) for load in loads) / mean

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        wait_for(lambda: time.monotonic() > until, f"{seconds} s")

    def takeovers(self) -> int:
        """Return how many partitions were taken from aggregators that counted as dead."""
        return sum(process.err.count('"cause": "dead"') for process in self.cli.started)

    # The end

    def finish(self) -> int:
        """End everything, and check all events; return how many there are."""
        assert self.peers.stop() == 0, self.peers.err
        last = self.peers.events[-1]
        assert last["finished"] == len(self.names), self.log()
        for process in self.aggregators.values():
            process.signal(signal.SIGTERM)
        for process in self.aggregators.values():
            process.end()
        for listener in self.listeners.values():
            listener.close()
        assert "Traceback" not in self.log()
        self.until(self.cluster.whole, "a whole cluster")
        events = [event for found in self.events().values() for event in found]
        stored = {event["id"] for event in events}
        for listener in self.listeners.values():
            assert listener.heard.keys() <= stored, "what was published is stored"
        self.check_closed()
        return len(events)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    servers = Cluster(tmp_path).start()
    yield servers
    servers.kill()


TOLD = "none lost, no id twice, no gap; ledgers balanced, every interval closed"


def test_leaders_die_and_the_quorum_is_lost(cli: Cli, cluster: Cluster, scale: Scale, tell: Tell) -> None:
    fleet = Fleet(cli, cluster)
    times, outages, rates = scale.of(1, 100), list[float](), list[float]()
    begun = fleet.sent()
    fleet.wait(3)
    normal = fleet.rate(begun, fleet.sent())
    for number in range(times):
        leader = cluster.leader(("KV_alive", "FER_EV_00", "KV_parts", "FER_EV_02")[number % 4])
        begun, since = fleet.sent(), time.monotonic()
        leader.kill()
        outages.append(fleet.until_stored(since + 0.5) + 0.5)
        rates.append(fleet.rate(begun, fleet.sent()))
        leader.start(wait=False)
        fleet.until(cluster.whole, "a whole cluster")

    seconds = scale.of(4, 60)
    for server in cluster.servers[:2]:
        server.kill()
    begun = fleet.sent()
    fleet.wait(seconds)
    rate = fleet.rate(begun, fleet.sent())
    held = fleet.held()
    assert held > 0
    for server in cluster.servers[:2]:
        server.start(wait=False)
    back = fleet.until_stored(time.monotonic())
    fleet.until(lambda: not fleet.held(), "that all are stored")
    assert fleet.takeovers() == 0, "nobody is taken for dead"
    count = fleet.finish()
    tell(
        "cell: the leader of a stream or bucket is killed (-9) under load",
        f"{times} times, {count} events: {TOLD}; nobody who lives is taken over",
        f"events of all partitions within {max(outages):.1f} s; frames/s at least {min(rates) / normal:.2f} of before",
        (max(outages), 10.0),
        (0.9, min(rates) / normal),
    )
    tell(
        "cell: no quorum",
        f"for {seconds} s: {held} events were held, and came in order, once; nobody who lives is taken over",
        f"frames/s {rate / normal:.2f} of before; events again {back:.1f} s after the return",
        (0.99, rate / normal),
    )


def test_an_aggregator_sleeps_dies_and_comes_back(cli: Cli, cluster: Cluster, scale: Scale, tell: Tell) -> None:
    fleet = Fleet(cli, cluster)
    asleep, elsewhere, back = list[float](), list[float](), list[float]()
    times = scale.of(1, 100)
    for _ in range(times):
        first, second = fleet.aggregators
        process, since = fleet.aggregators[first], time.monotonic()
        process.signal(signal.SIGSTOP)
        fleet.until(lambda: len(fleet.at(second)["cameras"]) == len(fleet.names), "all cameras")  # noqa: B023
        asleep.append(time.monotonic() - since)
        fleet.until_stored(time.monotonic())
        process.signal(signal.SIGCONT)
        assert process.end() == 1, "so that its supervisor starts it again"

        fleet.aggregator(first)
        fleet.until_owned(first, second)
        fleet.until_served()
        since = time.monotonic()
        fleet.aggregators[first].kill()
        fleet.aggregator(first)
        back.append(fleet.served_again(since))
        fleet.until_owned(first, second)

        since = time.monotonic()
        fleet.aggregators[second].kill()
        elsewhere.append(fleet.served_again(since))
        fleet.until_owned(first)
        fleet.aggregator(second)
        fleet.until_owned(first, second)
    count = fleet.finish()
    tell(
        "cell: an aggregator is suspended beyond its lease, taken over, and woken",
        f"{times} times, {count} events: {TOLD}; no stale event is stored",
        f"its cameras are served elsewhere within {max(asleep):.1f} s",
        (max(asleep), 6.0),
    )
    tell(
        "cell: an aggregator is killed (-9)",
        f"{times} times each, {count} events: {TOLD}",
        f"its cameras are served within {max(elsewhere):.1f} s elsewhere, {max(back):.1f} s on its machine",
        (max(elsewhere), 6.0),
        (max(back), 3.0),
    )


@pytest.mark.soak
@pytest.mark.skipif(not possible(), reason="this user may not make network namespaces")
def test_a_server_is_cut_off(cli: Cli, tmp_path: Path, scale: Scale, tell: Tell) -> None:
    """Each server is a machine of its own; the aggregators and their peers are a fourth one."""
    network = Network(tmp_path / "machines")
    try:
        *places, here = (network.machine(number, cli.environment) for number in range(1, 5))
        with here.inside():
            cluster = Cluster(tmp_path, machines=[(place.address, place.enter) for place in places]).start()
            fleet = Fleet(cli, cluster)
            times, outages = scale.of(1, 30), list[float]()
            for number in range(times):
                leader = cluster.leader(("KV_alive", "FER_EV_00", "KV_parts", "FER_EV_02")[number % 4])
                place = places[cluster.servers.index(leader)]
                since = time.monotonic()
                network.connect(place, on=False)
                outages.append(fleet.until_stored(since + 1.0) + 1.0)
                fleet.wait(2)
                network.connect(place, on=True)
                fleet.until(cluster.whole, "a whole cluster")
            assert fleet.takeovers() == 0, "nobody is taken for dead"
            count = fleet.finish()
            cluster.kill()
    finally:
        network.close()
    tell(
        "cell: the machine of a leader is cut off from the network",
        f"{times} times, {count} events: {TOLD}; nobody who lives is taken over",
        f"events of all partitions within {max(outages):.1f} s",
        (max(outages), 12.0),
    )


@pytest.mark.soak
def test_an_aggregator_and_a_leader_die_together(cli: Cli, cluster: Cluster, scale: Scale, tell: Tell) -> None:
    fleet = Fleet(cli, cluster)
    times, took = scale.of(1, 20), list[float]()
    for number in range(times):
        first, second = fleet.aggregators
        leader = cluster.leader(("KV_alive", "KV_parts", "FER_EV_01")[number % 3])
        since = time.monotonic()
        leader.kill()
        fleet.aggregators[first].kill()
        fleet.until_owned(second)
        fleet.until_served()
        took.append(fleet.until_stored(since + 1.0) + 1.0)
        leader.start(wait=False)
        fleet.until(cluster.whole, "a whole cluster")
        fleet.aggregator(first)
        fleet.until_owned(first, second)
    count = fleet.finish()
    tell(
        "cell: an aggregator and a leader are killed (-9) together",
        f"{times} times, {count} events: {TOLD}",
        f"events of all partitions within {max(took):.1f} s",
        (max(took), 14.0),
    )


@pytest.mark.soak
def test_a_large_cell_for_an_hour(cli: Cli, cluster: Cluster, scale: Scale, tell: Tell) -> None:
    """256 captures, 4 aggregators, random faults; loads are even again after each."""
    fleet = Fleet(cli, cluster, cameras=256, workers=16, aggregators=4, partitions=16, rate=1.0)
    numbers, ends, faults = random.Random(18), time.monotonic() + scale.of(60, 3600), 0
    memory: list[float] = []
    uneven: list[float] = []
    while time.monotonic() < ends:
        fleet.until_owned(*fleet.aggregators)
        fleet.until(lambda: fleet.spread() <= 0.2, "even loads")
        uneven.append(fleet.spread())
        fleet.until_stored(time.monotonic())
        memory.append(max(megabytes([psutil.Process(one.pid)]) for one in fleet.aggregators.values()))
        victim = numbers.choice(list(fleet.aggregators))
        match numbers.choice(("kill", "sleep", "leader", "leave")):
            case "kill":
                fleet.aggregators[victim].kill()
                fleet.aggregator(victim)
            case "leave":
                assert fleet.aggregators[victim].stop() == 0
                fleet.aggregator(victim)
            case "sleep":
                fleet.aggregators[victim].signal(signal.SIGSTOP)
                fleet.wait(5)
                fleet.aggregators[victim].signal(signal.SIGCONT)
                assert fleet.aggregators[victim].end() == 1
                fleet.aggregator(victim)
            case "leader":
                leader = cluster.leader(numbers.choice(("KV_alive", "KV_parts", "FER_EV_03")))
                leader.kill()
                leader.start(wait=False)
                fleet.until(cluster.whole, "a whole cluster")
        faults += 1
    fleet.until_owned(*fleet.aggregators)
    count = fleet.finish()
    quarter = len(memory) // 4
    growth = max(memory[quarter:], default=0.0) - memory[quarter]
    tell(
        "cell: 256 captures, 4 aggregators, random faults",
        f"{faults} faults in {scale.of(60, 3600)} s, {count} events: {TOLD}",
        f"loads within {max(uneven):.0%} of the mean after each; memory of an aggregator {growth:+.1f} MB",
        (max(uneven), 0.2),
    )
