"""One contract (`fer_stream.plugins`), two transports: everything here runs against both."""

from __future__ import annotations

import itertools
import select
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from processes import free_port

from fer_stream import plugins
from fer_stream.errors import ConfigError, TransportError
from fer_stream.plugins import BROADCASTS, LINKS
from fer_stream.transports import keys
from fer_stream.transports.zeromq import QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_stream.plugins import Hub, Peer, Transport

PATIENCE = 20.0
"""Seconds after which a test gives up; nothing takes as long."""

numbers = itertools.count()


class Network:
    """A transport and an address; what was opened is closed at the end."""

    def __init__(self, kind: str, address: str) -> None:
        self.kind = kind
        self.address = address
        self.transport: Transport = plugins.load("transports", kind)()
        self._open: list[Hub | Peer] = []

    def hub(self) -> Hub:
        return self._keep(self.transport.bind(self.address))

    def peer(self, link: str = "frames") -> Peer:
        return self._keep(self.transport.connect(self.address, link))

    def listener(self, *topics: str, link: str = "events") -> Peer:
        return self._keep(self.transport.subscribe(self.address, link, list(topics)))

    def _keep(self, end: Any) -> Any:
        self._open.append(end)
        return end

    def close(self) -> None:
        for end in reversed(self._open):  # who hangs up on nobody waits for a second
            end.close()


@pytest.fixture(params=["memory", "ipc", "tcp"])
def network(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Network]:
    address = {
        "memory": f"memory://test-{next(numbers)}",
        "ipc": f"ipc://{short_folder}/hub",
        "tcp": f"tcp://127.0.0.1:{free_port()}",
    }[request.param]
    found = Network("memory" if request.param == "memory" else "zeromq", address)
    yield found
    found.close()


def plain(parts: list[Any]) -> list[bytes]:
    return [bytes(part) for part in parts]


def until(ask: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = ask()
        if found:
            return found
    raise AssertionError("it did not come")


def arrive(hub: Hub, count: int) -> list[tuple[str, bytes, list[bytes]]]:
    """Return the next ``count`` messages of a hub."""
    got: list[tuple[str, bytes, list[bytes]]] = []
    until(lambda: got.extend((link, peer, plain(parts)) for link, peer, parts in hub.receive(0.2)) or len(got) >= count)
    assert len(got) == count
    return got


def heard(peer: Peer) -> list[bytes]:
    return plain(until(lambda: peer.receive(0.2)))


# Asking and answering


@pytest.mark.parametrize("link", LINKS)
def test_a_question_and_its_answer(network: Network, link: str) -> None:
    hub, peer = network.hub(), network.peer(link)
    assert peer.send([b"question", b"", b"payload"])
    ((came, name, parts),) = arrive(hub, 1)
    assert (came, parts) == (link, [b"question", b"", b"payload"])
    assert hub.send(link, name, [b"answer", memoryview(b"payload")])
    assert heard(peer) == [b"answer", b"payload"]


def test_peers_are_told_apart_and_keep_their_names(network: Network) -> None:
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


def test_links_are_kept_apart(network: Network) -> None:
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


def test_nothing_there_is_nothing_after_the_time(network: Network) -> None:
    hub, peer = network.hub(), network.peer()
    for timeout in (0.0, 0.01):
        assert hub.receive(timeout) == []
        assert peer.receive(timeout) is None


def test_an_unknown_peer_is_told(network: Network) -> None:
    hub, peer = network.hub(), network.peer()
    assert hub.send("frames", b"nobody", [b"x"]) is False
    peer.send([b"here"])
    ((_, name, _),) = arrive(hub, 1)
    assert hub.send("control", name, [b"x"]) is False, "it is on another link"
    peer.close()
    until(lambda: hub.send("frames", name, [b"x"]) is False)


# Starting and ending in any order


def test_a_peer_may_be_there_first(network: Network) -> None:
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


def test_a_listener_may_be_there_first(network: Network) -> None:
    listener = network.listener("door/")
    hub = network.hub()
    assert arrive(hub, 1) == [("events", b"", [b"\x01door/"])]
    hub.publish("events", "door/", [b"event"])
    assert heard(listener) == [b"door/", b"event"]


def test_what_was_sent_before_closing_arrives(network: Network) -> None:
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
    assert arrive(hub, 1)[0][2] == [b"\x00door/"], "the end of listening is told once"
    assert hub.receive(0.2) == []
    hub.close()
    hub.close()


# Listening


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
def test_who_listens_is_told(network: Network, link: str) -> None:
    hub = network.hub()
    first = network.listener("door/", link=link)
    assert arrive(hub, 1) == [(link, b"", [b"\x01door/"])]
    second = network.listener("door/", link=link)
    assert arrive(hub, 1) == [(link, b"", [b"\x01door/"])], "each newcomer, so that it can be told what is open"
    first.close()
    assert hub.receive(0.2) == [], "somebody still listens"
    second.close()
    assert arrive(hub, 1) == [(link, b"", [b"\x00door/"])]


@pytest.mark.parametrize("link", BROADCASTS)
def test_topics_may_be_many(network: Network, link: str) -> None:
    """More than a queue holds: what is published may be lost, but not who listens to it."""
    topics = [f"camera-{number}/" for number in range(300)]
    listener = network.listener(*topics, link=link)
    hub = network.hub()
    assert {parts[0][1:].decode() for _, _, parts in arrive(hub, 300)} == set(topics)

    def told(topic: str) -> bool:
        hub.publish(link, topic, [b"x"])
        parts = listener.receive(0.05)
        return parts is not None and bytes(parts[0]) == topic.encode()

    for topic in topics:
        until(lambda topic=topic: told(topic))


def test_nobody_listens_and_nobody_waits(network: Network) -> None:
    hub = network.hub()
    for _ in range(20_000):
        hub.publish("events", "door/", [b"x"])
    slow = network.listener("")
    arrive(hub, 1)
    for _ in range(30_000):
        hub.publish("events", "door/", [b"x"])
    assert heard(slow) == [b"door/", b"x"]


def test_a_listener_only_listens(network: Network) -> None:
    with pytest.raises(TransportError):
        network.listener("").send([b"x"])


# Limits


def test_a_hub_that_reads_nothing_does_not_fill_the_memory(network: Network) -> None:
    """Some thousand messages are kept, then the sender is told; whoever waits for nobody goes on."""
    network.hub()
    peer = network.peer("work")
    assert not all(peer.send([bytes(10_000)]) for _ in range(5_000))


def test_without_a_hub_a_sender_is_told_when_nothing_more_is_kept(network: Network) -> None:
    peer = network.peer("work")
    assert peer.send([b"x"])
    assert not all(peer.send([b"x"]) for _ in range(5_000))


def test_a_question_that_nobody_hears_is_not_kept_a_thousand_times(short_folder: Path) -> None:
    network = Network("zeromq", f"ipc://{short_folder}")
    peer = network.peer("control")
    assert sum(peer.send([b"what is new?"]) for _ in range(1000)) == QUESTIONS
    network.close()


def test_a_peer_that_reads_nothing_does_not_fill_the_memory(network: Network) -> None:
    hub, peer = network.hub(), network.peer("work")
    peer.send([b"here"])
    ((_, name, _),) = arrive(hub, 1)
    assert not all(hub.send("work", name, [bytes(10_000)]) for _ in range(5_000))


def test_pixels_arrive_whole(network: Network) -> None:
    """A 1080p frame each way: too large to be copied, so it goes by reference."""
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


def test_a_received_frame_can_be_passed_on_as_it_is(network: Network) -> None:
    hub, capture, worker = network.hub(), network.peer("frames"), network.peer("work")
    worker.send([b"ready"])
    ((_, name, _),) = arrive(hub, 1)
    pixels = bytes(range(256)) * 4096
    capture.send([b"head", pixels])
    ((_, _, parts),) = until(lambda: hub.receive(0.2))
    assert hub.send("work", name, [b"other", parts[1]])
    assert heard(worker) == [b"other", pixels]


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


# What is known of a link


def readable(peer: Peer, seconds: float = PATIENCE) -> bool:
    """Whether one of a peer's descriptors becomes readable."""
    return bool(select.select(peer.descriptors(), [], [], seconds)[0])


@pytest.mark.parametrize("link", ["control", "events"])
def test_a_descriptor_becomes_readable_when_something_comes(network: Network, link: str) -> None:
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


def test_a_link_s_standing(network: Network) -> None:
    peer = network.peer("control")
    peer.receive(0.1)
    assert not peer.standing().up
    assert peer.trouble() == "nothing listens there"
    hub = network.hub()

    def up() -> bool:
        hub.receive(0.01)
        peer.receive(0.01)
        return peer.standing().up

    until(up)
    life = peer.standing().life
    assert "does not answer" in peer.trouble()
    hub.close()
    until(lambda: peer.receive(0.01) is None and not peer.standing().up)
    hub = network.hub()
    until(up)
    assert peer.standing().life == life + 1, "what was sent before may be lost"


def test_bytes_that_arrived_are_counted(network: Network) -> None:
    hub, peer = network.hub(), network.peer("control")
    peer.send([b"question"])
    ((_, name, _),) = arrive(hub, 1)
    hub.send("control", name, [bytes(100_000)])
    heard(peer)
    peer.receive(0)
    assert until(lambda: peer.receive(0.01) is None and (not network.address.startswith("tcp") or received(peer)))


def received(peer: Peer) -> bool:
    return peer.standing().received >= 100_000


# Addresses


def test_an_address_in_use_is_told(network: Network) -> None:
    first = network.hub()
    for _ in range(2):
        with pytest.raises(TransportError, match=r"in use|cannot be bound: Address already in use"):
            network.hub()
    peer = network.peer()
    peer.send([b"x"])
    assert arrive(first, 1)[0][2] == [b"x"], "the first one is not disturbed"
    first.close()
    network.hub()


BAD = ["", "nonsense", "memory://", "ipc://", "tcp://", "udp://127.0.0.1:5000", "tcp://127.0.0.1", "tcp://127.0.0.1:x"]


@pytest.mark.parametrize("address", [*BAD, "tcp://127.0.0.1:65535", "tcp://127.0.0.1:0", "tcp://127.0.0.1:5000/path"])
@pytest.mark.parametrize("kind", ["memory", "zeromq"])
def test_what_is_no_address_is_told(kind: str, address: str) -> None:
    transport: Transport = plugins.load("transports", kind)()
    for opened in (
        lambda: transport.bind(address),
        lambda: transport.connect(address, "control"),
        lambda: transport.subscribe(address, "events", [""]),
    ):
        with pytest.raises(ConfigError, match="is not an address: give"):
            opened()


def test_a_path_too_long_for_a_socket_is_told() -> None:
    with pytest.raises(ConfigError, match="too long for a socket: choose a folder with a shorter path"):
        plugins.load("transports", "zeromq")().bind(f"ipc:///tmp/{'x' * 120}")


def test_a_folder_that_cannot_be_used_is_told(short_folder: Path) -> None:
    (short_folder / "file").touch()
    for folder in (short_folder / "file", short_folder / "file" / "below"):
        with pytest.raises(
            TransportError, match=r"the folder of ipc:.* cannot be used: .*; choose another with --bind"
        ):
            plugins.load("transports", "zeromq")().bind(f"ipc://{folder}")


def test_a_folder_that_others_may_enter_is_refused(short_folder: Path) -> None:
    short_folder.chmod(0o755)
    with pytest.raises(TransportError, match=r"the folder of ipc:.* is open to others.*chmod 700 it, or choose"):
        plugins.load("transports", "zeromq")().bind(f"ipc://{short_folder}")


def test_a_host_that_is_not_ours_cannot_be_bound(tmp_path: Path) -> None:
    keys.new(tmp_path, "door", "capture")
    with pytest.raises(TransportError, match=r"tcp://192.0.2.1:5000 cannot be bound: .*; stop what uses it, or choose"):
        plugins.load("transports", "zeromq")(keys=tmp_path).bind("tcp://192.0.2.1:5000")


def test_a_host_that_is_no_host_cannot_be_connected_to(tmp_path: Path) -> None:
    key = keys.new(tmp_path, "door", "capture")
    with pytest.raises(ConfigError, match="check the address"):
        plugins.load("transports", "zeromq")(key).connect("tcp://no host:5000", "control")


def test_sockets_are_the_user_s_own_and_go_with_the_hub(short_folder: Path) -> None:
    hub = plugins.load("transports", "zeromq")().bind(f"ipc://{short_folder}/hub")
    folder = short_folder / "hub"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} == {*LINKS, *BROADCASTS, "lock"}
    hub.close()
    assert {path.name for path in folder.iterdir()} == {"lock"}


def test_ipv6(short_folder: Path) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    found = Network("zeromq", f"tcp://[::1]:{free_port()}")
    hub, peer = found.hub(), found.peer()
    peer.send([b"x"])
    assert arrive(hub, 1)[0][2] == [b"x"]
    found.close()
