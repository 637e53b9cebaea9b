"""Limits of the queues, and large messages, on all transports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from transport_network import Network, arrive, heard, until

from fer_stream.transports.zeromq import QUESTIONS

if TYPE_CHECKING:
    from pathlib import Path


def test_sending_to_a_hub_that_reads_nothing_is_refused_when_queues_are_full(network: Network) -> None:
    """A few thousand messages are queued; then `send` returns ``False`` without waiting."""
    network.hub()
    peer = network.peer("work")
    assert not all(peer.send([bytes(10_000)]) for _ in range(5_000))


def test_sending_without_a_hub_is_refused_when_the_queue_is_full(network: Network) -> None:
    peer = network.peer("work")
    assert peer.send([b"x"])
    assert not all(peer.send([b"x"]) for _ in range(5_000))


def test_few_questions_are_queued_for_a_missing_aggregator(short_folder: Path) -> None:
    network = Network("zeromq", f"ipc://{short_folder}")
    peer = network.peer("control")
    assert sum(peer.send([b"what is new?"]) for _ in range(1000)) == QUESTIONS
    network.close()


def test_sending_to_a_peer_that_reads_nothing_is_refused_when_queues_are_full(network: Network) -> None:
    hub, peer = network.hub(), network.peer("work")
    peer.send([b"here"])
    ((_, name, _),) = arrive(hub, 1)
    assert not all(hub.send("work", name, [bytes(10_000)]) for _ in range(5_000))


def test_large_frames_arrive_unchanged(network: Network) -> None:
    """A 1080p frame in each direction. It is large enough to be passed by reference, not copied."""
    image = np.random.default_rng(1).integers(0, 255, (1080, 1920, 3), np.uint8)
    hub, peer = network.hub(), network.peer()
    for _ in range(3):
        assert peer.send([b"head", image.data.cast("B")])
    for _, name, parts in arrive(hub, 3):
        assert parts[0] == b"head"
        assert parts[1] == image.tobytes()
        assert hub.send("frames", name, [b"head", parts[1]])
    for _ in range(3):
        assert heard(peer)[1] == image.tobytes()
    listener = network.listener("", link="observations")
    arrive(hub, 1)
    hub.publish("observations", "door/", [image.data.cast("B")])
    assert heard(listener)[1] == image.tobytes()


def test_a_received_frame_can_be_forwarded_without_a_copy(network: Network) -> None:
    hub, capture, worker = network.hub(), network.peer("frames"), network.peer("work")
    worker.send([b"ready"])
    ((_, name, _),) = arrive(hub, 1)
    pixels = bytes(range(256)) * 4096
    capture.send([b"head", pixels])
    ((_, _, parts),) = until(lambda: hub.receive(0.2))
    assert hub.send("work", name, [b"other", parts[1]])
    assert heard(worker) == [b"other", pixels]
