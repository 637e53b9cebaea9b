"""A TCP proxy in front of an aggregator that simulates network faults: it stalls, cuts and corrupts connections."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from processes import free_port

from fer_stream.plugins import BROADCASTS, LINKS

if TYPE_CHECKING:
    from collections.abc import Iterator

GREETING = 64
"""Length in bytes of the greeting of a ZMTP peer (https://rfc.zeromq.org/spec/23)."""

PICTURE = 2000
"""Minimum size in bytes from which a message part must be a picture."""


class Proxy:
    """Forwards every link of the aggregator at ``port`` from an address of its own."""

    piece = 65_536
    """Maximum bytes that are forwarded at a time."""

    def __init__(self, port: int, seed: int = 0) -> None:
        self.port = free_port()
        self.spoil = 0.0
        """Share of the pictures sent to the aggregator in which one byte is changed."""
        self.noise = 0.0
        """Share of the forwarded pieces to the aggregator, with any content, in which one byte is changed."""
        self.pictures = self.spoiled = self.disturbed = 0
        self._random = random.Random(seed)
        self._flowing = threading.Event()
        self._flowing.set()
        self._ended = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listeners = []
        for link in range(len(LINKS + BROADCASTS)):
            listener = socket.create_server(("127.0.0.1", self.port + link))
            self._listeners.append(listener)
            threading.Thread(target=self._accept, args=(listener, port + link), daemon=True).start()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def stall(self) -> None:
        """Stop forwarding, and keep every connection open."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def cut(self) -> int:
        """Close every connection; return their number."""
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            return len(self._open) // 2

    def pace(self, towards: bool, size: int) -> None:
        """Wait until a piece may be forwarded; a subclass may delay it."""

    def close(self) -> None:
        self._ended = True
        self._flowing.set()
        for listener in self._listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def _accept(self, listener: socket.socket, port: int) -> None:
        while not self._ended:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", port), 5)
            except OSError:
                near.close()
                continue
            for sock in (near, far):  # a small buffer: data in it has not been delayed by `pace`
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, min(8 * self.piece, 65_536))
            with self._lock:
                self._open |= {near, far}
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, towards: bool) -> None:
        parts = _Parts()
        with suppress(OSError):
            while data := source.recv(self.piece):
                self._flowing.wait()
                self.pace(towards, len(data))
                changed = bytearray(data)
                if towards:
                    for begin, end in parts.pictures(data):
                        self.pictures += 1
                        if self._random.random() < self.spoil:
                            self.spoiled += 1
                            changed[self._random.randrange(begin, end)] ^= 0xFF
                    if self._random.random() < self.noise:
                        self.disturbed += 1
                        changed[self._random.randrange(len(changed))] ^= 0xFF
                sink.sendall(changed)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()


class _Parts:
    """Finds the parts of messages in one direction of a ZMTP connection."""

    def __init__(self) -> None:
        self._left = GREETING
        self._head = b""
        self._begins = False
        self._inside = False  # the picture of this message has begun; later parts of the message are not pictures

    def pictures(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield ``(begin, end)`` in ``data`` for each picture that begins in it."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                if self._begins:
                    yield at, at + step
                self._begins = False
                at, self._left = at + step, self._left - step
                continue
            self._head += data[at : at + 1]  # flags, then 1 or 8 bytes of length, depending on a flag
            at += 1
            if len(self._head) == (9 if self._head[0] & 2 else 2):
                self._left = int.from_bytes(self._head[1:], "big")
                self._begins = self._left >= PICTURE and not self._inside
                if not self._head[0] & 4:  # a command, such as a heartbeat, may come between two parts
                    self._inside = (self._inside or self._begins) and bool(self._head[0] & 1)  # more parts follow
                self._head = b""
