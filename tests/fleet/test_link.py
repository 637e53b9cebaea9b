"""A link goes where it is told and where an aggregator answers, over the memory transport and over sockets."""

from __future__ import annotations

import itertools
import time
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from processes import free_port, wait_for

from fer_stream import plugins
from fer_stream.errors import ConfigError
from fer_stream.fleet import answers, seeker
from fer_stream.fleet.link import Link
from fer_stream.fleet.records import Moved, Place, Welcome
from fer_stream.transports import keys

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.plugins import Hub, Transport

numbers = itertools.count()


class Site:
    """Some aggregators' hubs, and a link. ``said`` are the addresses at which the link said HELLO, in order."""

    def __init__(self, kind: str, addresses: list[str]) -> None:
        self.transport: Transport = plugins.load("transports", kind)()
        self.addresses = addresses
        self.hubs: dict[str, Hub] = {}
        self.said: list[str] = []
        self.peer = b""

    def bind(self, number: int) -> None:
        self.hubs[self.addresses[number]] = self.transport.bind(self.addresses[number])

    def link(self, count: int) -> Link:
        return Link(self.transport, self.addresses[:count], "frames", Random(1))

    def turn(self, link: Link) -> None:
        """Let the link do what is due, and take what it says; it says HELLO when it is time."""
        if link.turn():
            link.send([b"hello"])
        link.receive(0.02)
        for address, hub in self.hubs.items():
            for _, self.peer, _ in hub.receive(0.01):
                self.said.append(address)

    def until(self, link: Link, number: int) -> None:
        """Wait until the link says HELLO to one of the aggregators, and welcome it there."""
        self.said.clear()
        wait_for(lambda: self.turn(link) or self.addresses[number] in self.said, f"HELLO at {number}")
        link.welcome(answers.to_body(Welcome()))

    def speak(self, link: Link, seconds: float) -> None:
        """Send signs of life from where it is."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.hubs[link.address].send("frames", self.peer, [b"ping"])
            self.turn(link)

    def close(self, link: Link) -> None:
        link.close()
        for hub in self.hubs.values():
            hub.close()


@pytest.fixture(params=["memory", "zeromq"])
def site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(seeker, "SILENCE", 1.0)
    monkeypatch.setattr(seeker, "ANSWER", 0.5)
    if request.param == "memory":
        return Site("memory", [f"memory://link-{next(numbers)}" for _ in range(3)])
    return Site("zeromq", [f"tcp://127.0.0.1:{free_port()}" for _ in range(3)])


def moved(link: Link, address: str | None, wait: float = 0.0) -> None:
    link.moved(answers.to_body(Moved(Place(address) if address else None, wait)))


def test_a_single_address_is_waited_for_as_long_as_it_takes(site: Site) -> None:
    link = site.link(1)
    peer = link.peer
    end = time.monotonic() + 1.2  # longer than it asks at one of several
    while time.monotonic() < end:
        link.turn()
        link.receive(0.05)
    site.bind(0)
    link.send([b"hello"])  # as a capture does each half second
    wait_for(lambda: site.turn(link) or site.said, "its HELLO")
    link.welcome(answers.to_body(Welcome()))
    end = time.monotonic() + 1.2  # without a sign of life
    while time.monotonic() < end:
        site.turn(link)
    assert link.peer is peer, "one connection, which the transport looks after"
    site.close(link)


def test_the_address_that_answers_is_found(site: Site) -> None:
    site.bind(1)
    link = site.link(3)
    site.until(link, 1)
    assert link.address == site.addresses[1]
    site.close(link)


def test_it_follows_and_finds_another_one_when_that_is_silent(site: Site) -> None:
    for number in range(3):
        site.bind(number)
    link = site.link(1)
    site.until(link, 0)
    moved(link, site.addresses[2])
    assert link.address == site.addresses[2]
    site.until(link, 2)
    site.speak(link, 1.5)
    assert link.address == site.addresses[2], "it stays while it hears something"
    site.until(link, 0)  # its list
    site.close(link)


def test_a_broken_connection_ends_a_welcome(site: Site) -> None:
    site.bind(0)
    site.bind(1)
    link = site.link(2)
    wait_for(lambda: site.turn(link) or site.said, "HELLO")
    here = site.addresses.index(link.address)
    link.welcome({"memory": False})  # by an older aggregator, whose silence says nothing
    wait_for(lambda: site.turn(link) or link.peer.connection_state().up, "the connection")
    site.turn(link)
    site.hubs.pop(link.address).close()
    site.until(link, 1 - here)
    site.close(link)


def test_it_comes_again_on_the_same_connection_when_nobody_owns_its_camera(site: Site) -> None:
    site.bind(0)
    link = site.link(1)
    site.until(link, 0)
    peer = link.peer
    moved(link, None, 0.1)
    assert link.resting
    site.until(link, 0)
    assert not link.resting
    assert link.peer is peer
    site.close(link)


def test_two_aggregators_that_send_it_to_each_other_are_asked_less_and_less_often(site: Site) -> None:
    site.bind(0)
    site.bind(1)
    link = site.link(1)
    end, asked = time.monotonic() + 2.0, 0
    while time.monotonic() < end:
        site.turn(link)
        asked += len(site.said)
        if site.said:
            moved(link, site.addresses[1 - site.addresses.index(site.said.pop())])
        site.said.clear()
    assert 2 <= asked <= 12
    site.close(link)


def test_a_place_that_cannot_be_connected_to_is_no_error_but_a_wrong_setting_is(site: Site) -> None:
    site.bind(0)
    link = site.link(1)
    site.until(link, 0)
    moved(link, "nonsense://x")
    site.until(link, 0)
    site.close(link)
    with pytest.raises(ConfigError, match="is not an address"):
        Link(site.transport, ["nonsense://x"], "frames")


def test_each_aggregator_has_a_key_of_its_own(tmp_path: Path) -> None:
    """The capture has one key file, made by the first one; the second one allows its public half."""
    port, other = free_port(), free_port()
    own = keys.load(keys.new(tmp_path / "a", "door", "capture"))
    keys.allow(tmp_path / "b", "door", "capture", own.public)
    servers = {name: (keys.server(tmp_path / name) or ("", ""))[0] for name in "ab"}
    assert servers["a"] == own.server != servers["b"]
    hubs = [
        plugins.load("transports", "zeromq")(None, tmp_path / name).bind(f"tcp://127.0.0.1:{number}")
        for name, number in (("a", port), ("b", other))
    ]
    transport = plugins.load("transports", "zeromq")(tmp_path / "a" / "door.key")

    def heard(link: Link, hub: Any) -> bool:
        link.receive(0.02)
        return bool([other.receive(0.02) for other in hubs if other is not hub] and hub.receive(0.02))

    link = Link(transport, [f"tcp://127.0.0.1:{port}"], "frames")
    link.send([b"hello"])
    wait_for(lambda: heard(link, hubs[0]), "the first one")
    link.moved(answers.to_body(Moved(Place(f"tcp://127.0.0.1:{other}", servers["b"]))))
    link.send([b"hello"])
    wait_for(lambda: heard(link, hubs[1]), "the second one")
    link.close()
    again = Link(transport, [f"tcp://127.0.0.1:{other}#{servers['b']}"], "frames")
    again.send([b"hello"])
    wait_for(lambda: heard(again, hubs[1]), "the second one by the settings")
    again.close()
    for hub in hubs:
        hub.close()


def test_a_connection_that_broke_before_others_were_known_is_no_reason_to_leave(site: Site) -> None:
    """With a single address the transport reconnects by itself."""
    site.bind(0)
    link = site.link(1)
    site.until(link, 0)
    wait_for(lambda: site.turn(link) or link.peer.connection_state().up, "the connection")
    peer = link.peer
    site.hubs.pop(link.address).close()
    wait_for(lambda: site.turn(link) or not link.peer.connection_state().up, "its loss")
    site.bind(0)
    wait_for(lambda: site.turn(link) or link.peer.connection_state().up, "it again")
    link.welcome(answers.to_body(Welcome((Place(site.addresses[1]),))))
    site.turn(link)
    site.turn(link)
    assert link.peer is peer
    site.close(link)
