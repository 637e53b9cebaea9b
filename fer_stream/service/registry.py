"""The registry: the cameras that were added at run time. They survive a restart of the service.

`Registry` is all that the service knows of it: a file on one machine, a table of the servers in a cell
(`fer_stream.service.cell`). It holds JSON values by
camera: the settings that differ from the defaults. It never holds a password (`fer_stream.settings.references`).
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.system import files, folders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fer_stream.settings.tree import Settings

    Values = dict[str, Any]
    """A camera's settings that differ from the defaults, as JSON values."""

VERSION = 1
"""Of the file's format."""

_log = logging.getLogger(__name__)


class Registry(Protocol):
    """The cameras that were added at run time, by name."""

    @property
    def where(self) -> str:
        """Where they are stored, for messages."""
        ...

    def read(self) -> dict[str, Values] | None:
        """Return all cameras, in the registry's order; ``None`` if it is known that none was ever added.

        Raises:
            ConfigError: they cannot be read.
        """
        ...

    def put(self, camera: str, values: Values) -> None:
        """Store a camera's settings. When this returns, they survive a restart.

        Raises:
            FerStreamError: they cannot be stored; nothing has changed.
        """
        ...

    def remove(self, camera: str) -> None:
        """Delete a camera, in the same way as `put`; a camera that is not there is no error.

        Raises:
            FerStreamError: this cannot be stored; nothing has changed.
        """
        ...


class FileRegistry:
    """A `Registry` in a JSON file (mode 0600), which is replaced as a whole. Its order is that of addition.

    A file that is damaged is kept under another name, and told in the log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of(cls, settings: Settings) -> FileRegistry:
        """Return the registry that the settings name, or else the one beside their journal (or the default one)."""
        journal = settings.journal.path
        beside = journal if isinstance(journal, Path) else folders.state() / "nats"
        return cls(settings.registry or beside.with_name(f"{beside.name}.cameras.json"))

    @property
    def where(self) -> str:
        """See `Registry.where`."""
        return str(self._path)

    def read(self) -> dict[str, Values] | None:
        """See `Registry.read`."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(
                f"the registry of cameras {self._path} cannot be read: {error.strerror}; check its permissions, or "
                "choose another file (registry)"
            ) from error
        try:
            found = json.loads(text)
            version, cameras = found["version"], found["cameras"]
        except (ValueError, KeyError, TypeError, RecursionError):
            version, cameras = None, None
        if type(version) is int and version > VERSION:
            raise ConfigError(
                f"the registry of cameras {self._path} is of a newer version of fer-stream: install that one, or "
                "choose another file (registry)"
            )
        if version != VERSION or not _is_table(cameras) or not all(map(_is_table, cameras.values())):
            self._set_aside()
            return {}
        known: dict[str, Values] = cameras
        return known

    def _set_aside(self) -> None:
        names = (f"{self._path.name}.corrupt-{number}" for number in itertools.count(1))
        aside = next(path for path in map(self._path.with_name, names) if not path.exists())
        with suppress(OSError):
            self._path.rename(aside)
        _log.error(
            "the registry of cameras %s is damaged and was set aside as %s: add its cameras again",
            self._path,
            aside.name,
        )

    def put(self, camera: str, values: Values) -> None:
        """See `Registry.put`."""
        with self._changing() as cameras:
            cameras[camera] = values

    def remove(self, camera: str) -> None:
        """See `Registry.remove`."""
        with self._changing() as cameras:
            cameras.pop(camera, None)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Values]]:
        """Yield the cameras of the file, and write them back."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = files.open_folder(self._path.parent)
            try:
                with suppress(OSError):  # some network file systems have no locks
                    files.lock(folder, wait=True)  # against another service with the same registry
                cameras = self.read() or {}
                yield cameras
                self._write(json.dumps({"version": VERSION, "cameras": cameras}, indent=1).encode() + b"\n")
                files.sync_folder(self._path.parent)
            finally:
                files.close_folder(self._path.parent, folder)
        except OSError as error:
            raise FerStreamError(
                f"the registry of cameras {self._path} cannot be written: {error.strerror}; nothing was changed"
            ) from error

    def _write(self, text: bytes) -> None:
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.unlink(missing_ok=True)  # of a process that was killed here
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        files.replace(fresh, self._path)


def _is_table(value: object) -> bool:
    return isinstance(value, dict)
