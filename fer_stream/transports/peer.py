"""A peer's end of one ZeroMQ link: it connects, reconnects, and finds out why the aggregator does not answer."""

from __future__ import annotations

import logging
import secrets
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import zmq
import zmq.utils.monitor

from fer_stream.errors import ConfigError, TransportError
from fer_stream.plugins import BROADCASTS, ConnectionState
from fer_stream.transports import keys, links
from fer_stream.transports.connection_log import ConnectionLog
from fer_stream.transports.sockets import Connection, why_silent

if TYPE_CHECKING:
    from collections.abc import Sequence

QUESTIONS = 64
"""Most requests queued while there is no connection to the aggregator; it answers all of them later."""

LOOK = 0.5
"""Seconds between two checks of the connection."""

CONNECT = 3000
"""Milliseconds for one connection attempt, enough for two retransmissions. Each attempt resolves the host name."""

CLOSED_EARLY = 5
"""Connections in a row that are closed during the handshake before a warning is logged: the key may have been made for
another aggregator."""

_REFUSALS = zmq.Event.HANDSHAKE_FAILED_AUTH | zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
_CHANGES = zmq.Event.CONNECTED | zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED

_log = logging.getLogger(__name__)


class ZeroMQPeer:
    """One link to an aggregator: a DEALER, or with topics a SUB."""

    def __init__(
        self, address: str, link: str, topics: Sequence[str] | None = None, key: keys.Key | None = None
    ) -> None:
        where = links.endpoint(address, link)
        self._address, self._link, self._key = address, link, key
        self._closed_early = self._connections = 0
        self._connection: Connection | None = None
        self._connection_log = ConnectionLog(address, self.diagnose)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER if topics is None else zmq.SUB)
        links.set_options(self._socket, link, where)
        if link in links.FOR_CLIENTS:
            self._socket.set(zmq.LINGER, 0)  # unsent requests and subscriptions have no use after closing
        if link == "control":
            self._socket.set(zmq.SNDHWM, QUESTIONS)
        if key is not None:
            self._socket.set(zmq.CURVE_PUBLICKEY, key.public.encode())
            self._socket.set(zmq.CURVE_SECRETKEY, key.secret.encode())
            self._socket.set(zmq.CURVE_SERVERKEY, key.server.encode())
        # By default the kernel tries an address that drops packets for two minutes; the name may have a new address.
        self._socket.set(zmq.CONNECT_TIMEOUT, CONNECT)
        self._socket.set(zmq.RECONNECT_IVL, 50)
        self._socket.set(zmq.RECONNECT_IVL_MAX, 1000)
        if topics is None:
            # A fixed id: the ROUTER recognizes this peer after a reconnection.
            self._socket.set(zmq.ROUTING_ID, b"p" + secrets.token_bytes(15))
        else:
            self._socket.set(
                zmq.SNDHWM, 0
            )  # subscriptions are sent as messages, and those beyond the mark would be lost
            for topic in topics:
                self._socket.set(zmq.SUBSCRIBE, topic.encode())
        self._monitor = self._socket.get_monitor_socket(_REFUSALS | _CHANGES)
        try:
            self._socket.connect(where)
        except zmq.ZMQError as error:
            self._monitor.close()
            self._socket.close()
            self._context.term()
            raise ConfigError(f"{where} cannot be connected to: {error.strerror}; check the address") from error
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._woken, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)

    def send(self, parts: Sequence[Any]) -> bool:
        """See `fer_stream.plugins.Peer.send`."""
        return links.send(self._socket, links.pieces(self._link, parts))

    def receive(self, timeout: float) -> list[Any] | None:
        """See `fer_stream.plugins.Peer.receive`."""
        deadline = time.monotonic() + timeout
        frames = links.receive(self._socket)
        while frames is None:
            remaining = max(0.0, deadline - time.monotonic())
            ready = dict(self._poller.poll(round(min(remaining, LOOK) * 1000)))
            if self._socket in ready:
                frames = links.receive(self._socket)
            while self._monitor.poll(0):
                change = zmq.utils.monitor.recv_monitor_message(self._monitor)
                self._handle_event(change["event"], int(change["value"]))
            if self._connection is not None:
                self._connection.look(time.monotonic())
            self._connection_log.look(self.connection_state().up)
            if self._woken.fileno() in ready:
                self._woken.recv(4096)
                break
            if remaining <= LOOK:
                break
        return None if frames is None else links.contents(self._link, frames, before=self._link in BROADCASTS)

    def connection_state(self) -> ConnectionState:
        """See `fer_stream.plugins.Peer.connection_state`."""
        connection = self._connection
        up = connection is not None and connection.established
        return ConnectionState(up, self._connections, connection.received if connection else 0)

    def descriptors(self) -> tuple[int, ...]:
        """See `fer_stream.plugins.Peer.descriptors`."""
        return self._socket.fileno(), self._monitor.fileno(), self._woken.fileno()

    def diagnose(self) -> str:
        """See `fer_stream.plugins.Peer.diagnose`."""
        if self._closed_early and self._key:
            return f"it closes the connection during the handshake: is the key {self._key.name} made for it?"
        return why_silent(links.endpoint(self._address, self._link))

    def _handle_event(self, event: int, value: int) -> None:
        """Handle an event of ZeroMQ's socket monitor."""
        if event == zmq.Event.CONNECTED:
            self._drop_connection()
            self._connection = Connection(value, time.monotonic())
        elif event == zmq.Event.DISCONNECTED:
            self._connections += bool(self._connection and self._connection.established)
            self._drop_connection()
        else:
            if event == zmq.Event.HANDSHAKE_SUCCEEDED and self._connection:
                self._connection.established = True
            self._check_refusal(event)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check_refusal(self, event: int) -> None:
        """Raise the reason of a refusal: ZeroMQ itself would neither report it nor reconnect."""
        if event in (zmq.Event.HANDSHAKE_FAILED_AUTH, zmq.Event.HANDSHAKE_FAILED_PROTOCOL):
            self._socket.set(zmq.LINGER, 0)  # unsent messages will never be delivered
        aggregator = f"the aggregator at {self._address}"
        if event == zmq.Event.HANDSHAKE_FAILED_AUTH and self._key:
            roles = ", ".join(role for role, opened in keys.ROLES.items() if self._link in opened)
            raise TransportError(
                f"{aggregator} refused the key {self._key.name} (role {self._key.role}): ask its operator to allow it "
                f"with `fer-stream keys allow`; the link {self._link} is open to the roles {roles}"
            )
        if event == zmq.Event.HANDSHAKE_FAILED_PROTOCOL and self._key is None:
            raise TransportError(
                f"{aggregator} accepts only peers with a key: make one there (`fer-stream keys new`; on its own "
                f"machine there is {keys.LOCAL}.key), and give its file with --key"
            )
        if event == zmq.Event.HANDSHAKE_FAILED_PROTOCOL:
            raise TransportError(f"{aggregator} has no key of its own, so this key was made for another one")
        self._closed_early = self._closed_early + 1 if event == zmq.Event.HANDSHAKE_FAILED_NO_DETAIL else 0
        if self._closed_early == CLOSED_EARLY and self._key:  # it may also be starting or stopping, so keep trying
            _log.warning(
                "%s closes the connection during the handshake: is the key %s made for it?", aggregator, self._key.name
            )

    def wake(self) -> None:
        """See `fer_stream.plugins.Peer.wake`."""
        with suppress(OSError):  # full: a wake-up is pending; closed: nothing waits
            self._waker.send(b"\0")

    def close(self) -> None:
        """See `fer_stream.plugins.Peer.close`."""
        if not self._socket.closed:
            self._drop_connection()
            self._socket.disable_monitor()
            self._monitor.close()
            self._socket.close()
            self._context.term()
            self._waker.close()
            self._woken.close()
