"""Which nets a campaign trains: recipes in a TOML file, the most important first.

::

    views = 4                             # views of each training face for which soft targets are written

    [[net]]
    name = "wide-1"
    recipe = "../recipes/wide.toml"       # relative to the campaign's file
    publish = "emotion"                   # optional: which model `training.publish` makes of it, emotion or tiny
    start = ["../../models/emotion.onnx"] # optional: its initial weights, as --start of `training.train`
    keep = 0.5                            # optional: share of the published files' weights that the model keeps
    rebalance = 0.1                       # optional: as --rebalance of `training.export`, for FER+'s labels
    with = { seed = 1, net.side = 96 }    # optional: settings that replace the recipe's

``[augmentation]`` sets how these views vary; the default is the recipe's default.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ConfigError
from training import recipe
from training.objective import Views

if TYPE_CHECKING:
    from pathlib import Path

    from training.recipe import Recipe

PUBLISHED = ("emotion", "tiny")
"""Allowed values of ``publish``: the model that is made of the net."""

_SETTINGS = ("name", "recipe", "publish", "start", "keep", "rebalance", "with")

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")


@dataclass(frozen=True)
class Entry:
    """One net of a campaign: its name, its recipe, the model that is made of it, if any, and its initial weights.

    `training.publish` describes ``keep`` and ``rebalance``.
    """

    name: str
    recipe: Recipe
    publish: str | None = None
    start: tuple[Path, ...] = ()
    keep: float = 0.0
    rebalance: float = 0.0


@dataclass(frozen=True)
class Campaign:
    """Nets in order of importance, and the views of the training faces that they predict after training."""

    nets: tuple[Entry, ...]
    views: Views


def load(path: Path) -> Campaign:
    """Return the campaign in a TOML file.

    Raises:
        ConfigError: the file, or one of its recipes, cannot be read or has a wrong setting; one sentence per problem.
    """
    values = recipe.read(path)
    if unknown := sorted(values.keys() - {"views", "augmentation", "net"}):
        raise ConfigError(f"{path}: there is no setting {unknown[0]}; known there are views, augmentation, net")
    count, tables = values.get("views", 4), values.get("net", [])
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(f"{path}: views = {count!r} is not allowed: it must be a whole number, at least 1")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path} has no nets; write a table [[net]] for each")
    shown = recipe.parse({"augmentation": values.get("augmentation", {})}, str(path)).augmentation
    nets = tuple(_entry(table, path, number) for number, table in enumerate(tables, 1))
    for kind, values_of in (("name", [net.name for net in nets]), ("publish", [net.publish for net in nets])):
        if twice := [value for value in values_of if value is not None and values_of.count(value) > 1]:
            raise ConfigError(f"{path}: two nets have {kind} = {twice[0]!r}; it must be different for each")
    if len({(net.recipe.limit, net.recipe.holdout, net.recipe.holdout and net.recipe.seed) for net in nets}) > 1:
        raise ConfigError(f"{path}: all nets must learn from the same faces, with the same limit and holdout")
    return Campaign(nets, Views(count, 0, shown))


def _entry(table: dict[str, Any], path: Path, number: int) -> Entry:
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{path}: net {number} needs a name of at most 41 small letters, digits, '-' and '_'")
    where = f"{path}: net {name}"
    if unknown := sorted(table.keys() - set(_SETTINGS)):
        raise ConfigError(f"{where}: there is no setting {unknown[0]}; known there are {', '.join(_SETTINGS)}")
    if not isinstance(table.get("recipe"), str):
        raise ConfigError(f'{where} needs a recipe, such as recipe = "../recipes/wide.toml"')
    if table.get("publish") not in (None, *PUBLISHED):
        raise ConfigError(f"{where}: publish = {table['publish']!r} is not allowed: it must be emotion or tiny")
    start = table.get("start", [])
    if not isinstance(start, list) or not all(isinstance(name, str) for name in start):
        raise ConfigError(f'{where}: start must be a list of files, such as start = ["../../models/emotion.onnx"]')
    shares = {setting: table.get(setting, 0.0) for setting in ("keep", "rebalance")}
    for setting, share in shares.items():
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share <= 1:
            raise ConfigError(f"{where}: {setting} = {share!r} is not allowed: it must be a number from 0 to 1")
    if any(shares.values()) and "publish" not in table:
        raise ConfigError(f"{where}: keep and rebalance apply to the model that is made of the net: set publish, too")
    if shares["keep"] and not start:
        raise ConfigError(f"{where}: keep needs start, the published files of which a share is kept")
    changes = table.get("with", {})
    if not isinstance(changes, dict):
        raise ConfigError(f"{where}: with must be a table, such as with = {{ seed = 1 }}")
    values = _merged(recipe.read(path.parent / table["recipe"]), changes)
    begins = tuple(path.parent / name for name in start)
    return Entry(name, recipe.parse(values, where), table.get("publish"), begins, **shares)


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the values with some replaced; ``sizes`` is one setting and is replaced as a whole."""
    merged = copy.copy(values)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = (
            _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) and key != "sizes" else value
        )
    return merged
