"""The services of this user that run on this machine: each has its own folder and a file with its address.

Both are in the user's runtime folder. A lock shows that a process is alive. The kernel releases the lock however the
process ends, so a killed service is never listed, and the next service that starts deletes its files.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fer_stream.errors import ConfigError, TransportError
from fer_stream.system import files, folders, local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fer_stream.settings.tree import Settings

_log = logging.getLogger(__name__)

_LOCK = "instances.lock"
_RUN = re.compile(r"run-\d+")
_SERVICE = re.compile(r"service-\w+")
_NOTE = "about.json"


@dataclass(frozen=True, slots=True)
class Instance:
    """A running service: its address, its process id, and the cameras of a `run`."""

    address: str
    pid: int
    cameras: tuple[str, ...]
    started: float
    """Seconds since 1970."""
    calls: Path | None
    """The socket at which it takes calls (`fer_stream.operations.calls`), if it does."""

    def __str__(self) -> str:
        cameras = f"cameras {', '.join(self.cameras)}; " if self.cameras else ""
        return f"{self.address} ({cameras}process {self.pid})"


class Claim:
    """The folder ``path``, and an ``address``, for one run only.

    They are its own until `close`, and until every process that holds ``lock`` has ended. The folder's name has the
    lowest free number, so a restarted service keeps its address.
    """

    def __init__(self) -> None:
        """Create the folder.

        Raises:
            ConfigError: the runtime folder cannot be used.
        """
        with _alone() as root:
            for number in count(1):
                self.path = root / f"run-{number}"
                with suppress(FileExistsError):
                    self.path.mkdir(mode=0o700)
                    break
            self.lock = _hold(self.path)
            self.address = local.address(self.path, number)

    def close(self) -> None:
        """Delete the folder; a second call does nothing."""
        if self.lock >= 0:
            files.close_folder(self.path, self.lock, remove=True)
            self.lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def announced(
    address: str, cameras: Iterable[str] = (), calls: Path | None = None
) -> Iterator[Callable[[Iterable[str]], None]]:
    """List this process in `running`, as a service at ``address``, while the context lasts.

    Yields a function that lists other cameras from then on. If the runtime folder cannot be used, this logs a warning:
    clients then have to give the service's address.
    """
    with ExitStack() as last:
        update: Callable[[Iterable[str]], None] = _ignore
        try:
            update = last.enter_context(_announced(address, cameras, calls))
        except ConfigError as error:
            _log.warning("clients cannot find this service unless they are given its address: %s", error)
        yield update


def _ignore(_: Iterable[str]) -> None:
    pass


@contextmanager
def _announced(address: str, cameras: Iterable[str], calls: Path | None) -> Iterator[Callable[[Iterable[str]], None]]:
    about = {"address": address, "pid": os.getpid(), "started": time.time(), "calls": str(calls) if calls else None}
    with _alone() as root:
        folder = Path(tempfile.mkdtemp(prefix="service-", dir=root))
        lock = _hold(folder)

        _write(folder, about | {"cameras": list(cameras)})

    def update(cameras: Iterable[str]) -> None:
        with suppress(OSError):  # for example a full disk: the names are only for people
            _write(folder, about | {"cameras": list(cameras)})

    try:
        yield update
    finally:
        files.close_folder(folder, lock, remove=True)


def _write(folder: Path, about: dict[str, Any]) -> None:
    fresh = folder / f"{_NOTE}.new"
    fresh.write_text(json.dumps(about), encoding="utf-8")
    files.replace(fresh, folder / _NOTE)


def _hold(folder: Path) -> int:
    """Lock a folder, and return the descriptor that holds the lock.

    systemd-tmpfiles, which deletes old files from temporary folders, skips a locked folder.
    """
    lock = files.open_folder(folder)
    files.lock(lock, wait=True)
    return lock


def running() -> list[Instance]:
    """Return the services of this user that run on this machine, oldest first.

    Raises:
        ConfigError: the runtime folder cannot be used.
    """
    if not folders.runtime().is_dir():
        return []
    with _alone() as root:
        found = [_read(path / _NOTE) for path in root.iterdir() if _SERVICE.fullmatch(path.name)]
    return sorted((instance for instance in found if instance), key=lambda instance: instance.started)


def find(settings: Settings) -> str:
    """Return the address in the settings, or else the address of the one running service.

    Raises:
        TransportError: no service runs.
        ConfigError: several services run, or the runtime folder cannot be used.
    """
    return settings.address if given(settings) else _only().address


def find_calls(settings: Settings) -> Path:
    """Return the socket for calls of the service at the address in the settings, or else of the one running service.

    Raises:
        TransportError: no service runs here, or it takes no calls.
        ConfigError: several services run, or the runtime folder cannot be used.
    """
    if given(settings):
        found = next((known for known in running() if known.address == settings.address), None)
        if found is None:
            raise TransportError(
                f"no service of yours at {settings.address} runs on this machine: its cameras are changed on its own "
                "machine, by the user who runs it"
            )
    else:
        found = _only()
    if found.calls is None:
        raise TransportError(
            f"the service at {found.address} is no `fer-stream run`: start and stop its captures one by one"
        )
    return found.calls


def _only() -> Instance:
    found = running()
    if not found:
        raise TransportError(
            "no service of yours runs on this machine: start one, or give its address with --connect ADDRESS"
        )
    if len(found) > 1:
        several = ", ".join(map(str, found))
        raise ConfigError(f"{len(found)} services of yours run here: {several}; choose one with --connect ADDRESS")
    return found[0]


def given(settings: Settings) -> bool:
    """Return whether the address was set explicitly."""
    return "address" in settings.model_fields_set


@contextmanager
def _alone() -> Iterator[Path]:
    """Lock the runtime folder, delete the files of dead processes there, and return the folder.

    Raises:
        ConfigError: the folder cannot be used.
    """
    root = folders.runtime()
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if files.open_to_others(root.stat()):
            raise ConfigError(
                f"the runtime folder {root} is open to others: make it your own and chmod 700 it, or set "
                "XDG_RUNTIME_DIR to a folder that only you can use"
            )
        lock = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(
            f"the runtime folder {root} cannot be used: {error.strerror}; set XDG_RUNTIME_DIR to a folder of your own"
        ) from error
    try:
        files.lock(lock, wait=True)  # blocks only for milliseconds: no process holds it longer
        _sweep(root)
        yield root
    finally:
        os.close(lock)


def _sweep(root: Path) -> None:
    for path in root.iterdir():
        if (_RUN.fullmatch(path.name) or _SERVICE.fullmatch(path.name)) and not _alive(path):
            shutil.rmtree(path, ignore_errors=True)


def _alive(path: Path) -> bool:
    try:
        found = files.open_folder(path, follow=False)
    except FileNotFoundError:  # the process has just ended
        return False
    except OSError:  # not a folder that we created
        return True
    try:
        files.lock(found)
    except OSError:
        os.close(found)
        return True
    files.close_folder(path, found)
    return False


def _read(path: Path) -> Instance | None:
    try:
        about = json.loads(path.read_bytes())
        cameras = tuple(map(str, about["cameras"]))
        calls = Path(about["calls"]) if about.get("calls") else None
        return Instance(str(about["address"]), int(about["pid"]), cameras, float(about["started"]), calls)
    except (OSError, ValueError, KeyError, TypeError):  # the service has just ended, or has another version
        return None
