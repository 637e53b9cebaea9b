"""What the kernel tells of a connection: whether anything arrives, and why there is none."""

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


def hung_up(sock: socket.socket) -> bool:
    sock.settimeout(0.2)
    with suppress(TimeoutError):
        return sock.recv(1) == b""
    return False


def test_bytes_of_a_message_that_is_not_whole_are_seen(pair: Pair) -> None:
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
def test_it_hangs_up_after_silence_and_not_before(pair: Pair, established: bool, patience: float) -> None:
    near, far = pair
    connection = Connection(near.fileno(), 0.0)
    connection.established = established
    connection.look(0.0)
    connection.look(patience - 0.1)
    assert not hung_up(far)
    near.sendall(b"x")  # which the other end's kernel acknowledges, whatever its process does
    assert far.recv(1) == b"x"
    for now in (patience + 0.1, 2 * patience):
        connection.look(now)
        assert not hung_up(far)
    connection.look(2 * patience + 0.2)
    assert hung_up(far)


def test_what_is_not_tcp_is_left_alone() -> None:
    near, far = socket.socketpair()
    with near, far:
        connection = Connection(near.fileno(), 0.0)
        for now in (0.0, 10.0, 20.0):
            connection.look(now)
        assert not hung_up(far)


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


def test_no_copy_keeps_it_open(pair: Pair) -> None:
    near, far = pair
    connection = Connection(near.fileno(), 0.0)
    near.close()
    assert not hung_up(far)
    connection.close()
    assert hung_up(far)


def test_why_there_is_no_answer(short_folder: Path) -> None:
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
        waiting = [socket.socket() for _ in range(3)]  # until there is no room for more, and packets are dropped
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        assert "not even to a connection" in why_silent(f"tcp://127.0.0.1:{port}", 0.3)
        for one in waiting:
            one.close()
