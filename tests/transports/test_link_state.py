"""What a peer reports about its link on all transports: descriptors, connection, cause of a silence."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import pytest
from transport_network import PATIENCE, Network, arrive, heard, until

if TYPE_CHECKING:
    from fer_stream.plugins import Peer


def readable(peer: Peer, seconds: float = PATIENCE) -> bool:
    """Whether one of a peer's descriptors becomes readable."""
    return bool(select.select(peer.descriptors(), [], [], seconds)[0])


@pytest.mark.parametrize("link", ["control", "events"])
def test_a_descriptor_becomes_readable_when_a_message_arrives(network: Network, link: str) -> None:
    hub = network.hub()
    peer = network.listener("door/") if link == "events" else network.peer(link)
    if link == "control":
        peer.send([b"question"])
        ((_, name, _),) = arrive(hub, 1)
    else:
        arrive(hub, 1)

    def answer() -> None:
        if link == "control":
            hub.send(link, name, [b"answer"])
        else:
            hub.publish(link, "door/", [b"answer"])

    for _ in range(3):
        until(lambda: peer.receive(0) is None and not readable(peer, 0))
        answer()
        assert readable(peer)
        assert heard(peer)[-1] == b"answer"
    until(lambda: peer.receive(0) is None and not readable(peer, 0))
    peer.wake()
    assert readable(peer)
    peer.receive(0)


def test_a_peer_reports_its_connection(network: Network) -> None:
    peer = network.peer("control")
    peer.receive(0.1)
    assert not peer.connection_state().up
    assert peer.diagnose() == "nothing listens there"
    hub = network.hub()

    def up() -> bool:
        hub.receive(0.01)
        peer.receive(0.01)
        return peer.connection_state().up

    until(up)
    number = peer.connection_state().number
    assert "does not answer" in peer.diagnose()
    hub.close()
    until(lambda: peer.receive(0.01) is None and not peer.connection_state().up)
    hub = network.hub()
    until(up)
    assert peer.connection_state().number == number + 1, "messages sent before may be lost"


def test_received_bytes_are_counted(network: Network) -> None:
    hub, peer = network.hub(), network.peer("control")
    peer.send([b"question"])
    ((_, name, _),) = arrive(hub, 1)
    hub.send("control", name, [bytes(100_000)])
    heard(peer)
    peer.receive(0)
    assert until(lambda: peer.receive(0.01) is None and (not network.address.startswith("tcp") or received(peer)))


def received(peer: Peer) -> bool:
    return peer.connection_state().received >= 100_000
