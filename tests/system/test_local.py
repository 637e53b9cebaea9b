"""Addresses of services that only this machine reaches."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.system import local

if TYPE_CHECKING:
    import pytest


def test_with_unix_sockets_it_is_the_folder() -> None:
    assert local.address(Path("/run/x")) == local.address(Path("/run/x"), 3) == "ipc:///run/x"


def test_without_them_each_number_has_ports_of_its_own_that_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "UNIX", None)
    assert local.address(Path("/run/x")) == "tcp://127.0.0.1:5550", "where everybody looks first"
    ports = [int(local.address(Path("/run/x"), number).rpartition(":")[2]) for number in (1, 2, 3)]
    assert all(abs(one - other) >= 6 for one in ports for other in ports if one is not other)
    with socket.socket() as busy:
        busy.bind((local.HOST, ports[0] + 5))
        other = int(local.address(Path("/run/x"), 1).rpartition(":")[2])
        assert other not in range(ports[0] - 5, ports[0] + 6)
