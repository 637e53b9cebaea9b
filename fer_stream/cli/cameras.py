"""The command ``cameras``, which lists and changes the cameras of a running service on this machine, or of a cell."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.cli.options import CAMERA_OPTIONS, begin, camera_values
from fer_stream.cli.reading import table
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator

    from fer_stream.settings.tree import Settings

    Ask = Callable[..., dict[str, Any]]

LOOK = 0.2
"""Seconds between two looks at a camera that is starting or ending."""


def cameras(arguments: Namespace) -> None:
    """List, add, change or remove cameras, or have the service read its settings file again.

    Raises:
        ConfigError: wrong use, or the service refuses it; nothing has changed.
        FerStreamError: the service cannot do it; nothing has changed.
        TransportError: no service of this user runs on this machine.
        JournalError: the cell's servers cannot be used.
    """
    values = camera_values(arguments)
    _check_use(arguments, values)
    with _service(begin(arguments, "cameras")) as call:

        def ask(do: str, **request: Any) -> dict[str, Any]:
            return call({"do": do} | request)

        {"list": _list, "reload": _reload, "remove": _remove}.get(arguments.action, _set)(arguments, values, ask)


@contextmanager
def _service(settings: Settings) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Yield what carries out requests: the cell of the settings, or else the service that runs on this machine."""
    if settings.fleet.cell:
        from fer_stream.service.cell import CellCommands  # noqa: PLC0415

        with CellCommands(settings) as commands:
            yield commands.call
    else:
        from fer_stream.operations import calls, instances  # noqa: PLC0415

        path = instances.find_calls(settings)
        yield lambda request: calls.call(path, request)


def _check_use(arguments: Namespace, values: dict[str, Any]) -> None:
    """Check which arguments the action takes.

    Raises:
        ConfigError: one is missing, or has no meaning here.
    """
    action, name = arguments.action, arguments.name
    if action in ("list", "reload") and name is not None:
        raise ConfigError(f"fer-stream cameras {action} takes no {name!r}: it is about all cameras")
    if action in ("add", "change", "remove") and name is None:
        raise ConfigError(f"which camera? fer-stream cameras {action} NAME{' SOURCE' if action == 'add' else ''}")
    if action == "add" and arguments.source is None:
        raise ConfigError(f"camera {name} has no source: fer-stream cameras add {name} SOURCE")
    if action not in ("add", "change") and (values or arguments.source is not None):
        flags = [option.flag for option in CAMERA_OPTIONS if option.settings[0] in values]
        raise ConfigError(f"fer-stream cameras {action} takes no {(flags or [arguments.source])[0]}")
    if action != "change" and arguments.unset:
        raise ConfigError(f"fer-stream cameras {action} takes no --unset")


def _list(arguments: Namespace, _: dict[str, Any], ask: Ask) -> None:
    answer = ask("list")
    if arguments.format == "jsonl":
        for camera in answer["cameras"]:
            sys.stdout.write(json.dumps(camera, ensure_ascii=False) + "\n")
    else:
        in_cell = any("node" in camera for camera in answer["cameras"])
        columns = ["camera", "state", "since", *(["machine", "node"] if in_cell else ["from"]), "source"]
        rows = [[*columns, "settings", "reason"]]
        for camera in answer["cameras"]:
            settings = " ".join(f"{name}={_text(value)}" for name, value in camera["settings"].items())
            rows.append([*(camera[key] for key in columns), settings, camera["reason"]])
        sys.stdout.write("\n".join(table(rows) if len(rows) > 1 else ["no cameras"]) + "\n")
    for camera in answer["unused"]:
        _warn(f"camera {camera['camera']} in the registry is not used: {camera['reason']}")


def _set(arguments: Namespace, values: dict[str, Any], ask: Ask) -> None:
    name, action = arguments.name, arguments.action
    if arguments.source is not None:
        values["source"] = _complete(arguments.source)
    names = {option.flag.removeprefix("--"): option.settings[0] for option in CAMERA_OPTIONS}
    unset = [names.get(setting, setting) for setting in arguments.unset]
    answer = ask(action, camera=name, settings=values, unset=unset)
    if not answer.get("changed", True):
        _tell(f"camera {name} stays as it is: nothing is different")
        return
    _tell_lasts(name, answer)

    def settled() -> dict[str, Any] | None:
        known = _find(ask, name)
        waits = known is not None and known["state"] in ("starting", "waiting") and not known["reason"]
        return None if waits else known

    known = _await(settled, arguments.timeout) or _find(ask, name)
    done = f"camera {name} is {'added' if action == 'add' else 'changed'}"
    if known and known["state"] in ("online", "ended"):
        _tell(f"{done}, and {known['state']}")
    else:
        why = f": {known['reason']}" if known and known["reason"] else " yet"
        _tell(done)
        _warn(f"camera {name} gives no pictures{why}; the service tries again, and `fer-stream cameras list` shows it")


def _remove(arguments: Namespace, _: dict[str, Any], ask: Ask) -> None:
    name = arguments.name
    answer = ask("remove", camera=name)
    _tell_lasts(name, answer)
    if _await(lambda: _find(ask, name) is None, arguments.timeout):
        _tell(f"camera {name} is removed")
    else:
        _warn(f"camera {name} is removed, and its capture has not ended yet")


def _reload(_: Namespace, __: dict[str, Any], ask: Ask) -> None:
    answer = ask("reload")
    parts = [f"{what}: {', '.join(answer[what])}" for what in ("added", "changed", "removed") if answer[what]]
    _tell("; ".join(parts) or "no camera has changed")
    if answer["restart"]:
        _warn(f"{', '.join(answer['restart'])} changed in the settings file, which needs a restart")


def _find(ask: Ask, name: str) -> dict[str, Any] | None:
    return next((camera for camera in ask("list")["cameras"] if camera["camera"] == name), None)


def _await(condition: Callable[[], Any], seconds: float) -> Any:
    """Wait until a condition holds, and return its value; after so many seconds ``None``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(LOOK)
    return None


def _complete(source: str) -> str:
    """Return the complete path of a file, because the service may run in another folder; other sources unchanged."""
    if source.isdigit() or source.partition(":")[0] in plugins.available("sources"):
        return source
    try:
        return str(Path(source).absolute()) if Path(source).exists() else source
    except OSError:  # for example a name that is too long for a file
        return source


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _tell_lasts(name: str, answer: dict[str, Any]) -> None:
    if not answer["lasts"]:
        _warn(f"camera {name} was given when the service started: this change lasts until the service ends")


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _warn(text: str) -> None:
    sys.stderr.write(f"fer-stream: warning: {text}\n")
