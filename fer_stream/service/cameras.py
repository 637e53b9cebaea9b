"""The cameras of a running service: which there are, where each comes from, and changes of them.

Each camera has one home. The command line, the environment and the settings file give cameras (`Given`); the others are
in the registry (`fer_stream.service.registry`). A camera is changed where it lives: in the file, or by these methods.
Those given by the command line or the environment can be changed here, too, until the service ends. If the registry
has a camera with the name of a given one, the given one counts, and the registry's waits until that one is gone.

A method that raises an error has changed nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ConfigError
from fer_stream.settings import references, schema, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from fer_stream.service.registry import Registry, Values
    from fer_stream.settings.tree import CameraSettings, Loaded, Settings

COMMAND_LINE, ENVIRONMENT, FILE, RUN_TIME = "command line", "environment", "file", "run time"
"""Where a camera comes from."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """What the command line, the environment and the settings file give."""

    settings: Settings
    homes: dict[str, str]
    """Where each of its cameras comes from."""
    file: Path | None
    others: dict[str, Any]
    """The settings that were set, without those of cameras, by dotted name."""

    @classmethod
    def of(cls, loaded: Loaded, file: Path | None, only: Iterable[str] = ()) -> Given:
        """Return it from settings with their origins; if ``only`` names cameras, without the others."""
        cameras = loaded.settings.cameras
        settings = loaded.settings.model_copy(update={"cameras": {name: cameras[name] for name in only or cameras}})
        flat = schema.flatten(loaded.settings.model_dump(mode="json"))
        values = {schema.dotted(path): value for path, value in flat if path[0] != "cameras"}
        others = {name: value for name, value in values.items() if loaded.origins[name] != "default"}
        return cls(settings, {name: _home(loaded, name) for name in settings.cameras}, file, others)


def _home(loaded: Loaded, camera: str) -> str:
    prefix = schema.dotted(("cameras", camera)) + "."
    origins = [origin for name, origin in loaded.origins.items() if name.startswith(prefix)]
    if any(origin.startswith("argument ") for origin in origins):
        return COMMAND_LINE
    return FILE if any(origin.startswith("file ") for origin in origins) else ENVIRONMENT


@dataclass(frozen=True)
class Changes:
    """What reading the settings again has changed: names of cameras, and of settings that need a restart."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    restart: list[str]


class Cameras:
    """See the module docstring. ``now`` are the cameras that are captured, ``homes`` where each comes from."""

    def __init__(self, given: Given, again: Callable[[], Given] | None, registry: Registry) -> None:
        """Take the given cameras, and those in the registry.

        Args:
            given: as of the start of the service.
            again: reads it again.
            registry: the cameras that were added at run time.

        Raises:
            ConfigError: the registry cannot be read, or there are too many cameras.
        """
        self._begin = self._given = given
        self._again = again
        self._registry = registry
        self._overrides: dict[str, CameraSettings | None] = {}
        """Changes of given cameras until the service ends; ``None``: removed."""
        self.now: dict[str, CameraSettings] = {}
        self.homes: dict[str, str] = {}
        self.unused: dict[str, str] = {}
        """Cameras in the registry that are not captured, and why."""
        self._take(given, registry.read() or {})

    def _take(self, given: Given, registered: Mapping[str, Values]) -> None:
        """Take given and registered cameras.

        Raises:
            ConfigError: there are too many, or a setting is not UTF-8.
        """
        cameras = dict(given.settings.cameras)
        for name, override in self._overrides.items():
            if name in cameras and given.homes[name] != FILE:
                if override is None:
                    del cameras[name]
                else:
                    cameras[name] = override
        homes = {name: given.homes[name] for name in cameras}
        unused, twins = {}, {name.lower(): name for name in cameras}
        for name, values in registered.items():
            try:
                if twin := twins.get(name.lower()):
                    raise ConfigError(f"{twin} is given by the {homes[twin]}, which counts")
                cameras[name] = tree.cameras({name: values})[name]
                homes[name], twins[name.lower()] = RUN_TIME, name
            except ConfigError as error:
                unused[name] = str(error)
        _check_number(len(cameras), self._begin.settings.max_cameras)
        tree.check_text(cameras)
        self._given, self.now, self.homes = given, cameras, homes
        for name in unused.keys() - self.unused.keys():
            _log.warning("camera %s in the registry %s is not used: %s", name, self._registry.where, unused[name])
        self.unused = unused

    def add(self, name: str, values: Values) -> None:
        """Add a camera.

        Raises:
            ConfigError: there is a camera of this name, there are too many cameras, a value is invalid, or the source
                contains a password.
            FerStreamError: the camera cannot be stored.
        """
        if name in self.unused:
            raise ConfigError(
                f"there is a camera {name} in the registry, which is not used: remove it with "
                f"`fer-stream cameras remove {name}`"
            )
        if twin := _twin(name, self.now):
            raise ConfigError(
                f"there is a camera {twin} already: change it with `fer-stream cameras change {twin}`, or choose "
                "another name"
            )
        camera = tree.cameras({name: values})[name]
        _check_source(name, camera)
        _check_number(len(self.now) + 1, self._begin.settings.max_cameras)
        self._registry.put(name, tree.changed(camera))
        self.now[name], self.homes[name] = camera, RUN_TIME

    def change(self, name: str, values: Values, unset: Iterable[str] = ()) -> bool:
        """Change settings of a camera; those in ``unset`` get their default. Return whether anything changed.

        Raises:
            ConfigError: there is no such camera, it is in the settings file, or a value is invalid.
            FerStreamError: the change cannot be stored.
        """
        self._check_home(name)
        before = self.now[name]
        known = {key: value for key, value in tree.changed(before).items() if key not in set(unset)}
        camera = tree.cameras({name: known | values})[name]
        if camera.source != before.source:
            _check_source(name, camera)
        if camera == before:
            return False
        if self.homes[name] == RUN_TIME:
            self._registry.put(name, tree.changed(camera))
        else:
            self._overrides[name] = camera
        self.now[name] = camera
        return True

    def remove(self, name: str) -> None:
        """Remove a camera.

        Raises:
            ConfigError: there is no such camera, or it is in the settings file.
            FerStreamError: the change cannot be stored.
        """
        if name in self.unused and name not in self.now:
            self._registry.remove(name)
            del self.unused[name]
            return
        self._check_home(name)
        if self.homes[name] == RUN_TIME:
            self._registry.remove(name)
        else:
            self._overrides[name] = None
        del self.now[name], self.homes[name]

    def reload(self) -> Changes:
        """Read the settings file and the registry again.

        Raises:
            ConfigError: there is no settings file, one of both cannot be read, or a value is invalid.
        """
        if self._again is None or self._begin.file is None:
            raise ConfigError(
                "there is no settings file to read again: the service was started without --config; change its cameras "
                "with `fer-stream cameras`"
            )
        given, before = self._again(), self.now
        self._take(given, self._registry.read() or {})
        others = self._begin.others
        return Changes(
            [name for name in self.now if name not in before],
            [name for name in self.now if name in before and self.now[name] != before[name]],
            [name for name in before if name not in self.now],
            sorted(name for name in others.keys() | given.others.keys() if others.get(name) != given.others.get(name)),
        )

    def refresh(self) -> None:
        """Read the registry again.

        Raises:
            ConfigError: it cannot be read, or there are too many cameras.
        """
        self._take(self._given, self._registry.read() or {})

    def lasts(self, name: str) -> bool:
        """Return whether changes of a camera survive the end of the service."""
        return self.homes[name] == RUN_TIME

    def _check_home(self, name: str) -> None:
        if name not in self.now:
            known = ", ".join(self.now) or "none"
            raise ConfigError(f"there is no camera {name}: the cameras are {known}")
        if self.homes[name] == FILE:
            raise ConfigError(
                f"camera {name} is in the settings file {self._given.file}: change it there, then run "
                "`fer-stream cameras reload`"
            )


def _twin(name: str, cameras: Iterable[str]) -> str:
    """Return the camera whose name is the same but for its case, or an empty text."""
    return next((other for other in cameras if other.lower() == name.lower()), "")


def _check_source(name: str, camera: CameraSettings) -> None:
    """Refuse a password: the key that could encrypt it would have to lie beside it, which protects nothing."""
    if references.in_clear(camera.source):
        raise ConfigError(
            f"the source of camera {name} contains a password, and passwords are not stored: write it into a file that "
            f"only you can read, and give that in its place, as in rtsp://user:file:/home/me/{name}.password@HOST/, or "
            "env:NAME for a variable of the service"
        )


def _check_number(count: int, limit: int) -> None:
    if count > limit:
        raise ConfigError(f"{count} cameras are too many: max_cameras is {limit}; remove some, or raise it and restart")
