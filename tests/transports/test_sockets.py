"""What the kernel reports about a connection: bytes received, and why connecting fails."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from processes import free_port, wait_for

from fer_stream.transports.sockets import HANDSHAKE, SILENCE, Connection, why_silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far:
            yield near, far


def closed_by_peer(sock: socket.socket) -> bool:
    sock.settimeout(0.2)
    with suppress(TimeoutError):
        return sock.recv(1) == b""
    return False


def test_bytes_of_an_incomplete_message_are_counted(pair: Pair) -> None:
    near, far = pair
    connection = Connection(near.fileno(), 0.0)
    connection.look(0.0)
    assert connection.received == 0
    far.sendall(bytes(5000))

    def seen() -> bool:
        connection.look(1.0)
        return connection.received == 5000

    wait_for(seen, "5000 bytes")
    connection.close()


@pytest.mark.parametrize(("established", "patience"), [(True, SILENCE), (False, HANDSHAKE)])
def test_a_silent_connection_is_shut_down_after_the_limit(pair: Pair, established: bool, patience: float) -> None:
    near, far = pair
    connection = Connection(near.fileno(), 0.0)
    connection.established = established
    connection.look(0.0)
    connection.look(patience - 0.1)
    assert not closed_by_peer(far)
    near.sendall(b"x")  # the peer's kernel acknowledges this without its process
    assert far.recv(1) == b"x"
    for now in (patience + 0.1, 2 * patience):
        connection.look(now)
        assert not closed_by_peer(far)
    connection.look(2 * patience + 0.2)
    assert closed_by_peer(far)


def test_a_connection_other_than_tcp_is_left_alone() -> None:
    near, far = socket.socketpair()
    with near, far:
        connection = Connection(near.fileno(), 0.0)
        for now in (0.0, 10.0, 20.0):
            connection.look(now)
        assert not closed_by_peer(far)


def test_a_descriptor_that_is_closed_or_another_s_is_left_alone(tmp_path: Path) -> None:
    gone = os.dup(0)
    os.close(gone)
    file = os.open(tmp_path / "file", os.O_CREAT)
    for number in (gone, file):
        connection = Connection(number, 0.0)
        connection.look(100.0)
        connection.close()
        assert connection.received == 0
    os.close(file)


def test_closing_releases_the_duplicate_descriptor(pair: Pair) -> None:
    near, far = pair
    connection = Connection(near.fileno(), 0.0)
    near.close()
    assert not closed_by_peer(far)
    connection.close()
    assert closed_by_peer(far)


def test_the_cause_of_a_silence(short_folder: Path) -> None:
    assert why_silent(f"ipc://{short_folder}/none") == "nothing listens there"
    assert why_silent(f"ipc://{short_folder}/none/control") == "nothing listens there"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{short_folder}/left")
    assert why_silent(f"ipc://{short_folder}/left") == "nothing listens there"
    assert why_silent(f"tcp://127.0.0.1:{free_port()}") == "nothing listens there"
    assert "cannot be resolved" in why_silent("tcp://nowhere.invalid:5550")
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        assert "something listens there, but it does not answer" in why_silent(f"tcp://127.0.0.1:{port}")
        waiting = [socket.socket() for _ in range(3)]  # fill the backlog, so that the kernel drops further SYNs
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        assert "connecting to it times out" in why_silent(f"tcp://127.0.0.1:{port}", 0.3)
        for client in waiting:
            client.close()
