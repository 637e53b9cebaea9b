"""What the kernel knows about a connection and ZeroMQ does not report: whether bytes arrive, and why there is none."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from urllib.parse import urlsplit

SILENCE = 3.0
"""Seconds without a packet after which a connection is dead: TCP's keepalive alone makes one a second."""

HANDSHAKE = 6.0
"""The same during ZeroMQ's handshake: a lost packet is sent again after seconds."""

_COUNTERS = struct.Struct("=Q4xI")
"""In Linux's ``struct tcp_info``: the bytes and the segments received, from `_AT` on."""
_AT = 128


class Connection:
    """A TCP connection of a ZeroMQ peer.

    Any packet is a sign of life, even an acknowledgement: a long message on a slow link takes seconds.
    """

    def __init__(self, descriptor: int, now: float) -> None:
        """Take the descriptor that ZeroMQ's monitor tells. Where it is closed already, there is nothing to see."""
        self._sock: socket.socket | None = None
        self._segments = -1
        self._moved = now
        self.received = 0
        """Bytes so far."""
        self.established = False
        """Whether ZeroMQ's handshake is through."""
        with suppress(OSError):
            copied = os.dup(descriptor)
            try:
                self._sock = socket.socket(fileno=copied)
            except OSError:  # the number belongs to something else by now
                os.close(copied)

    def look(self, now: float) -> None:
        """See what has arrived, and hang up where nothing has for too long: ZeroMQ then connects anew."""
        if self._sock is None:
            return
        try:
            self.received, segments = _COUNTERS.unpack_from(
                self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), _AT
            )
        except (OSError, struct.error):  # not TCP, or an older kernel: the system alone ends it
            self.close()
            return
        if segments != self._segments:
            self._segments, self._moved = segments, now
        elif now - self._moved > (SILENCE if self.established else HANDSHAKE):
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self.close()

    def close(self) -> None:
        """Let go of it, so that it ends when ZeroMQ closes it."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def why_silent(endpoint: str, patience: float = 1.0) -> str:
    """Return what becomes of a connection to a ZeroMQ endpoint, in words that follow its address.

    Args:
        endpoint: ``tcp://HOST:PORT`` or ``ipc://PATH``.
        patience: seconds to wait for it.
    """
    try:
        if endpoint.startswith("ipc://"):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(patience)
                sock.connect(endpoint.removeprefix("ipc://"))
        else:
            parts = urlsplit(endpoint)
            socket.create_connection((parts.hostname or "", parts.port or 0), patience).close()
    except socket.gaierror as error:
        return f"its host name cannot be resolved: {error.strerror}"
    except TimeoutError:
        return "it does not answer, not even to a connection: its host is down, or a firewall drops what is sent"
    except OSError as error:
        if error.errno in (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTDIR):
            return "nothing listens there"
        return f"it cannot be reached: {error.strerror}"
    return "something listens there, but it does not answer: it hangs, is overloaded, or is no aggregator"
