"""The id of an aggregator's process, and that of the process before it at the same address.

A locked file remembers the id. Whoever gets the lock knows that the former process has ended, and can take its
partitions back at once, without waiting until it counts as silent.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.errors import TransportError
from fer_stream.system import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)


class Identity(NamedTuple):
    """``me``: an id that no other process has or had. ``former``: that of the last process here; empty: unknown."""

    me: str
    former: str = ""


@contextmanager
def identity(folder: Path, cell: str, address: str) -> Iterator[Identity]:
    """Hold the identity of this process.

    Args:
        folder: where the files are.
        cell: the cell's name.
        address: where others reach this aggregator; it tells aggregators on one machine apart.

    Raises:
        TransportError: another process with this address runs.
    """
    me = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{cell}-{address}")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(folder / f"{name}.id", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        _log.info("the id of this process cannot be kept (%s): after a restart it waits for its partitions", error)
        yield Identity(me)
        return
    try:
        try:
            files.lock(file)
        except OSError as error:
            raise TransportError(
                f"another aggregator of cell {cell} runs with the address {address}: give each its own (--bind, "
                "fleet.advertise)"
            ) from error
        former = os.read(file, 1000).decode(errors="replace").strip()
        os.truncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, me.encode())
        yield Identity(me, former)
    finally:
        os.close(file)
