"""The cameras and the keys of a cell, as operators see and change them from any machine, whether or not a node runs.

They are in tables that nodes and aggregators follow (`fer_stream.fleet.commons`). A camera whose source belongs to one
machine gets that machine when it is added: by default the one at which the command runs.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, get_args

from fer_stream.errors import ConfigError
from fer_stream.fleet.commons import KEYS, NODES, REGISTRY, commons
from fer_stream.service.cameras import Cameras, Given
from fer_stream.service.commands import entry, name_in, unset_in, values_in
from fer_stream.service.supervisor import CameraState, State
from fer_stream.settings import references, tree
from fer_stream.sources import local
from fer_stream.transports import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fer_stream.fleet.commons import Table
    from fer_stream.service.registry import Values
    from fer_stream.settings.tree import Settings
    from fer_stream.transports.keys import Entry

MOST = 16_384
"""Most cameras of a cell."""

ANY = "*"
"""The setting ``machine`` of a camera that any node may capture."""

LONGEST_REASON = 120
"""Most characters of a reason that a node tells: the states of 256 cameras must fit into one message."""

END_OF_TIME = 253_402_300_800
"""The year 10000 in Unix seconds."""

STATES = "states "
"""Begins the key in `NODES` in which a node tells the states of its cameras; the machine's name follows."""


class TableRegistry:
    """A `fer_stream.service.registry.Registry` in a cell's table. A change that meets another one is refused."""

    def __init__(self, table: Table) -> None:
        self._table = table

    @property
    def where(self) -> str:
        """See `Registry.where`."""
        return self._table.where

    def read(self) -> dict[str, Values]:
        """See `Registry.read`. What cannot be read, because another program wrote it, has an invalid setting."""
        return {name: decode(text) for name, text in sorted(self._table.read().items())}

    def put(self, camera: str, values: Values) -> None:
        """See `Registry.put`."""
        self._table.put(camera, json.dumps(values))

    def remove(self, camera: str) -> None:
        """See `Registry.remove`."""
        self._table.put(camera, "")


class CellRing:
    """The allowed keys of a cell: see `fer_stream.transports.keys.Ring`."""

    def __init__(self, settings: Settings) -> None:
        """Connect.

        Raises:
            ConfigError: the settings name no cell.
            JournalError: the servers cannot be used.
        """
        self._table = commons(settings).table(settings.fleet, KEYS)

    def own(self) -> str:
        """See `fer_stream.transports.keys.Ring.own`."""
        return ""

    def entries(self) -> list[Entry]:
        """See `fer_stream.transports.keys.Ring.entries`."""
        return [entry for name, text in sorted(self._table.read().items()) if (entry := keys.decode(name, text))]

    def put(self, entry: Entry) -> None:
        """See `fer_stream.transports.keys.Ring.put`."""
        self._table.put(entry.name, keys.encode(entry))

    def remove(self, name: str) -> None:
        """See `fer_stream.transports.keys.Ring.remove`."""
        self._table.put(name, "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()


def decode(text: str) -> Values:
    """Return a camera's settings in the registry."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"invalid": text}


class CellCommands:
    """Answers the calls of ``fer-stream cameras`` for a cell, as `fer_stream.service.commands` does for a service."""

    def __init__(self, settings: Settings) -> None:
        """Read the registry.

        Raises:
            ConfigError: the settings name no cell.
            JournalError: the servers cannot be used.
        """
        self._settings = settings
        shared = commons(settings)
        with ExitStack() as opened:
            registry = opened.enter_context(shared.table(settings.fleet, REGISTRY))
            self._nodes = opened.enter_context(shared.table(settings.fleet, NODES))
            given = Given(settings.model_copy(update={"cameras": {}, "max_cameras": MOST}), {}, None, {})
            self._cameras = Cameras(given, None, TableRegistry(registry))
            self._opened = opened.pop_all()
        self._actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "list": lambda _: self._list(),
            "add": self._add,
            "change": self._change,
            "remove": self._remove,
        }

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out a request, and return its answer.

        Raises:
            ConfigError: it is wrong use; nothing has changed.
            FerStreamError: it cannot be carried out.
        """
        do = request["do"]
        if do not in self._actions:
            raise ConfigError(
                f"a cell has no {do}: its cameras are only in its registry; change them with `fer-stream cameras`"
            )
        return self._actions[do](request)

    def _list(self) -> dict[str, Any]:
        self._cameras.refresh()
        said = self._nodes.read()
        nodes = {key for key in said if not key.startswith(STATES)}
        states: dict[str, tuple[str, CameraState]] = {}
        for key, text in said.items():  # the latest last: a node that has died told nothing since
            node = key.removeprefix(STATES)
            for name, state in (decode_states(text) if key != node in nodes else {}).items():
                if name not in states or state.state != "ending":  # the one that gives it away tells so, too
                    states[name] = node, state
        found = []
        for name, camera in self._cameras.now.items():
            values = tree.changed(camera) | {"source": references.displayed(camera.source)}
            pinned = values.pop("machine", ANY)
            node, state = states.get(name, ("", CameraState("waiting", 0.0, _why(pinned, nodes))))
            found.append(entry(name, state, "registry", values) | {"machine": pinned, "node": node})
        unused = [{"camera": name, "reason": reason} for name, reason in self._cameras.unused.items()]
        return {"cameras": found, "unused": unused}

    def _add(self, request: dict[str, Any]) -> dict[str, Any]:
        name, values = name_in(request), values_in(request)
        self._cameras.add(name, self._placed(name, values))
        return {"lasts": True}

    def _change(self, request: dict[str, Any]) -> dict[str, Any]:
        name, values, unset = name_in(request), values_in(request), unset_in(request)
        before = self._cameras.now.get(name)
        if before is not None and "machine" not in values:
            after = self._camera(name, tree.changed(before) | values)
            if "machine" in unset or local(after) != local(before):
                unset = [*unset, "machine"]
                values = self._placed(name, values | {"source": after.source})
        return {"changed": self._cameras.change(name, values, unset), "lasts": True}

    def _remove(self, request: dict[str, Any]) -> dict[str, Any]:
        self._cameras.remove(name_in(request))
        return {"lasts": True}

    def _placed(self, name: str, values: Values) -> Values:
        """Return the settings of a camera with its machine, if its source belongs to one."""
        if "machine" in values or not local(self._camera(name, values)):
            return values
        return values | {"machine": self._settings.fleet.here}

    def _camera(self, name: str, values: Values) -> tree.CameraSettings:
        return tree.cameras({name: values})[name]

    def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def encode_states(states: Mapping[str, CameraState]) -> str:
    """Return what a node tells about the cameras that it captures."""
    told = {name: (one.state, round(one.since), one.reason[:LONGEST_REASON]) for name, one in sorted(states.items())}
    return json.dumps({"cameras": told})


def decode_states(text: str) -> dict[str, CameraState]:
    """Return what `encode_states` was given; nothing if another program wrote the text."""
    try:
        told = json.loads(text)["cameras"].items()
        return {name: _state(*one) for name, one in told}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def _state(state: State, since: float, reason: str) -> CameraState:
    if state not in get_args(State) or not 0 <= since < END_OF_TIME:
        raise ValueError("not the state of a camera")
    return CameraState(state, float(since), "".join(one if one.isprintable() else "?" for one in reason))


def _why(pinned: str, nodes: set[str]) -> str:
    """Return why nobody captures a camera."""
    if not nodes:
        return "no node runs: start `fer-stream node` on a machine of the cell"
    if pinned not in (ANY, *nodes):
        return f"no node runs on the machine {pinned}"
    return ""
