"""Broadcast links on all transports: topics, subscriptions, and subscribers that are slow or missing."""

from __future__ import annotations

import pytest
from transport_network import Network, arrive, heard, until

from fer_stream.errors import TransportError
from fer_stream.plugins import BROADCASTS


def test_topics_are_prefixes(network: Network) -> None:
    hub = network.hub()
    everything, door, both = network.listener(""), network.listener("door/"), network.listener("/", "gate/")
    assert sorted(parts[0] for _, _, parts in arrive(hub, 4)) == [b"\x01", b"\x01/", b"\x01door/", b"\x01gate/"]
    for topic in ("door/", "gate/", "/", "doors/"):
        hub.publish("events", topic, [topic.encode() + b"!", b"more"])
    assert [heard(everything) for _ in range(4)] == [
        [topic, topic + b"!", b"more"] for topic in (b"door/", b"gate/", b"/", b"doors/")
    ]
    assert heard(door) == [b"door/", b"door/!", b"more"]
    assert [heard(both)[0] for _ in range(2)] == [b"gate/", b"/"]
    assert door.receive(0.1) is None
    assert both.receive(0.1) is None


@pytest.mark.parametrize("link", BROADCASTS)
def test_subscriptions_are_reported_to_the_hub(network: Network, link: str) -> None:
    hub = network.hub()
    first = network.listener("door/", link=link)
    assert arrive(hub, 1) == [(link, b"", [b"\x01door/"])]
    second = network.listener("door/", link=link)
    assert arrive(hub, 1) == [(link, b"", [b"\x01door/"])], (
        "each new subscription, so that the subscriber gets the current observations"
    )
    first.close()
    assert hub.receive(0.2) == [], "another subscriber is left"
    second.close()
    assert arrive(hub, 1) == [(link, b"", [b"\x00door/"])]


@pytest.mark.parametrize("link", BROADCASTS)
def test_a_peer_may_subscribe_to_many_topics(network: Network, link: str) -> None:
    """There are more topics than a queue holds. Published messages may be lost, but no subscription is."""
    topics = [f"camera-{number}/" for number in range(300)]
    listener = network.listener(*topics, link=link)
    hub = network.hub()
    assert {parts[0][1:].decode() for _, _, parts in arrive(hub, 300)} == set(topics)

    def received(topic: str) -> bool:
        hub.publish(link, topic, [b"x"])
        parts = listener.receive(0.05)
        return parts is not None and bytes(parts[0]) == topic.encode()

    for topic in topics:
        until(lambda topic=topic: received(topic))


def test_publishing_waits_for_no_subscriber(network: Network) -> None:
    hub = network.hub()
    for _ in range(20_000):
        hub.publish("events", "door/", [b"x"])
    slow = network.listener("")
    arrive(hub, 1)
    for _ in range(30_000):
        hub.publish("events", "door/", [b"x"])
    assert heard(slow) == [b"door/", b"x"]


def test_a_subscriber_cannot_send(network: Network) -> None:
    with pytest.raises(TransportError):
        network.listener("").send([b"x"])
