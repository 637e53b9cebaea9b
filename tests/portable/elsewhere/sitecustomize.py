"""Takes from a process what another operating system has not; a folder on PYTHONPATH has each of its children do so.

The variable ``ELSEWHERE`` says which system: ``macos`` or ``windows``. What the standard library itself uses is left to
it: its modules are imported before. It is not that system: only that what we call there is what it has, and that files
which are open, processes which are killed, and parents which have died behave as they do there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def take(system: str) -> None:
    """Take everything that the system has not."""
    windows = system == "windows"
    _import_before()
    descriptors = os.open("/proc/self/fd", os.O_RDONLY)
    _close_proc()
    _remove(os, "memfd_create", "MFD_CLOEXEC", "MFD_ALLOW_SEALING", "sched_getaffinity", "sched_setaffinity")
    _remove(os, "pidfd_open", "eventfd", "fdatasync", "O_PATH", "posix_fadvise", "posix_fallocate")
    _remove(sys.modules["select"], "epoll", "EPOLLIN", "EPOLLONESHOT")
    _remove(sys.modules["socket"], "TCP_INFO", "SO_PEERCRED")
    _remove(sys.modules["fcntl"], "F_ADD_SEALS", "F_GET_SEALS", "F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_SEAL")
    if windows:
        _take_windows(descriptors)
    else:
        os.close(descriptors)


def _import_before() -> None:
    import asyncio  # noqa: F401, PLC0415
    import multiprocessing.util  # noqa: F401, PLC0415
    import selectors  # noqa: F401, PLC0415
    import socketserver  # noqa: F401, PLC0415
    import subprocess  # noqa: F401, PLC0415
    import tempfile  # noqa: F401, PLC0415
    import uuid  # noqa: F401, PLC0415

    import platformdirs.unix  # noqa: F401, PLC0415
    import zmq  # noqa: F401, PLC0415

    # These go by the platform's name, or by what there was when they were imported.
    _leave_whole("platformdirs", "os")
    _leave_whole("selectors", "select")


def _leave_whole(user: str, module: str) -> None:
    """Let a package keep a module with all that it has now."""
    whole: Any = type(sys)(module)
    vars(whole).update(vars(sys.modules[module]))
    for name, each in sys.modules.items():
        if name.partition(".")[0] == user and hasattr(each, module):
            setattr(each, module, whole)


def _remove(module: Any, *names: str) -> None:
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


def _close_proc() -> None:
    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | os.PathLike):
            path = os.fspath(arguments[0])
            if isinstance(path, str) and path.startswith(("/proc/", "/sys/", "/dev/fd/", "/dev/shm")):
                raise FileNotFoundError(2, "No such file or directory", path)

    sys.addaudithook(refuse)


def _take_windows(descriptors: int) -> None:
    import fcntl  # noqa: PLC0415
    import select  # noqa: PLC0415
    import signal  # noqa: PLC0415
    import socket  # noqa: PLC0415
    import types  # noqa: PLC0415

    msvcrt: Any = types.ModuleType("msvcrt")
    msvcrt.LK_NBLCK, msvcrt.locking = 2, _locking(fcntl)
    sys.modules["msvcrt"] = msvcrt
    _change_processes(signal.SIGKILL, os.kill)
    _change_files(descriptors)
    _change_sockets(socket)
    _remove(os, "fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "pread", "pwrite", "sysconf")
    _remove(
        os, "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "fchmod", "fchown", "chown", "killpg"
    )
    _remove(os, "getpgid", "setsid", "statvfs", "mkfifo", "sendfile", "set_blocking", "wait", "pipe2", "getpriority")
    _remove(select, "poll", "POLLIN", "POLLOUT", "POLLERR")
    _remove(signal, "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGCHLD", "SIGALRM", "SIGPIPE", "SIGQUIT")
    _remove(signal, "pthread_sigmask", "pthread_kill", "sigwait", "setitimer", "alarm")
    for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"):
        sys.modules[name] = None  # type: ignore[assignment]


def _locking(fcntl: Any) -> Any:
    """Return ``msvcrt.locking``: it locks bytes from the file's position on, for this opening of the file only."""
    import struct  # noqa: PLC0415

    kinds = fcntl.F_OFD_SETLK, fcntl.F_WRLCK

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert mode == 2
        start = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            fcntl.fcntl(descriptor, kinds[0], struct.pack("hhqqi4x", kinds[1], os.SEEK_SET, start, count, 0))
        except BlockingIOError as error:
            raise PermissionError(13, "Permission denied") from error

    return locking


def _change_processes(sigkill: int, kill: Any) -> None:
    """A killed process ends with 1, and there is no other way to end one; a parent's id stays after its death."""
    import subprocess  # noqa: PLC0415

    parent = os.getppid()
    os.getppid = lambda: parent

    def terminate(self: Any) -> None:
        if self.poll() is None:
            kill(self.pid, sigkill)

    def handle_exit(self: Any, status: int, *further: Any) -> None:
        inner(self, status, *further)
        self.returncode = 1 if self.returncode < 0 else self.returncode

    inner = subprocess.Popen._handle_exitstatus
    made = subprocess.Popen.__init__

    def start(self: Any, *arguments: Any, pass_fds: tuple[int, ...] = (), **options: Any) -> None:
        if pass_fds:
            raise ValueError("pass_fds not supported on Windows.")
        made(self, *arguments, **options)

    popen: Any = subprocess.Popen
    popen.__init__, popen._handle_exitstatus = start, handle_exit
    popen.kill = popen.terminate = popen.send_signal = terminate

    def forbidden(*_: Any) -> None:
        raise AssertionError("os.kill ends a process on Windows, whatever the signal")

    os.kill = forbidden


def _change_files(descriptors: int) -> None:
    """A folder cannot be opened. What is open cannot be renamed, replaced or deleted; here, in the same process."""
    listing, link, really_open = os.listdir, os.readlink, os.open

    def is_open(path: Any, folder: Any = None) -> bool:
        if folder is not None:  # a name in an open folder, as `shutil.rmtree` uses
            return False
        where = os.path.realpath(os.fspath(path))
        for number in listing(descriptors):
            try:
                found = link(number, dir_fd=descriptors)
            except OSError:
                continue
            if found == where and not Path(where).is_dir():
                return True
        return False

    def refused(path: Any) -> PermissionError:
        error = PermissionError(13, "The process cannot access the file because it is being used by another process")
        error.winerror = 32  # type: ignore[attr-defined]
        error.filename = os.fspath(path)
        return error

    def guarded(inner: Any) -> Any:
        def call(path: Any, *further: Any, **options: Any) -> Any:
            folder = options.get("dir_fd", options.get("src_dir_fd"))
            for each in (path, *further):
                if isinstance(each, str | bytes | os.PathLike) and is_open(each, folder):
                    raise refused(each)
            return inner(path, *further, **options)

        return call

    for name in ("unlink", "remove", "rename", "replace", "rmdir"):
        setattr(os, name, guarded(getattr(os, name)))

    def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is None and isinstance(path, str | os.PathLike) and Path(path).is_dir():
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return really_open(path, flags, mode, dir_fd=dir_fd)

    os.open = opened
    import shutil  # noqa: PLC0415

    shutil._use_fd_functions = False  # type: ignore[attr-defined]


def _change_sockets(socket: Any) -> None:
    import zmq  # noqa: PLC0415

    family = socket.AF_UNIX
    sockets = socket.socket

    def pair(*_: Any) -> tuple[Any, Any]:
        with sockets(socket.AF_INET) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            one = sockets(socket.AF_INET)
            one.connect(listener.getsockname())
            return one, listener.accept()[0]

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.bind", "socket.connect") and arguments[0].family == family:
            raise OSError(97, "Address family not supported by protocol")

    sys.addaudithook(refuse)
    socket.socketpair = pair
    _remove(socket, "AF_UNIX", "SO_REUSEPORT")

    def no_reader(*_: Any) -> None:  # as in asyncio.ProactorEventLoop
        raise NotImplementedError

    import asyncio  # noqa: PLC0415

    asyncio.SelectorEventLoop.add_reader = no_reader  # type: ignore[method-assign]
    has = zmq.has
    zmq.has = lambda name: name != "ipc" and has(name)
    for name in ("bind", "connect"):
        setattr(zmq.Socket, name, _without_ipc(getattr(zmq.Socket, name), zmq))


def _without_ipc(inner: Any, zmq: Any) -> Any:
    def call(self: Any, where: str, *further: Any) -> Any:
        if where.startswith("ipc:"):
            raise zmq.ZMQError(zmq.EPROTONOSUPPORT)
        return inner(self, where, *further)

    return call


if "ELSEWHERE" in os.environ:
    take(os.environ["ELSEWHERE"])
