"""Waits until one of several descriptors can be read: with ``poll``, or on Windows, which lacks it, ``select``."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_select: Any = select
_POLL = hasattr(select, "poll")


def wait_readable(descriptors: Iterable[int], timeout: float | None) -> None:
    """Wait up to ``timeout`` seconds (``None``: without limit) until one of the descriptors can be read.

    Args:
        descriptors: those of sockets. Pipes and files are possible only where there is ``poll``.
        timeout: seconds.
    """
    if _POLL:
        poll = _select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, _select.POLLIN)
        poll.poll(None if timeout is None else timeout * 1000)
    elif waiting := list(descriptors):
        select.select(waiting, [], [], timeout)
    elif timeout:  # Windows refuses to wait for nothing
        time.sleep(timeout)


def takes_more(descriptor: int) -> bool:
    """Return whether a stream takes a write without waiting; ``True`` where that cannot be known."""
    return not _POLL or bool(_flags(descriptor, _select.POLLOUT) & _select.POLLOUT)


def reader_gone(descriptor: int) -> bool:
    """Return whether nobody can read any more what is written to a stream; ``True`` where that cannot be known."""
    return not _POLL or bool(_flags(descriptor, 0) & _select.POLLERR)


def _flags(descriptor: int, events: int) -> int:
    poll = _select.poll()
    poll.register(descriptor, events)
    return next((flags for _, flags in poll.poll(0)), 0)
