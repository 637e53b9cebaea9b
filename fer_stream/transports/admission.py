"""Limits how many connections the aggregator accepts, so that the process never runs out of file descriptors.

Each connection takes a descriptor. At the limit of the process libzmq fails badly: over TCP it retries accept() in a
loop, which keeps a core busy and serves no peer; over ipc it aborts the process. When few descriptors are left, this
module therefore controls accepting. It disables the listening sockets in libzmq's epoll, polls them itself, and has
libzmq accept one connection at a time (EPOLLONESHOT) as long as descriptors are left. Later peers wait in the kernel's
accept queue. Established connections are not affected.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import re
import select
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq
import zmq.utils.monitor

from fer_stream.system import machine

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

PLENTY = 1024
"""With room for more peers than this, libzmq accepts without limit. Accepting one at a time is slower, and a peer that
lacks a required key learns the reason less often: its connection may be closed before it has read the refusal."""

PACE = 40_000
"""Most connections that libzmq accepts in a second. It sets how soon descriptors are counted again."""

RESERVE = 128
"""Descriptors reserved for the journal, web pages and frames in shared memory (with a small limit: a sixth of it).
Half of the reserve may be used by the control link, so that operators can still ask for the status."""

ROOM_AGAIN = 4
"""When the process was full, waiting peers are accepted again once there is room for more peers than this."""

NEAR = 0.8
"""Share of the descriptors in use above which a warning is logged."""

LOOK = 0.5
"""Most seconds between two counts of the open descriptors."""

_ADVICE = "raise the limit of this process (LimitNOFILE in its unit, ulimit -n), or find peers that connect needlessly"

_log = logging.getLogger(__name__)


_select: Any = select


class _Event(ctypes.Structure):
    """``struct epoll_event``, which is packed only on x86."""

    _pack_ = 1 if platform.machine() in ("x86_64", "i686") else 0
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class _Listener:
    """One listening socket: ``number`` is libzmq's descriptor, ``own`` is our duplicate for the same socket."""

    def __init__(self, number: int, last: bool) -> None:
        if not hasattr(select, "epoll"):
            raise OSError(0, "this system has no epoll")
        self.last = last
        self.watched = False
        self._number = number
        self._epoll, self._data = _registration(number)
        self.own = socket.socket(fileno=os.dup(number))

    def accept(self, events: int) -> None:
        """Set what libzmq accepts: ``EPOLLIN`` all connections, with ``EPOLLONESHOT`` one connection, 0 none."""
        event = _Event(events, self._data)
        if ctypes.CDLL(None, use_errno=True).epoll_ctl(self._epoll, _EPOLL_CTL_MOD, self._number, ctypes.byref(event)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_EPOLL_CTL_MOD = 3


def _registration(number: int) -> tuple[int, int]:
    """Return libzmq's epoll descriptor that watches a socket, and the epoll data registered with it (proc(5), fdinfo).

    Raises:
        OSError: no epoll watches the socket, for example because libzmq was built with another poller.
    """
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:  # libzmq's I/O thread registers the socket shortly after bind()
        for epoll, entries in _epolls():
            for entry in entries:
                if int(entry["tfd"]) == number and int(entry["events"], 16) & _select.EPOLLIN:
                    return epoll, int(entry["data"], 16)
        time.sleep(0.001)
    raise OSError(0, "no epoll of libzmq watches the listening socket")


def _epolls() -> Iterator[tuple[int, Iterator[re.Match[str]]]]:
    for path in Path("/proc/self/fdinfo").iterdir():
        try:
            text = path.read_text()
        except OSError:  # the descriptor was closed meanwhile
            continue
        if "tfd:" in text:
            yield (
                int(path.name),
                re.finditer(r"tfd:\s*(?P<tfd>\d+) events:\s*(?P<events>\w+) data:\s*(?P<data>\w+)", text),
            )


class Admission:
    """Controls all listening sockets of one aggregator.

    Args:
        poller: the poller of the loop that calls `look`; listening sockets are registered in it when needed.
    """

    def __init__(self, poller: zmq.Poller) -> None:
        self._poller = poller
        self._listeners: list[_Listener] = []
        self._room: dict[bool, int] = {}
        """How many more connections may be accepted, by `_Listener.last`."""
        self._near = self._full = False
        self._next = 0.0

    def bind(self, sock: zmq.Socket[bytes], where: str, last: bool = False) -> None:
        """Bind a socket, and control from then on how many connections it accepts.

        Args:
            sock: the ZeroMQ socket.
            where: the endpoint.
            last: whether the socket may also use half of the reserved descriptors, as the control link does.

        Raises:
            zmq.ZMQError: the endpoint cannot be bound.
        """
        monitor = sock.get_monitor_socket(zmq.Event.LISTENING)
        try:
            sock.bind(where)
            number = zmq.utils.monitor.recv_monitor_message(monitor)["value"]
        finally:
            sock.disable_monitor()
            monitor.close()
        try:
            self._listeners.append(_Listener(number, last))
        except OSError as error:
            _log.debug("%s: the number of connections is not limited: %s", where, error.strerror)
        self._count()

    def look(self, ready: Container[object]) -> None:
        """Accept waiting peers as long as there is room; ``ready`` holds the descriptors that are readable."""
        for listener in self._listeners:
            if listener.own.fileno() in ready:
                if self._room[listener.last] <= 0:
                    self._count()
                if self._room[listener.last] > 0:
                    listener.accept(_select.EPOLLIN | _select.EPOLLONESHOT)
                    self._room = {last: room - 1 for last, room in self._room.items()}
        if time.monotonic() >= self._next:
            self._count()

    def _count(self) -> None:
        found = machine.descriptors()
        if found is None:
            return
        used, limit = found
        reserve = min(RESERVE, limit // 6)
        self._room = {False: limit - used - reserve, True: limit - used - reserve // 2}
        self._log_state(f"{used} of {limit} file descriptors are open", near=used > NEAR * limit)
        self._next = time.monotonic() + min(LOOK, max(self._room[False], PLENTY) / PACE)
        for listener in self._listeners:
            plenty = self._room[listener.last] > PLENTY
            listener.accept(_select.EPOLLIN if plenty else 0)
            self._watch(listener, not plenty and (self._room[True] > 0 if listener.last else not self._full))

    def _log_state(self, count: str, near: bool) -> None:
        if self._room[False] <= 0 and not self._full:
            self._full = self._near = True
            _log.error("%s: new peers have to wait; %s", count, _ADVICE)
        elif near and not self._near:
            self._near = True
            _log.warning("%s: %s", count, _ADVICE)
        elif self._full and self._room[False] > ROOM_AGAIN:
            self._full = False
            _log.warning("there are free file descriptors again: new peers are accepted")
        self._near = near or self._full

    def _watch(self, listener: _Listener, watch: bool) -> None:
        if watch and not listener.watched:
            self._poller.register(listener.own, zmq.POLLIN)
        elif listener.watched and not watch:
            self._poller.unregister(listener.own)
        listener.watched = watch

    def close(self) -> None:
        """Close our duplicate descriptors; the ZeroMQ sockets stay open."""
        for listener in self._listeners:
            self._watch(listener, watch=False)
            listener.own.close()
        self._listeners = []
