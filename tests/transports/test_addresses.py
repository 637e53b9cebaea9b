"""Addresses, the folders and hosts they name, and how wrong ones are refused."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from processes import free_port
from transport_network import Network, arrive

from fer_stream import plugins
from fer_stream.errors import ConfigError, TransportError
from fer_stream.plugins import BROADCASTS, LINKS, Transport
from fer_stream.transports import keys


def test_an_address_in_use_is_refused(network: Network) -> None:
    first = network.hub()
    for _ in range(2):
        with pytest.raises(TransportError, match=r"in use|cannot be bound: Address already in use"):
            network.hub()
    peer = network.peer()
    peer.send([b"x"])
    assert arrive(first, 1)[0][2] == [b"x"], "the first hub is not disturbed"
    first.close()
    network.hub()


BAD = ["", "nonsense", "memory://", "ipc://", "tcp://", "udp://127.0.0.1:5000", "tcp://127.0.0.1", "tcp://127.0.0.1:x"]


@pytest.mark.parametrize(
    "address",
    [*BAD, "tcp://127.0.0.1:65535", "tcp://127.0.0.1:0", "tcp://127.0.0.1:5000/path", "tcp://127.0.0.1:5000#key"],
)
@pytest.mark.parametrize("kind", ["memory", "zeromq"])
def test_an_invalid_address_is_refused(kind: str, address: str) -> None:
    transport: Transport = plugins.load("transports", kind)()
    for opened in (
        lambda: transport.bind(address),
        lambda: transport.connect(address, "control"),
        lambda: transport.subscribe(address, "events", [""]),
    ):
        with pytest.raises(ConfigError, match="is not an address: give"):
            opened()


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(ConfigError, match="too long for a socket: choose a folder with a shorter path"):
        plugins.load("transports", "zeromq")().bind(f"ipc:///tmp/{'x' * 120}")


def test_a_folder_that_cannot_be_used_is_refused(short_folder: Path) -> None:
    (short_folder / "file").touch()
    for folder in (short_folder / "file", short_folder / "file" / "below"):
        with pytest.raises(
            TransportError, match=r"the folder of ipc:.* cannot be used: .*; choose another with --bind"
        ):
            plugins.load("transports", "zeromq")().bind(f"ipc://{folder}")


def test_a_folder_that_other_users_may_enter_is_refused(short_folder: Path) -> None:
    short_folder.chmod(0o755)
    with pytest.raises(TransportError, match=r"the folder of ipc:.* is open to others.*chmod 700 it, or choose"):
        plugins.load("transports", "zeromq")().bind(f"ipc://{short_folder}")


def test_another_machine_s_host_cannot_be_bound(tmp_path: Path) -> None:
    keys.new(tmp_path, "door", "capture")
    with pytest.raises(TransportError, match=r"tcp://192.0.2.1:5000 cannot be bound: .*; stop what uses it, or choose"):
        plugins.load("transports", "zeromq")(keys=tmp_path).bind("tcp://192.0.2.1:5000")


def test_an_invalid_host_cannot_be_connected_to(tmp_path: Path) -> None:
    key = keys.new(tmp_path, "door", "capture")
    with pytest.raises(ConfigError, match="check the address"):
        plugins.load("transports", "zeromq")(key).connect("tcp://no host:5000", "control")


def test_sockets_belong_to_the_user_and_are_removed_with_the_hub(short_folder: Path) -> None:
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
