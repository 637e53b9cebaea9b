"""The signals that ask a process for an orderly end, on each operating system.

Windows has no SIGHUP, and no process can send SIGTERM to another. There Ctrl-C and Ctrl-Break ask for the end, or a
supervisor through a pipe (`fer_stream.system.handover`).
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""Arrives when a terminal is closed; ``None`` if the system has no such signal."""

_BREAK: signal.Signals | None = getattr(signal, "SIGBREAK", None)


def endings() -> list[signal.Signals]:
    """Return the signals, besides SIGINT, that ask for an orderly end.

    SIGHUP arrives when a terminal is closed. ``nohup`` sets it to be ignored, and then it stays ignored.
    """
    further = [number for number in (HANGUP, _BREAK) if number is not None]
    return [signal.SIGTERM, *(number for number in further if signal.getsignal(number) != signal.SIG_IGN)]


def reset() -> None:
    """Undo an inherited signal state: blocked signals, and an ignored SIGCHLD. Only for fer-stream's own processes.

    Both survive ``exec``. A blocked signal cannot end the process in order. While SIGCHLD is ignored, the kernel drops
    the exit codes of children, and Python reports them as 0.
    """
    child: Any = getattr(signal, "SIGCHLD", None)
    if child is None or not hasattr(signal, "pthread_sigmask"):
        return
    known: Any = signal
    known.pthread_sigmask(known.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, known.SIGHUP, child})
    on_main_thread = threading.current_thread() is threading.main_thread()
    if on_main_thread and signal.getsignal(child) == signal.SIG_IGN:
        signal.signal(child, signal.SIG_DFL)


def terminal() -> bool:
    """Return whether this process has a controlling terminal that is open; ``False`` where there is no SIGHUP."""
    if HANGUP is None or not hasattr(os, "O_NOCTTY"):
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def wakes(descriptor: int) -> int | None:
    """On Windows, make every signal write to a socket, because a signal does not interrupt a wait there.

    Returns:
        The previous descriptor, for `signal.set_wakeup_fd`; ``None`` if nothing was changed.
    """
    return None if hasattr(signal, "pthread_kill") else signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)


def end_this_process() -> None:
    """Raise SIGTERM in this process, from any thread; where possible, it interrupts the main thread's wait."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        signal.raise_signal(signal.SIGTERM)
