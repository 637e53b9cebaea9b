"""ZeroMQ: ``ipc://FOLDER`` on one machine, ``tcp://HOST:PORT`` beyond it (the links take the ports from there on).

Beyond this machine links are CURVE's: encrypted, and open to allowed keys alone (`fer_stream.transports.keys`); ZAP,
the question that ZeroMQ asks about each newcomer's key, is answered by the hub between two messages.

ROUTER and DEALER, never PUSH and PULL (which feed dead workers); XPUB and SUB for what everybody may hear.

The kernel finds that a host is dead: with TCP's keepalive while nothing is sent, and after `SILENT` otherwise. A peer
finds it sooner (`Connection`). ZeroMQ's own heartbeats (ZMTP's PING) are not used: libzmq 4.3.5 aborts the process when
a heartbeat is due on a broken connection whose incoming queue is full (zeromq/libzmq#3937, #4364, #4767).
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import zmq
import zmq.utils.monitor
import zmq.utils.z85

from fer_stream.errors import ConfigError, TransportError
from fer_stream.plugins import BROADCASTS, LINKS, Standing
from fer_stream.protocol import messages
from fer_stream.settings import deployment
from fer_stream.transports import keys as access
from fer_stream.transports.admission import Admission
from fer_stream.transports.connection_log import ConnectionLog
from fer_stream.transports.sockets import Connection, why_silent

if TYPE_CHECKING:
    from collections.abc import Sequence

ALL = LINKS + BROADCASTS
HIGH_WATER = {"control": 1000, "frames": 1000, "work": 16, "events": 10_000, "observations": 100, "preview": 8}
"""Messages a queue holds for one peer. Frames are few by protocol; a slow reader of events has the journal."""

WITH_PICTURES = ("frames", "work", "preview")
"""Links whose messages are long. They are sent in several parts (`fer_stream.protocol.messages.split`), so that the
receiver sees that a message is on its way."""

QUESTIONS = 64
"""Those that one peer's queue holds for an aggregator that is not there: it will answer all of them."""

ZERO_COPY_FROM = 65_536
"""Bytes from which passing a buffer by reference is cheaper than copying it."""

_log = logging.getLogger(__name__)

FOR_CLIENTS = ("control", "events")
"""Links of clients, which may be far away: over TCP a long message, or a lost packet, takes seconds there."""

LOOK = 0.5
"""Seconds between looks at whether a connection lives."""

_REFUSALS = zmq.Event.HANDSHAKE_FAILED_AUTH | zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
_CHANGES = zmq.Event.CONNECTED | zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED

KEEPALIVE = 1
"""Seconds without a packet until one is sent to see whether the other host is there, and between such packets."""

SILENT = 60_000
"""Milliseconds after which the kernel ends a connection whose other host acknowledges nothing, or reads nothing."""

CONNECT = 3000
"""Milliseconds that one try to connect may take: TCP's first two repetitions; a name is resolved for each try anew."""

CUT_OFF = 5
"""Connections in a row that end before it is clear who is there, until a log says so: a key of another aggregator?"""

MAX_IPC_PATH = 100
"""A little under what ``sockaddr_un`` takes on every system."""


def endpoint(address: str, link: str) -> str:
    """Return the ZeroMQ endpoint of one link of the aggregator at an address.

    Raises:
        ConfigError: not an address.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "ipc" and rest:
        path = str(Path(rest).absolute() / link)
        if len(path.encode()) > MAX_IPC_PATH:
            raise ConfigError(f"the address {address} is too long for a socket: choose a folder with a shorter path")
        return f"ipc://{path}"
    if scheme == "tcp":
        try:
            parts = urlsplit(address)
            if parts.hostname and parts.port and parts.port + len(ALL) <= 65_536 and not parts.path:
                host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
                return f"tcp://{host}:{parts.port + ALL.index(link)}"
        except ValueError:
            pass
    raise ConfigError(f"{address!r} is not an address: give ipc://FOLDER or tcp://HOST:PORT")


def _harden(sock: zmq.Socket[bytes], link: str, where: str) -> None:
    """Set what libzmq leaves unbounded: queues, message size, lingering, silence."""
    slow = link in FOR_CLIENTS and where.startswith("tcp://")
    sock.set(zmq.SNDHWM, HIGH_WATER[link])
    sock.set(zmq.RCVHWM, HIGH_WATER[link])
    sock.set(zmq.MAXMSGSIZE, messages.MAX_PAYLOAD)
    sock.set(zmq.LINGER, 1000)
    sock.set(zmq.TCP_KEEPALIVE, 1)
    sock.set(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE)
    sock.set(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE)
    sock.set(zmq.TCP_MAXRT, SILENT)
    sock.set(zmq.HANDSHAKE_IVL, 30_000 if slow else 5000)
    sock.set(zmq.IPV6, 1)


def _send(sock: zmq.Socket[bytes], parts: Sequence[Any]) -> bool:
    try:
        sock.send_multipart(parts, zmq.DONTWAIT, copy=sum(map(_size, parts)) < ZERO_COPY_FROM)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            return False
        raise TransportError(f"a message cannot be sent: {error.strerror}") from error
    return True


def _size(part: Any) -> int:
    return len(part) if isinstance(part, bytes) else memoryview(part).nbytes


def _receive(sock: zmq.Socket[bytes]) -> list[zmq.Frame] | None:
    try:
        return sock.recv_multipart(zmq.DONTWAIT, copy=False)
    except zmq.Again:
        return None


def _pieces(link: str, parts: Sequence[Any]) -> Sequence[Any]:
    return messages.split(parts) if link in WITH_PICTURES else parts


def _contents(link: str, frames: list[zmq.Frame], before: int = 0) -> list[Any]:
    """Return the parts of what was received, of which so many stand before our message: a ROUTER's peer, a topic."""
    parts: list[Any] = [frame.bytes if len(frame) < ZERO_COPY_FROM else frame.buffer for frame in frames]
    return [*parts[:before], *messages.joined(parts[before:])] if link in WITH_PICTURES else parts


def beyond(address: str) -> bool:
    """As `fer_stream.settings.deployment.beyond`.

    Raises:
        ConfigError: not an address.
    """
    endpoint(address, LINKS[0])
    return deployment.beyond(address)


class ZeroMQ:
    """The `Transport` between processes."""

    def __init__(self, key: Path | None = None, keys: Path | None = None) -> None:
        """Take the process's own key, and the aggregator's folder of keys; by default those of this user."""
        self._key, self._keys = key, keys

    def bind(self, address: str) -> ZeroMQHub:
        """See `fer_stream.plugins.Transport.bind`.

        Raises:
            ConfigError: the address can be reached from other machines, and there are no keys.
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
        return ZeroMQHub(address, pair, access.AllowList(folder))

    def connect(self, address: str, link: str) -> ZeroMQPeer:
        """See `fer_stream.plugins.Transport.connect`."""
        return ZeroMQPeer(address, link, key=self._own(address))

    def subscribe(self, address: str, link: str, topics: Sequence[str]) -> ZeroMQPeer:
        """See `fer_stream.plugins.Transport.subscribe`."""
        return ZeroMQPeer(address, link, topics, self._own(address))

    def _own(self, address: str) -> access.Key | None:
        if self._key is not None:
            return access.load(self._key)
        if self._keys is None and not beyond(address):
            return None
        local = (self._keys or access.default_folder()) / f"{access.LOCAL}.key"
        if local.exists():
            return access.load(local)
        raise ConfigError(
            f"{address} lets in who has a key alone: have one made where the aggregator runs (`fer-stream keys new`), "
            "and name its file with --key"
        )


class ZeroMQHub:
    """All links of one aggregator."""

    def __init__(self, address: str, pair: tuple[str, str] | None, allowed: access.AllowList) -> None:
        self._lock = self._folder = -1
        self._files: list[Path] = []
        self._pair, self._allowed = pair, allowed
        self._told = -10.0
        self._speakers: dict[bytes, str] = {}
        self._gate: zmq.Socket[bytes] | None = None
        self._context = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._poller = zmq.Poller()
        self._admission = Admission(self._poller)
        try:
            if address.startswith("ipc://"):
                self._claim(address)
            if pair is not None:
                self._gate = self._context.socket(zmq.REP)
                self._gate.set(zmq.LINGER, 0)
                self._gate.bind("inproc://zeromq.zap.01")  # before any newcomer can ask
                self._poller.register(self._gate, zmq.POLLIN)
            for link in ALL:
                self._bind(address, link)
        except BaseException:
            self.close()
            raise

    def _claim(self, address: str) -> None:
        """Take the folder for this process: a second bind would silently take the sockets away from the first."""
        folder = Path(endpoint(address, "control").removeprefix("ipc://")).parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = folder.stat()
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise TransportError(
                    f"the folder of {address} is open to others, who could listen or take the place of the aggregator: "
                    "make it your own and chmod 700 it, or choose another with --bind"
                )
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise TransportError(
                f"the folder of {address} cannot be used: {error.strerror}; choose another with --bind"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = -1
            raise TransportError(
                f"{address} is in use by another aggregator: stop that one, or choose another with --bind"
            ) from error
        # Programs that delete old files from folders for temporary ones leave a locked folder alone, and so the lock
        # file. A folder that `run` gave us is locked already.
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The lock stays: who unlinks a lock file may leave two processes with a lock each.
        self._files = [folder / link for link in ALL]

    def _bind(self, address: str, link: str) -> None:
        where = endpoint(address, link)
        sock = self._context.socket(zmq.XPUB if link in BROADCASTS else zmq.ROUTER)
        self._sockets[link] = sock
        _harden(sock, link, where)
        if link in BROADCASTS:
            sock.set(zmq.XPUB_VERBOSE, 1)  # so that each newcomer can be told what is open
        else:
            sock.set(zmq.ROUTER_MANDATORY, 1)
            sock.set(zmq.ROUTER_HANDOVER, 1)  # a peer that reconnects is the same peer
        if self._pair is not None:
            sock.set(zmq.CURVE_SERVER, 1)
            sock.set(zmq.CURVE_SECRETKEY, self._pair[1].encode())
            sock.set(zmq.ZAP_DOMAIN, link.encode())
            sock.set(zmq.ZAP_ENFORCE_DOMAIN, 1)  # nobody comes in while nobody is asked
        try:
            self._admission.bind(sock, where, last=link == "control")
        except (zmq.ZMQError, OSError) as error:
            raise TransportError(
                f"{where} cannot be bound: {error.strerror}; stop what uses it, or choose another with --bind"
            ) from error
        self._poller.register(sock, zmq.POLLIN)

    def receive(self, timeout: float) -> list[tuple[str, bytes, list[Any]]]:
        """See `fer_stream.plugins.Hub.receive`."""
        ready = dict(self._poller.poll(max(0, round(timeout * 1000))))
        self._admission.look(ready)
        if self._gate is not None and self._gate in ready:
            self._answer_gate(self._gate)
        messages = []
        self._speakers = {}
        for link, sock in self._sockets.items():
            if sock in ready:
                # Bounded, so that one flooded link cannot keep the others waiting.
                for _ in range(100):
                    frames = _receive(sock)
                    if frames is None:
                        break
                    parts = _contents(link, frames, before=1)
                    if self._pair is not None and link == "frames":
                        self._speakers[bytes(parts[0])] = str(frames[0].get("User-Id"))
                    messages.append((link, b"", parts) if link in BROADCASTS else (link, bytes(parts[0]), parts[1:]))
        return messages

    def _answer_gate(self, gate: zmq.Socket[bytes]) -> None:
        """Say who may come in (ZAP, https://rfc.zeromq.org/spec/27): whose key opens the link that is asked for."""
        for _ in range(100):  # bounded, as above
            try:
                version, request, domain, _, _, mechanism, *credentials = gate.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            public = zmq.utils.z85.encode(credentials[0]).decode() if credentials else ""
            known = mechanism == b"CURVE" and self._allowed.may(public, domain.decode())
            if not known and time.monotonic() >= self._told + 10:
                self._told = time.monotonic()
                _log.warning(
                    "refused on %s: the key %.8s...; fer-stream keys list shows who may come in",
                    domain.decode(),
                    public,
                )
            verdict = (b"200", b"OK") if known else (b"400", b"no key for this link")
            gate.send_multipart([version, request, *verdict, public.encode() if known else b"", b""])

    def objection(self, peer: bytes, camera: str) -> str:
        """See `fer_stream.plugins.Hub.objection`."""
        return self._allowed.objection(self._speakers.get(peer, ""), camera) if self._pair is not None else ""

    def send(self, link: str, peer: bytes, parts: Sequence[Any]) -> bool:
        """See `fer_stream.plugins.Hub.send`."""
        return _send(self._sockets[link], [peer, *_pieces(link, parts)])

    def publish(self, link: str, topic: str, parts: Sequence[Any]) -> None:
        """See `fer_stream.plugins.Hub.publish`."""
        _send(self._sockets[link], [topic.encode(), *_pieces(link, parts)])

    def close(self) -> None:
        """See `fer_stream.plugins.Hub.close`."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets = {}
        if self._gate is not None:
            self._gate.close()
            self._gate = None
        self._admission.close()
        self._context.term()
        for path in self._files:
            path.unlink(missing_ok=True)
        self._files = []
        if self._lock >= 0:
            os.close(self._folder)
            os.close(self._lock)
            self._lock = self._folder = -1


class ZeroMQPeer:
    """One link to an aggregator: a DEALER, or with topics a SUB."""

    def __init__(
        self, address: str, link: str, topics: Sequence[str] | None = None, key: access.Key | None = None
    ) -> None:
        where = endpoint(address, link)
        self._address, self._link, self._key = address, link, key
        self._cut_off = self._life = 0
        self._connection: Connection | None = None
        self._connection_log = ConnectionLog(address, self.trouble)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER if topics is None else zmq.SUB)
        _harden(self._socket, link, where)
        if link in FOR_CLIENTS:
            self._socket.set(zmq.LINGER, 0)  # a question whose answer nobody waits for any more, or topics
        if link == "control":
            self._socket.set(zmq.SNDHWM, QUESTIONS)
        if key is not None:
            self._socket.set(zmq.CURVE_PUBLICKEY, key.public.encode())
            self._socket.set(zmq.CURVE_SECRETKEY, key.secret.encode())
            self._socket.set(zmq.CURVE_SERVERKEY, key.server.encode())
        # The system would go on for two minutes with an address that swallows packets, whatever its name is by now.
        self._socket.set(zmq.CONNECT_TIMEOUT, CONNECT)
        self._socket.set(zmq.RECONNECT_IVL, 50)
        self._socket.set(zmq.RECONNECT_IVL_MAX, 1000)
        if topics is None:
            # One name for life: a router that sees it again after a break knows who it is.
            self._socket.set(zmq.ROUTING_ID, b"p" + secrets.token_bytes(15))
        else:
            self._socket.set(zmq.SNDHWM, 0)  # topics travel as messages, and each beyond the mark would be lost
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
        return _send(self._socket, _pieces(self._link, parts))

    def receive(self, timeout: float) -> list[Any] | None:
        """See `fer_stream.plugins.Peer.receive`."""
        deadline = time.monotonic() + timeout
        frames = _receive(self._socket)
        while frames is None:
            left = max(0.0, deadline - time.monotonic())
            ready = dict(self._poller.poll(round(min(left, LOOK) * 1000)))
            if self._socket in ready:
                frames = _receive(self._socket)
            while self._monitor.poll(0):
                told = zmq.utils.monitor.recv_monitor_message(self._monitor)
                self._hear(told["event"], int(told["value"]))
            if self._connection is not None:
                self._connection.look(time.monotonic())
            self._connection_log.look(self.standing().up)
            if self._woken.fileno() in ready:
                self._woken.recv(4096)
                break
            if left <= LOOK:
                break
        return None if frames is None else _contents(self._link, frames, before=self._link in BROADCASTS)

    def standing(self) -> Standing:
        """See `fer_stream.plugins.Peer.standing`."""
        connection = self._connection
        up = connection is not None and connection.established
        return Standing(up, self._life, connection.received if connection else 0)

    def descriptors(self) -> tuple[int, ...]:
        """See `fer_stream.plugins.Peer.descriptors`."""
        return self._socket.fileno(), self._monitor.fileno(), self._woken.fileno()

    def trouble(self) -> str:
        """See `fer_stream.plugins.Peer.trouble`."""
        if self._cut_off and self._key:
            return f"it hangs up before it shows who it is: is the key {self._key.name} made for it?"
        return why_silent(endpoint(self._address, self._link))

    def _hear(self, event: int, value: int) -> None:
        """Take what ZeroMQ tells of the connection."""
        if event == zmq.Event.CONNECTED:
            self._let_go()
            self._connection = Connection(value, time.monotonic())
        elif event == zmq.Event.DISCONNECTED:
            self._life += bool(self._connection and self._connection.established)
            self._let_go()
        else:
            if event == zmq.Event.HANDSHAKE_SUCCEEDED and self._connection:
                self._connection.established = True
            self._check_refusal(event)

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check_refusal(self, event: int) -> None:
        """Say why this peer is not let in, after which ZeroMQ itself would be silent and never try again."""
        if event in (zmq.Event.HANDSHAKE_FAILED_AUTH, zmq.Event.HANDSHAKE_FAILED_PROTOCOL):
            self._socket.set(zmq.LINGER, 0)  # what was to be sent never will be
        who = f"the aggregator at {self._address}"
        if event == zmq.Event.HANDSHAKE_FAILED_AUTH and self._key:
            roles = ", ".join(role for role, links in access.ROLES.items() if self._link in links)
            raise TransportError(
                f"{who} refused the key {self._key.name} (role {self._key.role}): ask its operator to allow it with "
                f"`fer-stream keys allow`; the link {self._link} is open to the roles {roles}"
            )
        if event == zmq.Event.HANDSHAKE_FAILED_PROTOCOL and self._key is None:
            raise TransportError(
                f"{who} lets in who has a key alone: have one made there (`fer-stream keys new`; on its own machine "
                f"there is {access.LOCAL}.key), and name its file with --key"
            )
        if event == zmq.Event.HANDSHAKE_FAILED_PROTOCOL:
            raise TransportError(f"{who} has no key of its own, so it is not the one that this key was made for")
        self._cut_off = self._cut_off + 1 if event == zmq.Event.HANDSHAKE_FAILED_NO_DETAIL else 0
        if self._cut_off == CUT_OFF and self._key:  # it may also be on its way down or up: one goes on trying
            _log.warning("%s hangs up before it shows who it is: is the key %s made for it?", who, self._key.name)

    def wake(self) -> None:
        """See `fer_stream.plugins.Peer.wake`."""
        with suppress(OSError):  # full: it wakes anyhow; closed: nobody waits
            self._waker.send(b"\0")

    def close(self) -> None:
        """See `fer_stream.plugins.Peer.close`."""
        if not self._socket.closed:
            self._let_go()
            self._socket.disable_monitor()
            self._monitor.close()
            self._socket.close()
            self._context.term()
            self._waker.close()
            self._woken.close()
