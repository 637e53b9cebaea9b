"""What the kernel knows about a connection and ZeroMQ does not report: bytes received, and why connecting fails."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from fer_stream.system import local

SILENCE = 3.0
"""Seconds without a packet after which a connection is dead: TCP keepalive alone causes one packet a second."""

HANDSHAKE = 6.0
"""The same in seconds during ZeroMQ's handshake, where TCP may take seconds to retransmit a lost packet."""

_COUNTERS = struct.Struct("=Q4xI")
"""Two fields of Linux's ``struct tcp_info``, at offset `_AT`: bytes received and segments received."""
_AT = 128
_TCP_INFO: Any = getattr(socket, "TCP_INFO", None)


class Connection:
    """A TCP connection of a ZeroMQ peer.

    Any packet is a sign of life, even an acknowledgement: a long message on a slow link takes seconds.
    """

    def __init__(self, descriptor: int, now: float) -> None:
        """Duplicate the descriptor that ZeroMQ's monitor reports. If it is closed already, nothing is watched."""
        self._sock: socket.socket | None = None
        self._segments = -1
        self._moved = now
        self.received = 0
        """Bytes received so far."""
        self.established = False
        """Whether ZeroMQ's handshake is complete."""
        if _TCP_INFO is None:  # only the kernel detects a dead connection
            return
        with suppress(OSError):
            copied = os.dup(descriptor)
            try:
                self._sock = socket.socket(fileno=copied)
            except OSError:  # the number was reused for something that is no socket
                os.close(copied)

    def look(self, now: float) -> None:
        """Read the counters, and shut the connection down after too long a silence: ZeroMQ then reconnects."""
        if self._sock is None:
            return
        try:
            self.received, segments = _COUNTERS.unpack_from(
                self._sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 256), _AT
            )
        except (OSError, struct.error):  # not TCP, or an older kernel: only the kernel detects a dead connection
            self.close()
            return
        if segments != self._segments:
            self._segments, self._moved = segments, now
        elif now - self._moved > (SILENCE if self.established else HANDSHAKE):
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self.close()

    def close(self) -> None:
        """Close the duplicate descriptor, so that the connection ends when ZeroMQ closes its own."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def why_silent(endpoint: str, patience: float = 1.0) -> str:
    """Try to connect to a ZeroMQ endpoint, and return the cause of the silence as words that follow its address.

    Args:
        endpoint: ``tcp://HOST:PORT`` or ``ipc://PATH``.
        patience: seconds to wait for the connection.
    """
    try:
        if endpoint.startswith("ipc://"):
            with socket.socket(local.UNIX) as sock:
                sock.settimeout(patience)
                sock.connect(endpoint.removeprefix("ipc://"))
        else:
            parts = urlsplit(endpoint)
            socket.create_connection((parts.hostname or "", parts.port or 0), patience).close()
    except socket.gaierror as error:
        return f"its host name cannot be resolved: {error.strerror}"
    except TimeoutError:
        return "connecting to it times out: its host is down, or a firewall drops the packets"
    except OSError as error:
        if error.errno in (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTDIR):
            return "nothing listens there"
        return f"it cannot be reached: {error.strerror}"
    return "something listens there, but it does not answer: it hangs, is overloaded, or is no aggregator"
