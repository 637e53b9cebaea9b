"""The ZeroMQ transport: ``ipc://FOLDER`` on one machine, ``tcp://HOST:PORT`` beyond it (each link takes the next port).

The public half of an aggregator's key may follow its address, as in ``tcp://HOST:PORT#KEY``. By default it is the one
in the key file of the process that connects.

::

    links    endpoints, socket options and limits
    hub      the aggregator's end
    peer     the other end of one link

Links beyond this machine use CURVE: they are encrypted and accept only allowed keys (`fer_stream.transports.keys`).
ZeroMQ asks about each new peer's key by ZAP; the hub answers these requests in its receive loop.

The sockets are ROUTER and DEALER, and XPUB and SUB for broadcasts. PUSH and PULL would send work to dead workers.

The kernel detects a dead host: by TCP keepalive while the connection is idle, otherwise after `links.MAX_SILENCE`. A
peer detects it sooner (`sockets.Connection`). ZeroMQ's heartbeats (ZMTP PING) are not used: libzmq 4.3.5 aborts the
process if a heartbeat is due on a broken connection whose incoming queue is full (zeromq/libzmq#3937, #4364, #4767).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fer_stream.errors import ConfigError
from fer_stream.plugins import LINKS
from fer_stream.settings import deployment
from fer_stream.transports import keys as access
from fer_stream.transports.hub import ZeroMQHub
from fer_stream.transports.links import ALL, HIGH_WATER, endpoint
from fer_stream.transports.peer import QUESTIONS, ZeroMQPeer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fer_stream.plugins import Allowed

__all__ = ["ALL", "HIGH_WATER", "QUESTIONS", "ZeroMQ", "ZeroMQHub", "ZeroMQPeer", "beyond", "endpoint"]


def beyond(address: str) -> bool:
    """Like `fer_stream.settings.deployment.beyond`, and check the address.

    Raises:
        ConfigError: this is not an address.
    """
    endpoint(address, LINKS[0])
    return deployment.beyond(address)


class ZeroMQ:
    """The `Transport` between processes."""

    def __init__(self, key: Path | None = None, keys: Path | None = None) -> None:
        """Take this process's key file, and the aggregator's folder of keys; by default this user's folder."""
        self._key, self._keys = key, keys

    def bind(self, address: str, allowed: Allowed | None = None) -> ZeroMQHub:
        """See `fer_stream.plugins.Transport.bind`.

        Raises:
            ConfigError: the address can be reached from other machines or ``keys`` is given, and there are no keys.
        """
        folder = self._keys or access.default_folder()
        wanted = self._keys is not None or beyond(address)
        pair = access.server(folder) if wanted else None
        if wanted and pair is None:
            why = "may be reached from other machines" if beyond(address) else "was given --keys"
            raise ConfigError(
                f"{address} {why}, and {folder} holds no key: make one for each process that connects, as by "
                "`fer-stream keys new door --role capture`, or bind to tcp://127.0.0.1 without --keys"
            )
        return ZeroMQHub(address, pair, allowed or access.AllowList(folder))

    def connect(self, address: str, link: str) -> ZeroMQPeer:
        """See `fer_stream.plugins.Transport.connect`."""
        return ZeroMQPeer(address, link, key=self._own(address))

    def subscribe(self, address: str, link: str, topics: Sequence[str]) -> ZeroMQPeer:
        """See `fer_stream.plugins.Transport.subscribe`."""
        return ZeroMQPeer(address, link, topics, self._own(address))

    def _own(self, address: str) -> access.Key | None:
        """Return this process's key for the aggregator at an address, which may name that one's public half."""
        key, (_, _, server) = self._own_pair(address), address.partition("#")
        key = replace(key, server=server) if key and server and address.startswith("tcp://") else key
        if key is not None and not key.server:
            raise ConfigError(
                f"the key {key.name} is for a cell, and names no aggregator: add the public half of the aggregator's "
                f"key to its address, as in {address}#KEY"
            )
        return key

    def _own_pair(self, address: str) -> access.Key | None:
        if self._key is not None:
            return access.load(self._key)
        if self._keys is None and not beyond(address):
            return None
        local = (self._keys or access.default_folder()) / f"{access.LOCAL}.key"
        if local.exists():
            return access.load(local)
        raise ConfigError(
            f"{address} accepts only peers with a key: make one where the aggregator runs (`fer-stream keys new`), "
            "and give its file with --key"
        )
