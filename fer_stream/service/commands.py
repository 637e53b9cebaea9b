"""What operators tell a running service: the calls of ``fer-stream cameras``, and SIGHUP."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.settings import references, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fer_stream.operations.calls import Calls
    from fer_stream.operations.process import Stop
    from fer_stream.service.cameras import Cameras
    from fer_stream.service.progress import Progress
    from fer_stream.service.supervisor import CameraState, Supervisor

SETTINGS = tree.CameraSettings.model_fields.keys() - {"source"}
"""The settings of a camera that have a default."""

PAUSE = 0.5
"""Least seconds between two readings of the settings file on SIGHUP."""

_log = logging.getLogger(__name__)


class Commands:
    """Carries out calls and SIGHUP between two turns of the service's loop (`look`)."""

    def __init__(
        self,
        calls: Calls,
        cameras: Cameras,
        supervisor: Supervisor,
        progress: Progress,
        announce: Callable[[Iterable[str]], None],
    ) -> None:
        """Take the parts of a service.

        Args:
            calls: the calls.
            cameras: which cameras there are to be.
            supervisor: starts and ends their captures.
            progress: has the latest status.
            announce: lists the service with these cameras.
        """
        self._calls, self._cameras, self._supervisor, self._progress = calls, cameras, supervisor, progress
        self._announce = announce
        self._next_hangup = 0.0
        self._actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "list": self._list,
            "add": self._add,
            "change": self._change,
            "remove": self._remove,
            "reload": lambda _: self._reload(),
        }

    def look(self, stop: Stop) -> None:
        """Answer the calls that wait, and read the settings file again after SIGHUP."""
        while (call := self._calls.next()) is not None:
            try:
                do = str(call.request.get("do"))
                if do not in self._actions:
                    raise ConfigError(f"this service cannot do {do!r:.40}: is it of another version?")
                call.answer(self._actions[do](call.request))
            except FerStreamError as error:
                call.refuse(error)
        if time.monotonic() >= self._next_hangup and stop.told_to_reload():
            self._next_hangup = time.monotonic() + PAUSE
            try:
                self._reload()
            except FerStreamError as error:
                _log.error("nothing has changed on SIGHUP: %s", error)

    def _list(self, _: dict[str, Any]) -> dict[str, Any]:
        status = self._progress.status
        found = []
        for name, camera in self._cameras.now.items():
            values = tree.changed(camera) | {"source": references.displayed(camera.source)}
            home = self._cameras.homes[name]
            found.append(entry(name, self._supervisor.state(name, status), home, values))
        leaving = sorted(self._supervisor.leaving)
        found += [entry(name, self._supervisor.state(name, status), "", {}) for name in leaving]
        unused = [{"camera": name, "reason": reason} for name, reason in self._cameras.unused.items()]
        return {"cameras": found, "unused": unused}

    def _add(self, request: dict[str, Any]) -> dict[str, Any]:
        name = name_in(request)
        self._cameras.add(name, values_in(request))
        self._apply()
        _log.info("camera %s was added", name)
        return {"lasts": True}

    def _change(self, request: dict[str, Any]) -> dict[str, Any]:
        name = name_in(request)
        changed = self._cameras.change(name, values_in(request), unset_in(request))
        if changed:
            self._apply()
            _log.info("camera %s was changed", name)
        return {"changed": changed, "lasts": self._cameras.lasts(name)}

    def _remove(self, request: dict[str, Any]) -> dict[str, Any]:
        name = name_in(request)
        lasts = name not in self._cameras.now or self._cameras.lasts(name)
        self._cameras.remove(name)
        self._apply()
        _log.info("camera %s was removed", name)
        return {"lasts": lasts}

    def _reload(self) -> dict[str, Any]:
        changes = self._cameras.reload()
        self._apply()
        parts = {"added": changes.added, "changed": changes.changed, "removed": changes.removed}
        told = "; ".join(f"{what} {', '.join(names)}" for what, names in parts.items() if names)
        _log.info("the settings file was read again: %s", told or "no camera has changed")
        if changes.restart:
            _log.warning("%s changed in the settings file, which needs a restart", ", ".join(changes.restart))
        return parts | {"restart": changes.restart}

    def _apply(self) -> None:
        self._supervisor.apply(self._cameras.now)
        self._announce(self._cameras.now)


def entry(name: str, state: CameraState, home: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return a camera as ``fer-stream cameras list`` gets it; ``values`` are its settings with its source."""
    since = datetime.fromtimestamp(state.since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "camera": name,
        "state": state.state,
        "since": since if state.since else "",
        "reason": state.reason,
        "from": home,
        "source": values.pop("source", ""),
        "settings": values,
    }


def name_in(request: dict[str, Any]) -> str:
    """Return the name of the camera in a request.

    Raises:
        ConfigError: there is none.
    """
    name = request.get("camera")
    if not isinstance(name, str):
        raise ConfigError("a call without the name of a camera")
    return name


def values_in(request: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in a request, which are not validated.

    Raises:
        ConfigError: they are no table.
    """
    values = request.get("settings", {})
    if not isinstance(values, dict):
        raise ConfigError("a call whose settings are no table")
    return values


def unset_in(request: dict[str, Any]) -> list[str]:
    """Return the settings in a request that are to get their default again.

    Raises:
        ConfigError: they are no list, or one is unknown.
    """
    unset = request.get("unset", [])
    if not isinstance(unset, list):
        raise ConfigError("a call whose settings are no list")
    if unknown := set(map(str, unset)) - SETTINGS:
        raise ConfigError(f"{min(unknown)} is no setting of a camera that has a default")
    return unset
