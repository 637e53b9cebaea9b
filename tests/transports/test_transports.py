"""The contract of `fer_stream.plugins.Transport` on all transports: messages, starting and ending, waking."""

from __future__ import annotations

import threading

import pytest
from transport_network import PATIENCE, Network, arrive, heard, plain, until

from fer_stream.plugins import LINKS, Hub

# Asking and answering


@pytest.mark.parametrize("link", LINKS)
def test_a_question_and_its_answer(network: Network, link: str) -> None:
    hub, peer = network.hub(), network.peer(link)
    assert peer.send([b"question", b"", b"payload"])
    ((came, name, parts),) = arrive(hub, 1)
    assert (came, parts) == (link, [b"question", b"", b"payload"])
    assert hub.send(link, name, [b"answer", memoryview(b"payload")])
    assert heard(peer) == [b"answer", b"payload"]


def test_each_peer_has_an_id_of_its_own_that_stays_the_same(network: Network) -> None:
    hub = network.hub()
    peers = [network.peer("frames") for _ in range(3)]
    names = []
    for number, peer in enumerate(peers):
        for _ in range(2):
            peer.send([b"%d" % number])
        (_, name, _), (_, again, _) = arrive(hub, 2)
        assert name == again
        names.append(name)
    assert len(set(names)) == 3
    for number in (2, 0, 1):
        assert hub.send("frames", names[number], [b"to %d" % number])
    assert [heard(peer) for peer in peers] == [[b"to 0"], [b"to 1"], [b"to 2"]]


def test_links_are_separate(network: Network) -> None:
    hub = network.hub()
    for link in LINKS:
        network.peer(link).send([link.encode()])
    assert sorted((link, parts) for link, _, parts in arrive(hub, 3)) == sorted((x, [x.encode()]) for x in LINKS)
    assert not hub.send("work", b"nobody there", [b"x"])


def test_messages_of_one_peer_keep_their_order(network: Network) -> None:
    hub, peer = network.hub(), network.peer()
    for number in range(300):
        assert peer.send([b"%d" % number])
    got = arrive(hub, 300)
    assert [int(parts[0]) for _, _, parts in got] == list(range(300))
    for number in range(300):
        assert hub.send("frames", got[0][1], [b"%d" % number])
    assert [int(heard(peer)[0]) for _ in range(300)] == list(range(300))


def test_receiving_nothing_returns_after_the_timeout(network: Network) -> None:
    hub, peer = network.hub(), network.peer()
    for timeout in (0.0, 0.01):
        assert hub.receive(timeout) == []
        assert peer.receive(timeout) is None


def test_sending_to_an_unknown_peer_returns_false(network: Network) -> None:
    hub, peer = network.hub(), network.peer()
    assert hub.send("frames", b"nobody", [b"x"]) is False
    peer.send([b"here"])
    ((_, name, _),) = arrive(hub, 1)
    assert hub.send("control", name, [b"x"]) is False, "it is on another link"
    peer.close()
    until(lambda: hub.send("frames", name, [b"x"]) is False)


# Starting and ending in any order


def test_a_peer_may_start_before_its_hub(network: Network) -> None:
    peer = network.peer()
    assert peer.send([b"early"])
    assert peer.receive(0.1) is None
    hub = network.hub()
    ((_, name, parts),) = arrive(hub, 1)
    assert parts == [b"early"]
    assert hub.send("frames", name, [b"welcome"])
    assert heard(peer) == [b"welcome"]


def test_a_peer_outlives_its_hub(network: Network) -> None:
    peer, listener = network.peer(), network.listener("door/")
    for life in range(3):
        hub = network.hub()

        def spoken(hub: Hub = hub) -> tuple[str, bytes] | None:
            peer.send([b"are you there"])
            for link, name, _ in hub.receive(0.2):
                if link == "frames":
                    return link, name
            return None

        link, name = until(spoken)
        hub.send(link, name, [b"life %d" % life])
        assert heard(peer) == [b"life %d" % life]

        def published(hub: Hub = hub, life: int = life) -> bool:
            hub.receive(0.01)
            hub.publish("events", "door/", [b"life %d" % life])
            return any(plain(parts)[1] == b"life %d" % life for parts in [listener.receive(0.1)] if parts)

        until(published)
        hub.close()
        while listener.receive(0.05):
            pass


def test_a_subscriber_may_start_before_its_hub(network: Network) -> None:
    listener = network.listener("door/")
    hub = network.hub()
    assert arrive(hub, 1) == [("events", b"", [b"\x01door/"])]
    hub.publish("events", "door/", [b"event"])
    assert heard(listener) == [b"door/", b"event"]


def test_messages_sent_before_closing_arrive(network: Network) -> None:
    hub, peer = network.hub(), network.peer()
    peer.send([b"hello"])
    ((_, name, _),) = arrive(hub, 1)
    peer.send([b"bye"])
    peer.close()
    assert arrive(hub, 1)[0][2] == [b"bye"]
    other = network.peer()
    other.send([b"hello"])
    ((_, name, _),) = arrive(hub, 1)
    hub.send("frames", name, [b"goodbye"])
    hub.close()
    assert heard(other) == [b"goodbye"]


def test_closing_twice_does_nothing(network: Network) -> None:
    hub, peer, listener = network.hub(), network.peer(), network.listener("door/")
    assert arrive(hub, 1)[0][2] == [b"\x01door/"]
    for end in (peer, listener):
        end.close()
        end.close()
    assert arrive(hub, 1)[0][2] == [b"\x00door/"], "the end of a subscription is reported once"
    assert hub.receive(0.2) == []
    hub.close()
    hub.close()


# Waking


def test_another_thread_wakes_a_receiver(network: Network) -> None:
    network.hub()
    peer = network.peer()
    thread = threading.Timer(0.1, peer.wake)
    thread.start()
    assert peer.receive(PATIENCE * 10) is None
    thread.join()


def test_a_wake_before_receiving_is_not_lost(network: Network) -> None:
    network.hub()
    peer = network.peer()
    peer.wake()
    assert peer.receive(PATIENCE * 10) is None


def test_many_wakes_lose_no_message(network: Network) -> None:
    hub, peer = network.hub(), network.peer()
    peer.send([b"here"])
    ((_, name, _),) = arrive(hub, 1)

    def wake() -> None:
        for _ in range(5000):
            peer.wake()

    threads = [threading.Thread(target=wake) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(200):
        assert hub.send("frames", name, [b"%d" % number])
    assert [int(heard(peer)[0]) for _ in range(200)] == list(range(200))
    for thread in threads:
        thread.join()
    peer.close()
    peer.wake()
