"""A TCP proxy before an aggregator, with the faults of a network: it stalls, cuts, and changes what passes."""

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
"""Bytes with which a ZMTP peer begins (https://rfc.zeromq.org/spec/23)."""

PICTURE = 2000
"""Bytes from which a message's part can only be a picture."""


class Proxy:
    """Listens on an address of its own for every link of the aggregator at ``port``."""

    piece = 65_536
    """Bytes that are passed on at a time."""

    def __init__(self, port: int, seed: int = 0) -> None:
        self.port = free_port()
        self.spoil = 0.0
        """The share of pictures of which one byte is changed on their way to the aggregator."""
        self.noise = 0.0
        """The share of pieces of the raw stream, whatever they belong to, of which one byte is changed."""
        self.pictures = self.spoiled = 0
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
        """Let nothing pass, and keep every connection open."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def cut(self) -> int:
        """Close every connection; return how many there were."""
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            return len(self._open) // 2

    def pace(self, towards: bool, size: int) -> None:
        """Wait until a piece may pass; a subclass may make it late."""

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
            for sock in (near, far):  # what the kernel takes in advance does not wait for its turn
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
        self._inside = False  # the picture of this message has begun: its further pieces are no other one

    def pictures(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield where in ``data`` pictures begin, and where what is in it of each ends."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                if self._begins:
                    yield at, at + step
                self._begins = False
                at, self._left = at + step, self._left - step
                continue
            self._head += data[at : at + 1]  # flags, one of which says whether 1 or 8 bytes of length follow
            at += 1
            if len(self._head) == (9 if self._head[0] & 2 else 2):
                self._left = int.from_bytes(self._head[1:], "big")
                self._begins = self._left >= PICTURE and not self._inside
                if not self._head[0] & 4:  # a command, such as a heartbeat, may come between two parts
                    self._inside = (self._inside or self._begins) and bool(self._head[0] & 1)  # more parts follow
                self._head = b""
