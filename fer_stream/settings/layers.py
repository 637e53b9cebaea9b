"""Where settings come from: reading a file and the environment, and laying one over the other with provenance.

The reading is pydantic-settings' own; what is added here is an origin for each value and a sentence for each fault.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic_settings import EnvSettingsSource, JsonConfigSettingsSource, SettingsError, TomlConfigSettingsSource

from fer_stream.errors import ConfigError
from fer_stream.settings.schema import KeyPath, leaves

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydantic_settings import BaseSettings

_PREFIX = "FER_STREAM_"

_INTERNAL = {"FER_STREAM_PARENT", "FER_STREAM_PROCESS", "FER_STREAM_LAST_WORDS", "FER_STREAM_DELIVERIES"}
"""Set by a supervisor for its children; see `fer_stream.operations.process` and `fer_stream.operations.metrics`."""

_KUBERNETES = re.compile(r"FER_STREAM_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d\w*)?)")
"""What Kubernetes puts into every container's environment for a service whose name begins with ``fer-stream``."""


class Layers:
    """Values laid over each other, table by table, the latest on top; and where each came from."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._origins: dict[KeyPath, str] = {}

    def add(self, layer: Mapping[str, Any], origin: Callable[[KeyPath], str]) -> None:
        """Lay a tree over what is there; ``origin`` says where the value at a path came from."""
        self._lay(self.values, layer, origin, ())

    def add_at(self, path: KeyPath, value: Any, origin: str) -> None:
        """Lay one value (or table) at a path over what is there; its part ``*`` is every key that is there."""
        if "*" in path:
            at = path.index("*")
            above: Any = self.values
            for key in path[:at]:
                above = above.get(key, {}) if isinstance(above, dict) else {}
            for key in above if isinstance(above, dict) else ():
                self.add_at((*path[:at], key, *path[at + 1 :]), value, origin)
            return
        for key in reversed(path):
            value = {key: value}
        self.add(value, lambda _: origin)

    def origin(self, path: KeyPath) -> str:
        """Return where the value at a path came from; for a table, where its parts did."""
        parts = dict.fromkeys(origin for key, origin in self._origins.items() if key[: len(path)] == path)
        return " and ".join(parts) or "default"

    def _lay(
        self, tree: dict[str, Any], layer: Mapping[str, Any], origin: Callable[[KeyPath], str], above: KeyPath
    ) -> None:
        for key, value in layer.items():
            path = (*above, key)
            if isinstance(value, Mapping):
                if tree.get(key) is None:
                    tree[key] = {}
                if not isinstance(tree[key], dict):
                    continue  # what stands where a table belongs stays, for the validation to tell of it
                self._lay(tree[key], value, origin, path)
            else:
                tree[key] = value
            if not isinstance(value, Mapping) or not value:
                self._origins[path] = origin(path)


def read_file(model: type[BaseSettings], file: Path) -> dict[str, Any]:
    """Return what a TOML file sets, or a JSON one, which begins with a brace or ends in ``.json``.

    Raises:
        ConfigError: there is no such file, or it is not what its ending says.
    """
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
    except (SettingsError, ValueError, TypeError, RecursionError) as error:  # whatever a decoder says
        raise ConfigError(f"the settings file {file} is not {kind}: {error}") from error


def read_environment(model: type[BaseSettings]) -> tuple[dict[str, Any], list[str]]:
    """Return what the environment sets, and a sentence for each variable of ours that sets nothing.

    Raises:
        ConfigError: a list or table that is not JSON.
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
        advice = f"did you mean {near[0]}?" if near else "`fer-stream config --template` shows all"
        problems.append(f"env {name}: there is no such setting; {advice}")
    try:
        return dict(EnvSettingsSource(model)()), problems
    except SettingsError as error:
        text = getattr(error.__cause__, "doc", None)
        name = next((name for name, value in os.environ.items() if value == text), f"{_PREFIX}*")
        raise ConfigError(f"""env {name}: a list or a table must be given as JSON, such as '["a", "b"]'""") from error


def variable_name(path: KeyPath) -> str:
    """Return the name of the variable for a setting."""
    return _PREFIX + "__".join(path).upper()


def variable(path: KeyPath) -> str:
    """Return the variable that sets a path now: its own, or that of a table around it, given whole as JSON."""
    spelled = {name.upper(): name for name in os.environ}
    names = [variable_name(path[:end]) for end in range(len(path), 0, -1)]
    return next((spelled[name] for name in names if name in spelled), names[0])
