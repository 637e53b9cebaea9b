"""An aggregator on another machine whose address changes, whose network is cut, or that cannot be reached."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from networks import Machines, write_film
from processes import wait_for
from slow_link import FAR, NEAR, SlowLink, slow_link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.table import Tell
    from processes import Cli, Process

MOVED = "10.231.0.3"
LIMIT = 5.0
LOCALHOST = "127.0.0.1 localhost\n"
KNOWN = f"{LOCALHOST}{FAR} hub\n"


class Site(Machines):
    """A capture, a worker and a subscriber on one machine, and an aggregator on another, known by its host name."""

    def __init__(self, cli: Cli, link: SlowLink) -> None:
        super().__init__(cli, link)
        self.hosts = cli.folder / "hosts"
        self.name(FAR)
        film = write_film(cli.folder / "film.mp4", 640, 480, frames=60)
        (cli.folder / "cameras.toml").write_text(f'[cameras.door]\nsource = "{film}"\nloop = true\n')
        self.hub = self.aggregator()
        self.roles = {
            "capture": self.named("capture", "capture", "--camera", "door", "--config", "cameras.toml"),
            "worker": self.named("worker", "worker", "--name", "w"),
            "subscriber": self.named("client", "subscribe", "--format", "jsonl", "--type", "camera"),
        }

    def name(self, number: str) -> None:
        """Make the aggregator's name resolve to this address."""
        self.hosts.write_text(f"{LOCALHOST}{number} hub\n")

    def named(self, role: str, *command: object) -> Process:
        return self.near(role, *command, address=f"tcp://hub:{self.link.port}", hosts=self.hosts)

    def move(self) -> None:
        """Change the IP address of the aggregator's machine; packets to and from the old one are dropped silently."""
        device = "$(ip -o link | grep -o 'fer[0-9]*' | head -1)"
        for end, command in (
            (self.link.near, f"ip route add {MOVED} dev {device}"),
            (self.link.far, f"ip addr del {FAR} peer {NEAR} dev {device}"),
            (self.link.far, f"ip addr add {MOVED} peer {NEAR} dev {device}"),
        ):
            subprocess.run([*end, "sh", "-c", command], check=True, capture_output=True)

    def until_back(self, hub: Process, known: dict[str, int]) -> dict[str, float]:
        """Wait until every role is seen more often than ``known``, and return the seconds for each."""
        begin, found = time.monotonic(), {}

        def seen() -> bool:
            for what, count in self.seen(hub).items():
                if count > known.get(what, 0):
                    found.setdefault(what, time.monotonic() - begin)
            return len(found) == len(self.roles)

        wait_for(seen, "all roles", log=lambda: hub.err + "".join(role.err for role in self.roles.values()))
        return found

    def seen(self, hub: Process) -> dict[str, int]:
        heard = len(self.roles["subscriber"].events)
        return {"capture": hub.err.count("door is here"), "worker": hub.err.count("w is here"), "subscriber": heard}


@pytest.fixture
def site(cli: Cli) -> Iterator[Site]:
    with slow_link(latency=0.02) as link:
        if not isinstance(link, SlowLink):
            pytest.skip("no network namespaces here")
        yield Site(cli, link)


@pytest.mark.parametrize("away", [pytest.param(0.0, marks=pytest.mark.soak), 6.0])
def test_a_new_address_while_the_old_one_drops_packets(site: Site, away: float, tell: Tell) -> None:
    site.until_back(site.hub, {})
    site.move()
    site.hub.kill()
    hub = site.aggregator(site.link.bind.replace(FAR, MOVED))
    time.sleep(away)  # long enough for the roles to detect the loss and retry the old address
    known = {"subscriber": len(site.roles["subscriber"].events)}
    site.name(MOVED)
    took = site.until_back(hub, known)
    tell(
        f"aggregator has a new IP address, which its name tells after {away:.0f} s; the old one swallows packets",
        "captures, workers and subscribers find it",
        ", ".join(f"{role} after {seconds:.1f} s" for role, seconds in took.items()),
        *((seconds, LIMIT) for seconds in took.values()),
    )


@pytest.mark.parametrize("cut", [5.0, pytest.param(20.0, marks=pytest.mark.soak)])
def test_a_partition_that_heals(site: Site, cut: float, tell: Tell) -> None:
    site.until_back(site.hub, {})
    site.link.cut()
    site.hub.until_said("camera door is silent")
    time.sleep(cut)
    known = len(site.roles["subscriber"].events)
    site.link.mend()
    begin = time.monotonic()
    site.hub.until(lambda: len(site.roles["subscriber"].events) > known, "events of a camera that is back")
    took = time.monotonic() - begin
    tell(
        f"the network between the machines is cut, and mended {cut:.0f} s after that was noticed",
        "frames go to the worker and events to the subscriber again",
        f"after {took:.1f} s",
        (took, LIMIT),
    )


@pytest.mark.parametrize("cause", ["name", "nothing", "silence", "route"])
def test_a_lost_and_a_restored_connection_are_each_logged_once(cli: Cli, cause: str) -> None:
    with slow_link() as link:
        if not isinstance(link, SlowLink):
            pytest.skip("no network namespaces here")
        machines, hosts, film = Machines(cli, link), cli.folder / "hosts", cli.folder / "film.mp4"
        hosts.write_text({"name": LOCALHOST, "route": f"{LOCALHOST}192.0.2.1 hub\n"}.get(cause, KNOWN))
        write_film(film, 640, 480)
        if cause == "silence":
            link.cut()
        started = [
            machines.near(role, *command, address=f"tcp://hub:{link.port}", hosts=hosts)
            for role, command in (
                ("capture", ("capture", film, "--camera", "door")),
                ("worker", ("worker",)),
                ("client", ("subscribe",)),
            )
        ]
        reason = {
            "name": "its host name cannot be resolved",
            "nothing": "nothing listens there",
            "silence": "connecting to it times out",
            "route": "it cannot be reached: Network is unreachable",
        }[cause]
        for role in started:
            role.until_said(f"no aggregator is reached at tcp://hub:{link.port}: {reason}")
        hosts.write_text(KNOWN)
        link.mend()
        machines.aggregator()
        for role in started:
            role.until_said(f"the aggregator at tcp://hub:{link.port} is reached after")
            assert role.err.count("no aggregator is reached") == 1, role.err
