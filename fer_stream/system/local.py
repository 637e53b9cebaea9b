"""The address of a service that only this machine reaches.

If the system has Unix sockets, it is a folder of them, which only its user can enter. Otherwise it is six consecutive
TCP ports of the loopback interface, which every user of the machine can reach.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

HOST = "127.0.0.1"

FIRST = 5550
"""The first port of the default address."""

_PORTS = 6
"""Ports of an address: one per link."""

_NUMBERS = 100
"""How many rows of ports have a number. If a row is in use, the one this many rows further is tried."""


UNIX: Any = getattr(socket, "AF_UNIX", None)
"""The family of Unix sockets; ``None`` where Python has none."""


def address(folder: Path, number: int = 0) -> str:
    """Return the address of a service.

    Args:
        folder: the service's own folder.
        number: distinguishes the services of one user: each has its own ports; if these are in use, it gets others.
            0 is the default address, where readers look first.
    """
    if UNIX is not None:
        return f"ipc://{folder}"
    first = FIRST + _PORTS * (number % _NUMBERS)
    rows = range(first, 65_536 - _PORTS, _PORTS * _NUMBERS) if number else range(0)
    return f"tcp://{HOST}:{next(filter(_free, rows), first)}"


def _free(first: int) -> bool:
    with ExitStack() as last:
        try:
            for port in range(first, first + _PORTS):
                last.enter_context(socket.socket()).bind((HOST, port))
        except OSError:
            return False
    return True
