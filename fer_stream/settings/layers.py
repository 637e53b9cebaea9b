"""The sources of settings: reads a file and the environment, and merges them with the origin of each value.

pydantic-settings does the reading. This module adds an origin for each value and a sentence for each error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic_settings import EnvSettingsSource, JsonConfigSettingsSource, SettingsError, TomlConfigSettingsSource

from fer_stream.errors import ConfigError
from fer_stream.settings.schema import KeyPath, leaves
from fer_stream.system.handover import received

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydantic_settings import BaseSettings

_PREFIX = "FER_STREAM_"

_INTERNAL = {f"FER_STREAM_{name}" for name in ("PARENT", "PROCESS", "LAST_WORDS", "NOTES", "REPORTS")}
"""Set by a supervisor for its children; see `fer_stream.operations.process` and `fer_stream.operations.metrics`."""

_KUBERNETES = re.compile(r"FER_STREAM_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d\w*)?)")
"""Variables that Kubernetes sets in every container for a service whose name begins with ``fer-stream``."""


class Layers:
    """Trees of values merged table by table, later ones over earlier ones, and the origin of each value."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._origins: dict[KeyPath, str] = {}

    def add(self, layer: Mapping[str, Any], origin: Callable[[KeyPath], str]) -> None:
        """Merge a tree over the present values; ``origin`` returns the origin of the value at a path."""
        self._merge(self.values, layer, origin, ())

    def add_at(self, path: KeyPath, value: Any, origin: str) -> None:
        """Merge one value or table at a path; ``*`` in the path stands for every key present at that level."""
        if "*" in path:
            star = path.index("*")
            table: Any = self.values
            for key in path[:star]:
                table = table.get(key, {}) if isinstance(table, dict) else {}
            for key in table if isinstance(table, dict) else ():
                self.add_at((*path[:star], key, *path[star + 1 :]), value, origin)
            return
        for key in reversed(path):
            value = {key: value}
        self.add(value, lambda _: origin)

    def origin(self, path: KeyPath) -> str:
        """Return the origin of the value at a path; for a table, the origins of its parts."""
        parts = dict.fromkeys(origin for key, origin in self._origins.items() if key[: len(path)] == path)
        return " and ".join(parts) or "default"

    def _merge(
        self, tree: dict[str, Any], layer: Mapping[str, Any], origin: Callable[[KeyPath], str], prefix: KeyPath
    ) -> None:
        for key, value in layer.items():
            path = (*prefix, key)
            if isinstance(value, Mapping):
                if tree.get(key) is None:
                    tree[key] = {}
                if not isinstance(tree[key], dict):
                    continue  # keep a value that should be a table, so that the validation reports it
                self._merge(tree[key], value, origin, path)
            else:
                tree[key] = value
            if not isinstance(value, Mapping) or not value:
                self._origins[path] = origin(path)


def read_file(model: type[BaseSettings], file: Path) -> dict[str, Any]:
    """Return the values in a TOML file, or in a JSON file, which begins with a brace or whose name ends in ``.json``.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is not valid TOML or JSON.
    """
    if (handed := received(file)) is not None:
        return dict(json.loads(handed))
    kind = "JSON" if file.suffix == ".json" else "TOML"
    try:
        if not file.is_file():
            raise ConfigError(f"there is no settings file {file}; `fer-stream config --template` prints one")
        with file.open("rb") as stream:
            kind = "JSON" if stream.read(1) == b"{" else kind
        if kind == "JSON":
            return dict(JsonConfigSettingsSource(model, json_file=file)())
        return dict(TomlConfigSettingsSource(model, toml_file=file)())
    except OSError as error:
        raise ConfigError(f"the settings file {file} cannot be read: {error.strerror}") from error
    except (SettingsError, ValueError, TypeError, RecursionError) as error:  # what the decoders raise
        raise ConfigError(f"the settings file {file} is not {kind}: {error}") from error


def read_environment(model: type[BaseSettings]) -> tuple[dict[str, Any], list[str]]:
    """Return the values in the environment, and a sentence for each ``FER_STREAM_*`` variable that is no setting.

    Raises:
        ConfigError: a list or table is not valid JSON.
    """
    problems = []
    for name in os.environ:
        upper = name.upper()
        top = upper.removeprefix(_PREFIX).partition("__")[0].lower()
        if not upper.startswith(_PREFIX) or top in model.model_fields:
            continue
        if upper in _INTERNAL or _KUBERNETES.fullmatch(upper):
            continue
        known = [variable_name(path) for path in leaves(model.model_json_schema())]
        near = get_close_matches(upper, known, 1, 0.8)
        advice = f"did you mean {near[0]}?" if near else "`fer-stream config --template` shows all settings"
        problems.append(f"env {name}: there is no such setting; {advice}")
    try:
        return dict(EnvSettingsSource(model)()), problems
    except SettingsError as error:
        text = getattr(error.__cause__, "doc", None)
        name = next((name for name, value in os.environ.items() if value == text), f"{_PREFIX}*")
        raise ConfigError(f"""env {name}: a list or a table must be given as JSON, such as '["a", "b"]'""") from error


def variable_name(path: KeyPath) -> str:
    """Return the name of the environment variable for a setting."""
    return _PREFIX + "__".join(path).upper()


def variable(path: KeyPath) -> str:
    """Return the present variable that sets a path: its own, or that of a table around it, which holds JSON."""
    spelled = {name.upper(): name for name in os.environ}
    names = [variable_name(path[:end]) for end in range(len(path), 0, -1)]
    return next((spelled[name] for name in names if name in spelled), names[0])
