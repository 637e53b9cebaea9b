"""Links that accept only allowed keys: other peers can neither send nor receive."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
import zmq
from processes import PATIENCE, free_port

from fer_stream.errors import ConfigError, TransportError
from fer_stream.plugins import LINKS
from fer_stream.transports import keys
from fer_stream.transports.zeromq import ZeroMQ, beyond, endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fer_stream.transports.zeromq import ZeroMQHub, ZeroMQPeer


class Network:
    """An aggregator's links with keys, and the peers that connect to them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, f"tcp://127.0.0.1:{free_port()}"
        self.files = {role: keys.new(folder, f"a-{role}", role) for role in ("capture", "worker", "client")}
        self._open = ExitStack()
        self.hub: ZeroMQHub = self._keep(ZeroMQ(keys=folder).bind(self.address))

    def peer(self, key: Path | None, link: str) -> ZeroMQPeer:
        made: ZeroMQPeer = self._keep(ZeroMQ(key).connect(self.address, link))
        return made

    def listener(self, key: Path | None) -> ZeroMQPeer:
        made: ZeroMQPeer = self._keep(ZeroMQ(key).subscribe(self.address, "events", [""]))
        return made

    def heard(self, seconds: float, least: int = 0) -> list[tuple[str, bytes]]:
        """Return the messages received until ``seconds`` after the first ``least`` of them have arrived."""
        found: list[tuple[str, bytes]] = []
        last, end = time.monotonic() + PATIENCE, time.monotonic() + seconds
        while time.monotonic() < (end if len(found) >= least else last):
            found += [(link, bytes(parts[0])) for link, _, parts in self.hub.receive(0.02) if link in LINKS]
            if len(found) < least:
                end = time.monotonic() + seconds
        return found

    def _keep(self, made: object) -> object:  # type: ignore[misc]
        self._open.callback(made.close)  # type: ignore[attr-defined]
        return made

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    made = Network(tmp_path / "keys")
    yield made
    made.close()


def test_a_key_opens_only_the_links_of_its_role(network: Network) -> None:
    for role, path in network.files.items():
        for link in LINKS:
            network.peer(path, link).send([f"{role} on {link}".encode()])
    assert sorted(network.heard(0.5, least=3)) == [
        ("control", b"client on control"),
        ("frames", b"capture on frames"),
        ("work", b"worker on work"),
    ]


def test_the_connection_s_key_decides_the_cameras_of_a_peer(network: Network) -> None:
    keys.new(network.folder, "hall", "capture", ["hall", "attic"])
    for file, mine, others in (("a-capture", "a-capture", "hall"), ("hall", "attic", "a-capture")):
        peer = network.peer(network.folder / f"{file}.key", "frames")
        peer.send([mine.encode()])
        heard: list[tuple[str, bytes, list[bytes]]] = []
        while not heard:
            heard = network.hub.receive(0.1)
        ((_, name, _),) = heard
        assert network.hub.objection(name, mine) == ""
        assert f"the key {file} is not for camera {others}" in network.hub.objection(name, others)


def test_messages_of_strangers_are_not_delivered(network: Network, tmp_path: Path) -> None:
    """Peers without a key, with a key of another aggregator, and with a revoked key."""
    foreign = keys.new(tmp_path / "other", "door", "capture")
    revoked = tmp_path / "revoked.key"
    revoked.write_bytes(network.files["capture"].read_bytes())
    revoked.chmod(0o600)
    keys.revoke(network.folder, "a-capture")
    for _ in range(2):  # test_strangers.py connects thousands of them
        for key in (None, foreign, revoked):
            network.peer(key, "frames").send([b"let me in"])
    assert network.heard(1.5) == []


def test_messages_of_plain_zeromq_sockets_are_not_delivered(network: Network) -> None:
    context = zmq.Context()
    sockets = []
    for kind in (zmq.DEALER, zmq.REQ, zmq.PUSH):
        sock = context.socket(kind)
        sock.set(zmq.LINGER, 0)
        sock.connect(endpoint(network.address, "frames"))
        sock.send(b"let me in", zmq.DONTWAIT) if kind != zmq.PUSH else None
        sockets.append(sock)
    assert network.heard(1.0) == []
    for sock in sockets:
        sock.close()
    context.term()


def test_events_reach_only_peers_with_a_client_s_key(network: Network, tmp_path: Path) -> None:
    friend = network.listener(network.files["client"])
    strangers = [network.listener(network.files["worker"]), network.listener(keys.new(tmp_path / "o", "x", "client"))]
    end, heard = time.monotonic() + PATIENCE, None
    while heard is None and time.monotonic() < end:
        network.hub.receive(0.02)
        network.hub.publish("events", "door/", [b"an event"])
        heard = friend.receive(0.02)
    assert heard is not None
    assert [bytes(part) for part in heard] == [b"door/", b"an event"]
    for _ in range(20):
        network.hub.receive(0.02)
        network.hub.publish("events", "door/", [b"an event"])
    for stranger in strangers:
        with suppress(TransportError):
            assert stranger.receive(0.05) is None


# Refusals


def refusal_of(network: Network, peer: ZeroMQPeer) -> str:
    for _ in range(500):
        network.hub.receive(0.01)
        try:
            peer.receive(0.01)
        except TransportError as refusal:
            return str(refusal)
    return "no refusal"


def test_a_refused_peer_gets_the_reason(network: Network) -> None:
    assert refusal_of(network, network.peer(network.files["worker"], "frames")) == (
        f"the aggregator at {network.address} refused the key a-worker (role worker): ask its operator to allow it "
        "with `fer-stream keys allow`; the link frames is open to the roles capture, node, all"
    )
    assert "refused the key a-worker" in refusal_of(network, network.listener(network.files["worker"]))
    assert "accepts only peers with a key: make one there" in refusal_of(network, network.peer(None, "control"))


def test_a_revoked_key_is_refused_when_it_connects_again(network: Network) -> None:
    path = network.folder.parent / "kept.key"
    path.write_bytes(network.files["capture"].read_bytes())
    path.chmod(0o600)
    peer = network.peer(path, "frames")
    peer.send([b"while it may"])
    assert network.heard(0.2, least=1) == [("frames", b"while it may")]
    keys.revoke(network.folder, "a-capture")
    assert peer.receive(0.1) is None, "the established connection stays open"
    assert "refused the key a-capture (role capture)" in refusal_of(network, network.peer(path, "frames"))


def test_an_aggregator_without_a_key_is_refused_by_a_peer_with_one(network: Network) -> None:
    network.hub.close()
    network.hub = network._keep(ZeroMQ().bind(network.address))
    assert "has no key of its own, so this key" in refusal_of(network, network.peer(network.files["worker"], "work"))


def test_a_key_for_another_aggregator_is_logged(
    network: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The peer keeps trying: an aggregator that starts or stops looks the same."""
    peer = network.peer(keys.new(tmp_path / "other", "door", "capture"), "frames")
    end = time.monotonic() + PATIENCE
    while not caplog.records and time.monotonic() < end:
        network.hub.receive(0.01)
        assert peer.receive(0.01) is None
    for _ in range(20):
        network.hub.receive(0.01)
        assert peer.receive(0.01) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"the aggregator at {network.address} closes the connection during the handshake: is the key door made for it?"
    ]


def test_a_peer_waits_for_a_missing_aggregator(network: Network) -> None:
    network.hub.close()
    peer = network.peer(network.files["capture"], "frames")
    assert all(peer.receive(0.01) is None for _ in range(100))
    network.hub = network._keep(ZeroMQ(keys=network.folder).bind(network.address))
    peer.send([b"at last"])
    assert network.heard(0.2, least=1) == [("frames", b"at last")]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://127.0.0.1:5000", False),
        ("tcp://localhost:5000", False),
        ("tcp://[::1]:5000", False),
        ("ipc:///tmp/x", False),
        ("tcp://0.0.0.0:5000", True),
        ("tcp://*:5000", True),
        ("tcp://192.0.2.1:5000", True),
        ("tcp://camera.example:5000", True),
    ],
)
def test_which_addresses_are_beyond_this_machine(address: str, expected: bool) -> None:
    assert beyond(address) is expected


def test_beyond_this_machine_nothing_is_bound_or_connected_without_keys(tmp_path: Path) -> None:
    nowhere = tmp_path / "keys"
    for address in ("tcp://0.0.0.0:5000", "tcp://*:5000"):
        with pytest.raises(ConfigError, match=r"may be reached from other machines, and .* holds no key: make one for"):
            ZeroMQ(keys=nowhere).bind(address)
    with pytest.raises(ConfigError, match=r"ipc:///tmp/x was given --keys, and .* holds no key: make one for"):
        ZeroMQ(keys=nowhere).bind("ipc:///tmp/x")
    with pytest.raises(ConfigError, match=r"accepts only peers with a key: make one where the aggregator runs"):
        ZeroMQ(keys=nowhere).connect("tcp://192.0.2.1:5000", "frames")


def test_the_aggregator_s_machine_uses_its_local_key(network: Network) -> None:
    peer = ZeroMQ(keys=network.folder).connect(network.address, "work")
    peer.send([b"from here"])
    assert network.heard(0.2, least=1) == [("work", b"from here")]
    peer.close()
