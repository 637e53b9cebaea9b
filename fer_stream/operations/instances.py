"""Which services of this user run on this machine: each has a folder of its own, and a file with its address.

Both lie in the user's runtime folder. A lock shows that a process is alive. The kernel releases it however the process
ends, so a killed service is never found, and the next one that starts deletes what it left.
"""

from __future__ import annotations

import fcntl
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
from typing import TYPE_CHECKING, Self

from fer_stream.errors import ConfigError, TransportError
from fer_stream.system import folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fer_stream.settings.tree import Settings

_log = logging.getLogger(__name__)

_LOCK = "instances.lock"
_RUN = re.compile(r"run-\d+")
_SERVICE = re.compile(r"service-\w+")
_NOTE = "about.json"


@dataclass(frozen=True, slots=True)
class Instance:
    """A service that runs: where, which process, and which cameras `run` was given."""

    address: str
    pid: int
    cameras: tuple[str, ...]
    started: float
    """Seconds since 1970."""

    def __str__(self) -> str:
        cameras = f"cameras {', '.join(self.cameras)}; " if self.cameras else ""
        return f"{self.address} ({cameras}process {self.pid})"


class Claim:
    """A folder that is one run's alone, ``path``, until `close` and until every process with ``lock`` has ended.

    The number in its name is the lowest that is free, so the address of a service that is started again stays the same.
    """

    def __init__(self) -> None:
        """Take a folder.

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

    def close(self) -> None:
        """Delete the folder; a second call does nothing."""
        if self.lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self.lock)
            self.lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def announced(address: str, cameras: Iterable[str] = ()) -> Iterator[None]:
    """Have `running` name this process as a service at ``address`` for as long as the context lasts.

    Where the runtime folder cannot be used, the log says so: whoever looks for the service has to give its address.
    """
    with ExitStack() as last:
        try:
            last.enter_context(_announced(address, cameras))
        except ConfigError as error:
            _log.warning("readers cannot find this service without its address: %s", error)
        yield


@contextmanager
def _announced(address: str, cameras: Iterable[str]) -> Iterator[None]:
    with _alone() as root:
        folder = Path(tempfile.mkdtemp(prefix="service-", dir=root))
        lock = _hold(folder)
        about = {"address": address, "pid": os.getpid(), "cameras": list(cameras), "started": time.time()}
        (folder / _NOTE).write_text(json.dumps(about), encoding="utf-8")
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _hold(folder: Path) -> int:
    """Lock a folder, and return the descriptor that holds the lock.

    Programs that delete old files from folders for temporary ones (systemd-tmpfiles) leave a locked folder alone.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def running() -> list[Instance]:
    """Return the services of this user that run on this machine, the oldest first.

    Raises:
        ConfigError: the runtime folder cannot be used.
    """
    if not folders.runtime().is_dir():
        return []
    with _alone() as root:
        found = [_read(path / _NOTE) for path in root.iterdir() if _SERVICE.fullmatch(path.name)]
    return sorted((instance for instance in found if instance), key=lambda instance: instance.started)


def find(settings: Settings) -> str:
    """Return the address that the settings give, or else that of the one service that runs.

    Raises:
        TransportError: none runs.
        ConfigError: several run.
    """
    if given(settings):
        return settings.address
    found = running()
    if not found:
        raise TransportError(
            "no service of yours runs on this machine: start one, or give its address with --connect ADDRESS"
        )
    if len(found) > 1:
        several = ", ".join(map(str, found))
        raise ConfigError(f"{len(found)} services of yours run here: {several}; choose one with --connect ADDRESS")
    return found[0].address


def given(settings: Settings) -> bool:
    """Return whether the settings name an address, rather than leave the choice to the caller."""
    return "address" in settings.model_fields_set


@contextmanager
def _alone() -> Iterator[Path]:
    """Lock the runtime folder for this process, and delete what dead processes left there.

    Raises:
        ConfigError: it cannot be used.
    """
    root = folders.runtime()
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = root.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ConfigError(
                f"the runtime folder {root} is open to others: make it your own and chmod 700 it, or set "
                "XDG_RUNTIME_DIR to a folder that is"
            )
        lock = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(
            f"the runtime folder {root} cannot be used: {error.strerror}; set XDG_RUNTIME_DIR to a folder of your own"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # each holds it for milliseconds
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
        found = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:  # it has just ended
        return False
    except OSError:  # nothing of ours
        return True
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(found)
    return False


def _read(path: Path) -> Instance | None:
    try:
        about = json.loads(path.read_bytes())
        cameras = tuple(map(str, about["cameras"]))
        return Instance(str(about["address"]), int(about["pid"]), cameras, float(about["started"]))
    except (OSError, ValueError, KeyError, TypeError):  # it has just ended, or is of another version
        return None
