"""How many peers may come in: never so many that the process has no file descriptor left.

A connection takes a descriptor. At the limit of the process libzmq fails badly: over TCP it tries to accept again and
again, which keeps a core busy and serves nobody; over ipc it aborts the process. So where descriptors are few, this
module decides who is accepted. It switches the sockets that listen off in libzmq's epoll, watches them itself, and has
libzmq accept one connection at a time (EPOLLONESHOT) as long as there is room. Whoever comes later waits in the
system's queue. Connections that are there are not touched.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import select
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import zmq
import zmq.utils.monitor

from fer_stream.system import machine

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

PLENTY = 1024
"""Peers for whom there must be room where libzmq accepts as it likes. One at a time is slower, and who comes without a
key where one is needed is less often told so: its connection may be cut before it has read why."""

PACE = 40_000
"""Connections that libzmq accepts in a second at most: how soon to look again, so that no look comes too late."""

RESERVE = 128
"""Descriptors that peers do not get, or a sixth of a small limit: for the journal, for pages, for frames in memory.
Half of them are left to the link by which people ask what is the matter."""

ROOM_AGAIN = 4
"""Peers for whom there must be room again before those who wait are let in."""

NEAR = 0.8
"""Share of the descriptors from which a warning tells of it."""

LOOK = 0.5
"""Seconds between looks at how many there are, at most."""

_ADVICE = "let this process have more (LimitNOFILE in its unit, ulimit -n), or look for peers that connect needlessly"

_log = logging.getLogger(__name__)


class _Event(ctypes.Structure):
    """``struct epoll_event``, which is packed on x86 alone."""

    _pack_ = 1 if os.uname().machine in ("x86_64", "i686") else 0
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class _Listener:
    """One socket that listens: ``number`` is its descriptor in libzmq, ``own`` is one of ours for the same socket."""

    def __init__(self, number: int, last: bool) -> None:
        self.last = last
        self.watched = False
        self.own = socket.socket(fileno=os.dup(number))
        self._number = number
        self._epoll, self._data = _registration(number)

    def accept(self, events: int) -> None:
        """Have libzmq accept: ``EPOLLIN`` always, with ``EPOLLONESHOT`` one connection, 0 none."""
        event = _Event(events, self._data)
        if _libc.epoll_ctl(self._epoll, _EPOLL_CTL_MOD, self._number, ctypes.byref(event)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_EPOLL_CTL_MOD = 3

_libc = ctypes.CDLL(None, use_errno=True)


def _registration(number: int) -> tuple[int, int]:
    """Return libzmq's epoll in which a descriptor is, and the data with which it is there (proc(5), fdinfo).

    Raises:
        OSError: there is none, as where libzmq waits by other means.
    """
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:  # its thread puts it there soon after the socket is bound
        for epoll, entries in _epolls():
            for entry in entries:
                if int(entry["tfd"]) == number and int(entry["events"], 16) & select.EPOLLIN:
                    return epoll, int(entry["data"], 16)
        time.sleep(0.001)
    raise OSError(0, "it is not known how libzmq waits for connections")


def _epolls() -> Iterator[tuple[int, Iterator[re.Match[str]]]]:
    for path in Path("/proc/self/fdinfo").iterdir():
        try:
            text = path.read_text()
        except OSError:  # closed meanwhile
            continue
        if "tfd:" in text:
            yield (
                int(path.name),
                re.finditer(r"tfd:\s*(?P<tfd>\d+) events:\s*(?P<events>\w+) data:\s*(?P<data>\w+)", text),
            )


class Admission:
    """All sockets of one aggregator that listen.

    Args:
        poller: what wakes who calls `look`, again and again.
    """

    def __init__(self, poller: zmq.Poller) -> None:
        self._poller = poller
        self._listeners: list[_Listener] = []
        self._room: dict[bool, int] = {}
        """How many peers may still come in, by `_Listener.last`."""
        self._near = self._full = False
        self._next = 0.0

    def bind(self, sock: zmq.Socket[bytes], where: str, last: bool = False) -> None:
        """Bind a socket, and decide from then on who comes in by it.

        Args:
            sock: of ZeroMQ.
            where: the endpoint.
            last: whether it is for who asks what is the matter: it may use more of the last descriptors.

        Raises:
            zmq.ZMQError: it cannot be bound.
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
            _log.debug("%s: libzmq alone decides who comes in: %s", where, error.strerror)
        self._count()

    def look(self, ready: Container[object]) -> None:
        """Let in who waits, as long as there is room; ``ready`` has the descriptors that the poller found readable."""
        for listener in self._listeners:
            if listener.own.fileno() in ready:
                if self._room[listener.last] <= 0:
                    self._count()
                if self._room[listener.last] > 0:
                    listener.accept(select.EPOLLIN | select.EPOLLONESHOT)
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
        self._tell(f"{used} of {limit} file descriptors are open", near=used > NEAR * limit)
        self._next = time.monotonic() + min(LOOK, max(self._room[False], PLENTY) / PACE)
        for listener in self._listeners:
            plenty = self._room[listener.last] > PLENTY
            listener.accept(select.EPOLLIN if plenty else 0)
            self._watch(listener, not plenty and (self._room[True] > 0 if listener.last else not self._full))

    def _tell(self, count: str, near: bool) -> None:
        if self._room[False] <= 0 and not self._full:
            self._full = self._near = True
            _log.error("%s: new peers have to wait; %s", count, _ADVICE)
        elif near and not self._near:
            self._near = True
            _log.warning("%s: %s", count, _ADVICE)
        elif self._full and self._room[False] > ROOM_AGAIN:
            self._full = False
            _log.warning("there are file descriptors again: new peers are let in")
        self._near = near or self._full

    def _watch(self, listener: _Listener, watch: bool) -> None:
        if watch and not listener.watched:
            self._poller.register(listener.own, zmq.POLLIN)
        elif listener.watched and not watch:
            self._poller.unregister(listener.own)
        listener.watched = watch

    def close(self) -> None:
        """Let go of everything; the sockets themselves are not closed by this."""
        for listener in self._listeners:
            self._watch(listener, watch=False)
            listener.own.close()
        self._listeners = []
