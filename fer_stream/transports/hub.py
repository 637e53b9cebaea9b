"""The aggregator's end of the ZeroMQ links: it binds them, authenticates peers, and receives and sends messages."""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq
import zmq.utils.z85

from fer_stream.errors import TransportError
from fer_stream.plugins import BROADCASTS
from fer_stream.system import files
from fer_stream.transports import links
from fer_stream.transports.admission import Admission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.plugins import Allowed

_log = logging.getLogger(__name__)


class ZeroMQHub:
    """The aggregator's end of all its links."""

    def __init__(self, address: str, pair: tuple[str, str] | None, allowed: Allowed) -> None:
        self._lock = self._folder = -1  # descriptors of the lock file and of the locked folder
        self._files: list[Path] = []  # sockets to delete at the end
        self._pair, self._allowed = pair, allowed
        self.key = pair[0] if pair else ""
        self._refusal_logged = -10.0
        self._key_of_peer: dict[tuple[str, bytes], str] = {}
        self._zap: zmq.Socket[bytes] | None = None
        self._context = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._poller = zmq.Poller()
        self._admission = Admission(self._poller)
        self._waker, self._woken = socket.socketpair()
        for end in (self._waker, self._woken):
            end.setblocking(False)
        self._poller.register(self._woken, zmq.POLLIN)
        try:
            if address.startswith("ipc://"):
                self._claim(address)
            if pair is not None:
                self._zap = self._context.socket(zmq.REP)
                self._zap.set(zmq.LINGER, 0)
                self._zap.bind("inproc://zeromq.zap.01")  # before any link is bound, so that every peer is checked
                self._poller.register(self._zap, zmq.POLLIN)
            for link in links.ALL:
                self._bind(address, link)
        except BaseException:
            self.close()
            raise

    def _claim(self, address: str) -> None:
        """Lock the address's folder: a second bind would silently replace the sockets of the first."""
        folder = Path(links.endpoint(address, "control").removeprefix("ipc://")).parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if files.open_to_others(folder.stat()):
                raise TransportError(
                    f"the folder of {address} is open to others, who could listen or replace the aggregator: "
                    "make it your own and chmod 700 it, or choose another with --bind"
                )
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise TransportError(
                f"the folder of {address} cannot be used: {error.strerror}; choose another with --bind"
            ) from error
        try:
            files.lock(self._lock)
        except OSError as error:
            os.close(self._lock)
            self._lock = -1
            raise TransportError(
                f"{address} is in use by another aggregator: stop that one, or choose another with --bind"
            ) from error
        # Programs that delete old temporary files (systemd-tmpfiles) skip a locked folder, and with it the lock file.
        # A folder that `run` made is locked already.
        self._folder = files.open_folder(folder)
        with suppress(OSError):
            files.lock(self._folder)
        # The lock file stays: unlinking it could let two processes hold a lock each, on different files.
        self._files = [folder / link for link in links.ALL]

    def _bind(self, address: str, link: str) -> None:
        where = links.endpoint(address, link)
        sock = self._context.socket(zmq.XPUB if link in BROADCASTS else zmq.ROUTER)
        self._sockets[link] = sock
        links.set_options(sock, link, where)
        if link in BROADCASTS:
            sock.set(zmq.XPUB_VERBOSE, 1)  # report every subscription: a new one gets the current observations
        else:
            sock.set(zmq.ROUTER_MANDATORY, 1)
            sock.set(zmq.ROUTER_HANDOVER, 1)  # a reconnecting peer takes over its id from its old connection
        if self._pair is not None:
            sock.set(zmq.CURVE_SERVER, 1)
            sock.set(zmq.CURVE_SECRETKEY, self._pair[1].encode())
            sock.set(zmq.ZAP_DOMAIN, link.encode())
            sock.set(zmq.ZAP_ENFORCE_DOMAIN, 1)  # refuse peers for which ZAP gives no answer
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
        if self._woken.fileno() in ready:
            self._woken.recv(4096)
        if self._zap is not None and self._zap in ready:
            self._answer_zap(self._zap)
        messages = []
        self._key_of_peer = {}
        for link, sock in self._sockets.items():
            if sock in ready:
                # At most 100 messages, so that one flooded link does not delay the others.
                for _ in range(100):
                    frames = links.receive(sock)
                    if frames is None:
                        break
                    parts = links.contents(link, frames, before=1)
                    if self._pair is not None and link in ("frames", "control"):
                        self._key_of_peer[link, bytes(parts[0])] = str(frames[0].get("User-Id"))
                    messages.append((link, b"", parts) if link in BROADCASTS else (link, bytes(parts[0]), parts[1:]))
        return messages

    def _answer_zap(self, zap: zmq.Socket[bytes]) -> None:
        """Answer ZAP requests (https://rfc.zeromq.org/spec/27): accept peers whose key opens the requested link."""
        for _ in range(100):  # a limit, as in `receive`
            try:
                version, request, domain, _, _, mechanism, *credentials = zap.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            public = zmq.utils.z85.encode(credentials[0]).decode() if credentials else ""
            allowed = mechanism == b"CURVE" and self._allowed.may(public, domain.decode())
            if not allowed and time.monotonic() >= self._refusal_logged + 10:
                self._refusal_logged = time.monotonic()
                _log.warning(
                    "refused on %s: the key %.8s...; fer-stream keys list shows the allowed keys",
                    domain.decode(),
                    public,
                )
            verdict = (b"200", b"OK") if allowed else (b"400", b"no key for this link")
            zap.send_multipart([version, request, *verdict, public.encode() if allowed else b"", b""])

    def objection(self, peer: bytes, camera: str) -> str:
        """See `fer_stream.plugins.Hub.objection`."""
        if self._pair is None:
            return ""
        return self._allowed.objection(self._key_of_peer.get(("frames", peer), ""), camera)

    def may_read(self, peer: bytes) -> bool:
        """See `fer_stream.plugins.Hub.may_read`."""
        return self._pair is None or self._allowed.may_read(self._key_of_peer.get(("control", peer), ""))

    def annotator(self, peer: bytes) -> str | None:
        """See `fer_stream.plugins.Hub.annotator`."""
        if self._pair is None:
            return ""
        return self._allowed.annotator(self._key_of_peer.get(("control", peer), ""))

    def send(self, link: str, peer: bytes, parts: Sequence[Any]) -> bool:
        """See `fer_stream.plugins.Hub.send`."""
        return links.send(self._sockets[link], [peer, *links.pieces(link, parts)])

    def publish(self, link: str, topic: str, parts: Sequence[Any]) -> None:
        """See `fer_stream.plugins.Hub.publish`."""
        links.send(self._sockets[link], [topic.encode(), *links.pieces(link, parts)])

    def wake(self) -> None:
        """See `fer_stream.plugins.Hub.wake`."""
        with suppress(OSError):  # full: a wake-up is pending; closed: nothing waits
            self._waker.send(b"\0")

    def close(self) -> None:
        """See `fer_stream.plugins.Hub.close`."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets = {}
        if self._zap is not None:
            self._zap.close()
            self._zap = None
        self._admission.close()
        self._context.term()
        self._waker.close()
        self._woken.close()
        for path in self._files:
            path.unlink(missing_ok=True)
        self._files = []
        if self._lock >= 0:
            os.close(self._folder)
            os.close(self._lock)
            self._lock = self._folder = -1
